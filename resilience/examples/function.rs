//! A plain function behind a breaker: no async, no features.
//!
//! `cargo run -p resilience --example function`

use std::io::{self, Write};
use std::time::Duration;

use resilience::breaker::{Breaker, Error};
use resilience::{Clock, SystemClock};

fn main() -> io::Result<()> {
    story(&mut io::stdout(), SystemClock, std::thread::sleep)
}

/// A weather station that doesn't answer for the first four times that it is asked.
struct Station {
    asked: u32,
}

impl Station {
    fn temperature(&mut self) -> Result<u32, &'static str> {
        self.asked += 1;
        if self.asked <= 4 { Err("no answer") } else { Ok(21) }
    }
}

/// What the clock is and how waiting is done comes from outside: a test turns the time by hand, and
/// reads what is written.
pub(crate) fn story(
    out: &mut impl Write,
    clock: impl Clock,
    wait: impl Fn(Duration),
) -> io::Result<()> {
    let mut station = Station { asked: 0 };
    let breaker = Breaker::builder("weather")
        .consecutive_failures(3)
        .open_for(Duration::from_secs(1))
        .clock(clock)
        .build();
    let events = breaker.subscribe(16);

    for call in 1..=8 {
        match breaker.call(|| station.temperature()) {
            Ok(degrees) => writeln!(out, "call {call}: {degrees} degrees")?,
            Err(Error::Failed(reason)) => writeln!(out, "call {call}: {reason}")?,
            Err(Error::Rejected(rejection)) => {
                // The station was not asked, and the user reads why.
                writeln!(out, "call {call}: {rejection}")?;
                wait(rejection.retry_after());
            }
        }
        while let Some(event) = events.try_recv() {
            writeln!(out, "        {}", name(&event.kind))?;
        }
    }
    writeln!(out, "8 calls, and the station was asked {} times", station.asked)
}

fn name(kind: &resilience::breaker::EventKind) -> &'static str {
    use resilience::breaker::EventKind;

    match kind {
        EventKind::Opened { .. } => "-> open",
        EventKind::HalfOpened => "-> half-open, and this call was the probe",
        EventKind::Closed => "-> closed",
        _ => "-> something that this story doesn't tell",
    }
}
