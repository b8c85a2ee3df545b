//! The stages together, under paused time: waits pass at once, and are measured.

mod order;
mod retries;
mod timeouts;

use std::fmt;
use std::time::Duration;

use super::*;
use crate::breaker::{BreakerBuilder, State};
use crate::retry::{Backoff, RetryBudget};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// An error that advises what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Failure(Advice);

impl Retryable for Failure {
    fn advice(&self) -> Advice {
        self.0
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("out of order")
    }
}

impl std::error::Error for Failure {}

const UNKNOWN: Failure = Failure(Advice::retry());
const NOT_SENT: Failure = Failure(Advice::retry().without_effect());
const NO: Failure = Failure(Advice::never());

/// Opens at the first failure.
fn breaker() -> BreakerBuilder {
    Breaker::builder("billing").consecutive_failures(1)
}

/// Three attempts, whatever they cost, with waits of at most 10 ms.
fn retry() -> Retry {
    let backoff = Backoff::new().initial(ms(10)).multiplier(1.0);
    Retry::new(RetryBudget::unlimited("billing")).backoff(backoff)
}

fn pipeline() -> PipelineBuilder {
    Pipeline::builder("billing")
}

async fn fail(pipeline: &Pipeline, call: Call, failure: Failure) -> Error<Failure> {
    pipeline.call(call, |_| async move { Err::<(), _>(failure) }).await.expect_err("it fails")
}

/// Takes this long.
async fn take(pipeline: &Pipeline, call: Call, time: Duration) -> Result<(), Error<Failure>> {
    let op = |_| async move {
        tokio::time::sleep(time).await;
        Ok(())
    };
    pipeline.call(call, op).await
}
