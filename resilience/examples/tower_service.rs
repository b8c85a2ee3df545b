//! The pipeline as a layer round a `tower` service: a hiccup is repeated, an outage opens the breaker.
//!
//! `cargo run -p resilience --example tower_service --features tower`

use std::convert::Infallible;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use resilience::pipeline::ErrorKind;
use resilience::retry::Advice;
use resilience::tower::{Policy, ResilienceLayer};
use resilience::{Breaker, Bulkhead, Call, Pipeline, Retry, RetryBudget, Verdict};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

#[tokio::main]
async fn main() -> io::Result<()> {
    story(&mut io::stdout()).await
}

/// A request line, and the status of its answer: enough for a story.
type Request = &'static str;

/// What they mean is for their owner to say.
struct Statuses;

impl Policy<Request, u16, Infallible> for Statuses {
    fn call(&self, request: &Request) -> Call {
        if request.starts_with("GET") { Call::idempotent() } else { Call::not_idempotent() }
    }

    fn again(&self, request: &Request) -> Option<Request> {
        Some(request)
    }

    fn classify(&self, result: &Result<u16, Infallible>) -> Verdict {
        match result {
            Ok(status @ 500..) => Verdict::Failure(format!("answered {status}").into()),
            _ => Verdict::Success,
        }
    }

    fn advise(&self, result: &Result<u16, Infallible>) -> Advice {
        if *result == Ok(503) { Advice::retry() } else { Advice::never() }
    }
}

/// What billing answers, in this order; then it is well.
const ANSWERS: [u16; 6] = [200, 503, 200, 503, 503, 503];

/// The time is Tokio's: a test pauses it, and reads what is written.
pub(crate) async fn story(out: &mut impl Write) -> io::Result<()> {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let billing = service_fn(move |_: Request| {
        let number = counter.fetch_add(1, Ordering::Relaxed);
        async move { Ok::<_, Infallible>(ANSWERS.get(number).copied().unwrap_or(200)) }
    });

    let pipeline = Pipeline::builder("billing")
        .bulkhead(Bulkhead::builder("billing", 20).build())
        .retry(Retry::new(RetryBudget::builder("billing").build()))
        .breaker(Breaker::builder("billing").open_for(Duration::from_secs(1)).build())
        .timeout(Duration::from_millis(500))
        .build();
    let mut billing = ServiceBuilder::new()
        .layer(ResilienceLayer::with_policy(pipeline, Statuses))
        .service(billing);

    for call in 1..=5 {
        let before = asked.load(Ordering::Relaxed);
        let Ok(ready) = billing.ready().await else { continue };
        let answer = ready.call("GET /invoices/7").await;
        let times = asked.load(Ordering::Relaxed) - before;
        match answer {
            Ok(status) => writeln!(out, "call {call}: {status}, asked {times} times")?,
            Err(error) => {
                writeln!(out, "call {call}: {error}, asked {times} times")?;
                if let ErrorKind::Rejected(rejection) = error.kind() {
                    tokio::time::sleep(rejection.retry_after()).await;
                }
            }
        }
    }
    Ok(())
}
