//! A fallback chain: the live price, else the last one that is known, else a declared one. The answer
//! says which it is.
//!
//! `cargo run -p resilience --example fallback --features pipeline`

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use resilience::fallback::{self, Answer, LastKnown, Source};
use resilience::{Clock, SystemClock};

fn main() -> io::Result<()> {
    story(&mut io::stdout(), SystemClock, std::thread::sleep)
}

#[derive(Debug)]
enum Failure {
    NotFound,
    Unavailable,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "there is no such thing",
            Self::Unavailable => "connection refused",
        })
    }
}

/// In cents, for want of anything better.
const DECLARED: u32 = 250;

struct Shop {
    is_up: bool,
    known: LastKnown<&'static str, u32>,
}

impl Shop {
    /// The dependency.
    fn live(&self, what: &str) -> Result<u32, Failure> {
        match what {
            _ if !self.is_up => Err(Failure::Unavailable),
            "tea" => Ok(400),
            "milk" => Ok(120),
            _ => Err(Failure::NotFound),
        }
    }

    /// The chain reads as it is written. "There is no such thing" is an answer, and no fallback
    /// hides it.
    fn price(&self, what: &'static str) -> Result<Answer<u32, Failure>, Failure> {
        let live = fallback::live_unless(self.live(what), |e| matches!(e, Failure::NotFound))?;
        Ok(live.or_last_known(&self.known, &what).or_declared(DECLARED))
    }
}

/// What the clock is and how waiting is done comes from outside: a test turns the time by hand, and
/// reads what is written.
pub(crate) fn story(
    out: &mut impl Write,
    clock: impl Clock,
    wait: impl Fn(Duration),
) -> io::Result<()> {
    let known = LastKnown::new(1000).max_age(Duration::from_millis(1500)).clock(clock);
    let mut shop = Shop { is_up: true, known };
    writeln!(out, "the shop is open")?;
    tell(out, "tea", shop.price("tea"))?;
    tell(out, "coffee", shop.price("coffee"))?;

    shop.is_up = false;
    wait(Duration::from_secs(1));
    writeln!(out, "a second later it is away")?;
    tell(out, "tea", shop.price("tea"))?;
    tell(out, "milk", shop.price("milk"))?;

    wait(Duration::from_secs(1));
    writeln!(out, "another second later what is known is too old")?;
    tell(out, "tea", shop.price("tea"))
}

fn tell(
    out: &mut impl Write,
    what: &str,
    price: Result<Answer<u32, Failure>, Failure>,
) -> io::Result<()> {
    match price {
        Ok(Answer { value, source: Source::LastKnown { age }, error }) => {
            let (age, why) = (age.as_secs(), error.map(|e| e.to_string()).unwrap_or_default());
            writeln!(out, "  {what}: {value}, as it was {age} s ago ({why})")
        }
        Ok(Answer { value, source, .. }) => writeln!(out, "  {what}: {value}, {}", source.as_str()),
        Err(failure) => writeln!(out, "  {what}: {failure}"),
    }
}
