//! This library, in the settings that are measured.

use std::time::Duration;

use resilience::breaker::BreakerBuilder;
use resilience::{Breaker, Bulkhead, Call, Deadline, Pipeline, Retry, RetryBudget};

use crate::dependency::{answer, fail, succeed};
use crate::harness::Case;
use crate::peers::{FAILURES, OPEN_FOR};
use crate::runtime::futures;

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

/// Needs the time of a call's end as well: two clock reads.
pub(crate) fn slow_threshold_and_window() -> Case {
    case("resilience, both, with a slow rate", builder().failure_rate(0.5).slow_rate(0.5).build())
}

pub(crate) fn open() -> Breaker {
    let breaker = builder().build();
    for n in 0..FAILURES {
        let _ = breaker.call(|| fail(n));
    }
    assert!(breaker.check().is_err());
    breaker
}

pub(crate) fn open_call() -> Case {
    case("resilience, `call`", open())
}

pub(crate) fn open_acquire() -> Case {
    let breaker = open();
    Case::new("resilience, `acquire`", move |n| {
        let permit = breaker.acquire().ok()?;
        permit.success();
        Some(n)
    })
}

pub(crate) fn breaker_round_future() -> Case {
    let breaker = builder().build();
    futures("resilience, a breaker", async move |n| breaker.call_async(answer(n)).await.ok())
}

/// All stages, as a service would have them.
pub(crate) fn pipeline_round_future() -> Case {
    let pipeline = Pipeline::builder("billing")
        .bulkhead(Bulkhead::builder("billing", 20).build())
        .retry(Retry::new(RetryBudget::builder("billing").build()))
        .breaker(builder().build())
        .timeout(Duration::from_secs(1))
        .build();
    let call = Call::idempotent().deadline(Deadline::after(OPEN_FOR));
    futures("resilience, the whole pipeline", async move |n| {
        pipeline.call(call, |_| answer(n)).await.ok()
    })
}
