//! A kind's breaker: while its dependency is away, only probes go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use resilience::State;
use resilience::breaker::Breaker;
use resilience::deferred::{HandlerError, Settings};
use serde_json::Value;

use super::bed::{Job, Ledger, eventually, quick};

const OPEN: Duration = Duration::from_millis(400);

fn gated() -> Settings {
    let breaker =
        Breaker::builder("job").consecutive_failures(2).open_for(OPEN).longest_open(OPEN).build();
    quick().breaker(breaker)
}

/// A dependency that can be away, and how it is used.
#[derive(Clone, Default)]
struct Dependency {
    away: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
    at_once: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    successes: Arc<AtomicUsize>,
    /// More calls at once than doubling with each success makes.
    rushed: Arc<AtomicBool>,
}

impl Dependency {
    fn job(&self) -> Job {
        let this = self.clone();
        Job::new(move |_| {
            let this = this.clone();
            async move { this.call().await }
        })
    }

    async fn call(&self) -> Result<Value, HandlerError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        if now > 1 << self.successes.load(Ordering::SeqCst).min(16) {
            self.rushed.store(true, Ordering::SeqCst);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        if self.away.load(Ordering::SeqCst) {
            return Err(HandlerError::unavailable("away"));
        }
        self.successes.fetch_add(1, Ordering::SeqCst);
        Ok(Value::Null)
    }
}

#[tokio::test]
async fn while_the_gate_is_open_only_probes_go_and_no_attempt_is_burnt() {
    let ledger = Ledger::new();
    let dependency = Dependency::default();
    dependency.away.store(true, Ordering::SeqCst);
    let running = ledger.start(dependency.job(), gated());
    let breaker = running.deferred.breaker::<Job>().clone();
    ledger.defer_many(100, &Value::Null);
    running.deferred.nudge();
    eventually("it opens", || breaker.state() == State::Open).await;
    eventually("the first ones return", || dependency.at_once.load(Ordering::SeqCst) == 0).await;
    let (before, opened) = (dependency.calls.load(Ordering::SeqCst), breaker.snapshot().opened);
    dependency.most.store(0, Ordering::SeqCst);
    eventually("it probes", || breaker.snapshot().opened >= opened + 4).await;
    let probes = dependency.calls.load(Ordering::SeqCst) - before;
    assert!((4..=5).contains(&probes), "{probes} calls in the time of 4 probes");
    assert_eq!(dependency.most.load(Ordering::SeqCst), 1);
    let attempts = ledger.number("SELECT sum(attempts) AS number FROM deferred");
    assert_eq!(usize::try_from(attempts).unwrap(), dependency.calls.load(Ordering::SeqCst));
    ledger.until("state = 'pending' AND strikes = 0", 100).await;
    running.stop().await;
}

#[tokio::test]
async fn what_waited_resumes_within_the_open_wait_and_a_second_and_ramps_up() {
    let ledger = Ledger::new();
    let dependency = Dependency::default();
    dependency.away.store(true, Ordering::SeqCst);
    let running = ledger.start(dependency.job(), gated());
    let breaker = running.deferred.breaker::<Job>().clone();
    ledger.defer_many(60, &Value::Null);
    running.deferred.nudge();
    eventually("it opens", || breaker.snapshot().opened >= 3).await;
    eventually("it waits", || breaker.state() == State::Open).await;
    dependency.rushed.store(false, Ordering::SeqCst);
    dependency.away.store(false, Ordering::SeqCst);
    let healed = Instant::now();
    eventually("all have begun", || ledger.count("state IN ('running', 'done')") == 60).await;
    assert!(healed.elapsed() < OPEN + Duration::from_secs(1), "{:?}", healed.elapsed());
    assert!(!dependency.rushed.load(Ordering::SeqCst), "it was not given time");
    ledger.until("state = 'done'", 60).await;
    assert_eq!(dependency.most.load(Ordering::SeqCst), 16);
    running.stop().await;
}

#[tokio::test]
async fn nothing_is_begun_while_an_operator_keeps_the_gate_open() {
    let ledger = Ledger::new();
    let dependency = Dependency::default();
    let running = ledger.start(dependency.job(), gated());
    let breaker = running.deferred.breaker::<Job>().clone();
    breaker.force_open();
    ledger.defer_many(10, &Value::Null);
    running.deferred.nudge();
    let rejected = breaker.snapshot().rejected;
    eventually("it looks", || breaker.snapshot().rejected > rejected + 2).await;
    assert_eq!(ledger.count("attempts = 0"), 10);
    breaker.reset();
    ledger.until("state = 'done'", 10).await;
    running.stop().await;
}

#[tokio::test]
async fn a_kind_that_is_gated_does_not_hold_up_another() {
    let ledger = Ledger::new();
    let running = {
        use super::worker::{Chore, settings};
        let builder = resilience::deferred::Deferred::builder(ledger.pool.clone());
        let builder = builder.handler(Job::done(), gated());
        let builder = builder.handler(Chore::new(&ledger.pool, "this"), settings());
        super::bed::Running::start(builder.build().unwrap())
    };
    running.deferred.breaker::<Job>().force_open();
    ledger.defer_many(50, &Value::Null);
    let call = super::worker::Chore::call(&super::worker::Do::Nothing);
    ledger.defer(&call);
    running.ended(call.id()).await;
    assert_eq!(ledger.count("kind = 'job' AND attempts = 0"), 50);
    running.stop().await;
}
