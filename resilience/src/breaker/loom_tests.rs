//! Every order in which two threads can see the lock-free parts, tried by `loom`.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p resilience --release --lib loom`

use std::time::Duration;

use loom::model::Builder;
use loom::sync::Arc;
use loom::thread;

use super::watch::{Hung, Plan, Watch};
use super::window::{Slice, Window};
use super::*;
use crate::testkit::ManualClock;

/// More preemptions than two find what fewer found, for hours (Musuvathi, Qadeer: Iterative context
/// bounding for systematic testing of multithreaded programs, PLDI 2007).
fn explore(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(model);
}

#[test]
fn a_window_is_never_read_while_a_slice_is_cleared() {
    explore(|| {
        let window = Arc::new(Window::default());
        let at = |number| Slice { number, epoch: 1 };
        window.record(at(0), true, true);
        window.record(at(0), false, false);
        let writer = {
            let window = Arc::clone(&window);
            // The same place in the ring.
            thread::spawn(move || window.record(at(16), true, false))
        };
        let early = window.counts(at(15));
        assert!(early.calls == 2 || early.calls == 0, "all of the old slice or none of it");
        assert!(early.failures <= early.calls && early.slow <= early.calls);
        let late = window.counts(at(16));
        assert!(late.calls <= 1 && late.failures <= late.calls && late.slow == 0);
        writer.join().unwrap();
        assert_eq!(window.counts(at(16)).failures, 1);
    });
}

#[test]
fn a_hung_call_is_never_counted_twice() {
    explore(|| {
        let watch = Arc::new(Watch::default());
        let plan = Plan { number: 1, era: 0 };
        watch.add(plan, 0, 1);
        let writer = {
            let watch = Arc::clone(&watch);
            // They take the first one's place, which becomes one of the older.
            thread::spawn(move || {
                watch.add(plan, 8, 1);
                watch.add(plan, 8, 1);
            })
        };
        let Hung { all, recent } = watch.hung(plan, 8);
        assert!((0..=1).contains(&all) && (0..=1).contains(&recent));
        writer.join().unwrap();
        assert_eq!(watch.hung(plan, 8), Hung { all: 1, recent: 1 });
    });
}

fn breaker() -> (Breaker, ManualClock) {
    let clock = ManualClock::new();
    let settings = Settings::new().consecutive_failures(1).without_slow_call();
    (Breaker::builder("dependency").settings(settings).clock(clock.clone()).build(), clock)
}

#[test]
fn a_success_and_the_failure_that_opens_are_one_after_the_other() {
    explore(|| {
        let (breaker, _) = breaker();
        let early = breaker.acquire_owned().unwrap();
        let other = {
            let breaker = breaker.clone();
            thread::spawn(move || breaker.acquire_owned().map(|permit| permit.failure("x")).is_ok())
        };
        early.success();
        assert!(other.join().unwrap(), "it was closed");
        let snapshot = breaker.snapshot();
        assert_eq!(snapshot.state, State::Open);
        assert_eq!((snapshot.calls, snapshot.in_flight, snapshot.failures), (2, 0, 1));
        assert_eq!(snapshot.successes + snapshot.stale, 1);
    });
}

#[test]
fn at_the_moment_of_recovery_one_of_two_probes() {
    explore(|| {
        let (breaker, clock) = breaker();
        breaker.acquire().unwrap().failure("x");
        clock.advance(Duration::from_secs(6));
        let other = {
            let breaker = breaker.clone();
            thread::spawn(move || breaker.acquire_owned().ok())
        };
        let mine = breaker.acquire_owned().ok();
        let other = other.join().unwrap();
        assert_eq!(u32::from(mine.is_some()) + u32::from(other.is_some()), 1);
        assert_eq!(breaker.state(), State::HalfOpen);
        mine.or(other).unwrap().success();
        assert_eq!(breaker.state(), State::Closed);
    });
}

#[test]
fn what_is_admitted_while_an_operator_opens_it_is_stale() {
    explore(|| {
        let (breaker, _) = breaker();
        let operator = {
            let breaker = breaker.clone();
            thread::spawn(move || breaker.force_open())
        };
        if let Ok(permit) = breaker.acquire() {
            permit.failure("x");
        }
        operator.join().unwrap();
        let snapshot = breaker.snapshot();
        assert_eq!(snapshot.state, State::ForcedOpen);
        assert_eq!(snapshot.calls + snapshot.rejected, 1);
        assert_eq!(snapshot.in_flight, 0);
    });
}
