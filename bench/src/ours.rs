//! This library's breaker, in the settings that are measured.

use std::time::Duration;

use resilience::Breaker;
use resilience::breaker::BreakerBuilder;

use crate::dependency::succeed;
use crate::harness::Case;
use crate::peers::{FAILURES, OPEN_FOR};

pub(crate) const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../resilience");

fn builder() -> BreakerBuilder {
    Breaker::builder("billing").consecutive_failures(FAILURES).open_for(OPEN_FOR)
}

fn case(name: &'static str, breaker: Breaker) -> Case {
    Case::new(name, move |n| breaker.call(|| succeed(n)).ok())
}

pub(crate) fn closed() -> Case {
    case("resilience, consecutive failures", builder().without_slow_call().build())
}

pub(crate) fn slow_threshold() -> Case {
    case("resilience, slow threshold", builder().slow_call(Duration::from_secs(2)).build())
}

pub(crate) fn window() -> Case {
    let breaker = builder().without_slow_call().failure_rate(0.5).build();
    case("resilience, failure rate over a window of 10 s", breaker)
}

pub(crate) fn slow_threshold_and_window() -> Case {
    let breaker = builder().failure_rate(0.5).slow_rate(0.5).hung_calls(100).build();
    case("resilience, both, with a slow rate and hung calls", breaker)
}

pub(crate) fn open() -> Case {
    let breaker = builder().build();
    for _ in 0..FAILURES {
        let _ = breaker.call(|| crate::dependency::fail(0));
    }
    assert!(breaker.check().is_err());
    case("resilience", breaker)
}
