//! A subscriber that asks the breaker about what it has just heard.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use resilience::testkit::ManualClock;
use resilience::{Breaker, State};

#[test]
fn a_subscriber_that_calls_back_does_not_deadlock() {
    let (done, finished) = mpsc::channel();
    std::thread::spawn(move || {
        let clock = ManualClock::new();
        let breaker =
            Breaker::builder("dependency").consecutive_failures(1).clock(clock.clone()).build();
        let subscriber =
            CallsBack { breaker: breaker.clone(), events: Arc::new(AtomicUsize::new(0)) };
        let events = Arc::clone(&subscriber.events);
        tracing::subscriber::with_default(subscriber, || {
            breaker.acquire().expect("closed").failure("x");
            clock.advance(Duration::from_secs(6));
            let _hung = breaker.acquire().expect("a probe");
            clock.advance(Duration::from_secs(10));
            breaker.acquire().expect("another probe").success();
            assert_eq!(breaker.state(), State::Closed);
        });
        let _ = done.send(events.load(Ordering::Relaxed));
    });
    let events = finished.recv_timeout(Duration::from_secs(20)).expect("no deadlock");
    assert_eq!(events, 4, "opened, probing, replaced, closed");
}

struct CallsBack {
    breaker: Breaker,
    events: Arc<AtomicUsize>,
}

impl tracing::Subscriber for CallsBack {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        let _ = self.breaker.snapshot();
        self.events.fetch_add(1, Ordering::Relaxed);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}
