//! Each test named after a trap is one that another breaker is known to fall into.

use std::time::Duration;

mod live;
mod policies;
mod probes;
mod states;

use super::*;
use crate::clock::Clock;
use crate::random::Random;
use crate::testkit::ManualClock;

const OPEN_FOR: Duration = Duration::from_secs(6);

fn breaker() -> (Breaker, ManualClock) {
    let clock = ManualClock::new();
    let breaker =
        Breaker::builder("dependency").longest_open(OPEN_FOR).clock(clock.clone()).build();
    (breaker, clock)
}

fn permit(breaker: &Breaker) -> Permit<'static> {
    breaker.acquire_owned().expect("a permit")
}

fn trip(breaker: &Breaker) {
    for _ in 0..3 {
        permit(breaker).failure("connection refused");
    }
    assert_eq!(breaker.state(), State::Open);
}

/// A breaker in half-open, with its probe.
fn probing() -> (Breaker, ManualClock, Permit<'static>) {
    let (breaker, clock) = breaker();
    trip(&breaker);
    clock.advance(OPEN_FOR);
    let probe = permit(&breaker);
    assert_eq!(breaker.state(), State::HalfOpen);
    (breaker, clock, probe)
}

fn rates(settings: Settings) -> (Breaker, ManualClock) {
    let clock = ManualClock::new();
    (Breaker::builder("dependency").settings(settings).clock(clock.clone()).build(), clock)
}

const STEP: Duration = Duration::from_secs(1);
