//! Callers of callers of callers: what their retries come to for the one at the bottom.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use resilience::retry::{Advice, Retryable};
use resilience::{Backoff, Breaker, Call, Pipeline, Random, Retry, RetryBudget};
use tokio::time;

/// Every other call fails, and every caller passes that on as a failure of his own: nobody names
/// the one at fault, so nothing but the budgets stops the retries.
#[derive(Debug, thiserror::Error)]
#[error("unavailable")]
struct Unavailable;

impl Retryable for Unavailable {
    fn advice(&self) -> Advice {
        Advice::retry()
    }
}

/// A caller, with retries and a breaker that such a failure rate doesn't open.
fn layer(budget: RetryBudget, seed: u64) -> Pipeline {
    let backoff = Backoff::new().initial(Duration::from_millis(50)).random(Random::seeded(seed));
    let breaker = Breaker::builder("next").consecutive_failures(1_000_000);
    Pipeline::builder("next")
        .retry(Retry::new(budget).attempts(3).backoff(backoff))
        .breaker(breaker.build())
        .timeout(Duration::from_secs(1))
        .build()
}

/// Makes 100 calls per second to the first of three layers, for a minute. How many reach the
/// dependency, per call.
async fn multiplication(budget: impl Fn() -> RetryBudget) -> f64 {
    const CALLS: u32 = 6000;
    let [first, second, third] = [1, 2, 3].map(|seed| layer(budget(), seed));
    let layers = Arc::new((first, second, third));
    let (random, reached) = (Arc::new(Random::seeded(4)), Arc::new(AtomicU64::new(0)));
    let mut calls = Vec::new();
    for _ in 0..CALLS {
        let (layers, random, reached) = (layers.clone(), random.clone(), reached.clone());
        calls.push(tokio::spawn(async move {
            let (first, second, third) = &*layers;
            let dependency = |_| async {
                reached.fetch_add(1, Ordering::Relaxed);
                time::sleep(Duration::from_millis(5)).await;
                if random.fraction() < 0.5 { Err(Unavailable) } else { Ok(()) }
            };
            let third = |_| async {
                third.call(Call::idempotent(), dependency).await.map_err(|_| Unavailable)
            };
            let second =
                |_| async { second.call(Call::idempotent(), third).await.map_err(|_| Unavailable) };
            let _ = first.call(Call::idempotent(), second).await;
        }));
        time::sleep(Duration::from_millis(10)).await;
    }
    for call in calls {
        call.await.expect("no panic");
    }
    let reached = u32::try_from(reached.load(Ordering::Relaxed)).expect("not so many");
    f64::from(reached) / f64::from(CALLS)
}

#[tokio::test(start_paused = true)]
async fn three_layers_of_retrying_callers_multiply_traffic_by_at_most_a_fifth() {
    let bounded = multiplication(|| RetryBudget::builder("next").build()).await;
    assert!(bounded <= 1.2, "{bounded}");
    // The budgets do that: without them, the traffic doubles.
    let unbounded = multiplication(|| RetryBudget::unlimited("next")).await;
    assert!(unbounded > 1.9, "{unbounded}");
}
