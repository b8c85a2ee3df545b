use std::time::Duration;

use super::*;
use crate::breaker::State;
use crate::testkit::ManualClock;

fn names(registry: &Registry) -> Vec<String> {
    registry.breakers().iter().map(|(key, _)| key.to_string()).collect()
}

/// Full of one breaker, in whatever condition `wear` leaves it.
fn full_of(wear: impl FnOnce(&Breaker)) -> Registry {
    let registry = Registry::with_capacity(1);
    let used = registry.breaker(&Key::new("used"), |breaker| breaker).expect("room");
    wear(&used);
    drop(used);
    registry
}

fn makes_way(registry: &Registry) -> bool {
    let made = registry.breaker(&Key::new("new"), |breaker| breaker);
    assert_eq!(made.is_ok(), names(registry) == ["new"]);
    made.is_ok()
}

#[test]
fn one_key_is_one_breaker_by_that_name() {
    let registry = Registry::new();
    let key = Key::new("billing").class("write");
    let one = registry.breaker(&key, |breaker| breaker.consecutive_failures(1)).expect("room");
    let other = registry.breaker(&key, |breaker| breaker).expect("room");
    one.acquire().expect("closed").failure("no answer");
    assert_eq!((other.state(), other.name()), (State::Open, "billing/write"));
    assert!(registry.find_breaker("billing").is_none());
    assert!(registry.find_breaker("billing/write").is_some());
}

#[test]
fn the_snapshot_is_sorted_by_name() {
    let registry = Registry::new();
    for name in ["c", "a/write", "b", "a/read"] {
        registry.breaker(&Key::new(name), |breaker| breaker).expect("room");
    }
    let names: Vec<_> =
        registry.snapshot().breakers.into_iter().map(|breaker| breaker.name).collect();
    assert_eq!(names, ["a/read", "a/write", "b", "c"].map(Arc::<str>::from));
}

#[test]
fn an_idle_closed_breaker_that_remembers_nothing_makes_way() {
    assert!(makes_way(&full_of(|_| {})));
    let succeeded = |breaker: &Breaker| breaker.acquire().expect("closed").success();
    assert!(makes_way(&full_of(succeeded)));
    assert!(makes_way(&full_of(|breaker| {
        breaker.acquire().expect("closed").failure("once");
        succeeded(breaker);
    })));
}

#[test]
fn an_open_breaker_never_makes_way() {
    assert!(!makes_way(&full_of(|breaker| {
        for _ in 0..3 {
            breaker.acquire().expect("closed").failure("no answer");
        }
    })));
    assert!(!makes_way(&full_of(Breaker::force_open)));
    assert!(!makes_way(&full_of(Breaker::force_closed)));
}

#[test]
fn a_breaker_that_remembers_a_failure_never_makes_way() {
    assert!(!makes_way(&full_of(|breaker| {
        breaker.acquire().expect("closed").failure("once");
    })));
}

#[test]
fn a_breaker_whose_window_holds_calls_makes_way_when_they_have_left_it() {
    let clock = ManualClock::new();
    let registry = Registry::with_capacity(1);
    let rates = |breaker: BreakerBuilder| {
        breaker.failure_rate(0.5).window(Duration::from_secs(10)).clock(clock.clone())
    };
    let watched = registry.breaker(&Key::new("watched"), rates).expect("room");
    watched.acquire().expect("closed").failure("once");
    drop(watched);
    assert!(!makes_way(&registry));
    clock.advance(Duration::from_secs(11));
    assert!(makes_way(&registry));
}

#[test]
fn a_busy_breaker_never_makes_way() {
    let mut permit = None;
    let registry = full_of(|breaker| permit = breaker.acquire_owned().ok());
    assert!(!makes_way(&registry));
    permit.expect("closed").success();
    assert!(makes_way(&registry));
}

#[cfg(feature = "pipeline")]
mod with_pipeline {
    use super::*;

    #[test]
    fn bulkheads_and_retry_budgets_are_made_once_and_shown_by_name() {
        let registry = Registry::new();
        let key = Key::new("billing");
        let bulkhead = registry.bulkhead(&key, 1, |bulkhead| bulkhead).expect("room");
        let _place = bulkhead.try_acquire().expect("free");
        let same = registry.bulkhead(&key, 9, |bulkhead| bulkhead).expect("room");
        same.try_acquire().expect_err("one place only");
        let budget = registry.retry_budget(&key, |budget| budget).expect("room");
        budget.deposit();
        let snapshot = registry.snapshot();
        assert_eq!((&*snapshot.bulkheads[0].name, snapshot.bulkheads[0].rejected), ("billing", 1));
        let budget = &snapshot.retry_budgets[0];
        assert_eq!((&*budget.name, budget.recent_successes), ("billing", 1));
    }

    #[test]
    fn a_bulkhead_in_use_never_makes_way() {
        let registry = Registry::with_capacity(1);
        let used = registry.bulkhead(&Key::new("used"), 1, |bulkhead| bulkhead).expect("room");
        let other = || registry.bulkhead(&Key::new("new"), 1, |bulkhead| bulkhead);
        let error = other().expect_err("no room");
        assert_eq!(error.to_string(), "the registry is full: 1 bulkheads, all of them in use");
        drop(used);
        other().expect("room");
    }

    #[test]
    fn a_retry_budget_makes_way_when_its_window_is_empty() {
        let clock = ManualClock::new();
        let registry = Registry::with_capacity(1);
        let key = Key::new("used");
        let used = registry.retry_budget(&key, |budget| {
            budget.window(Duration::from_secs(10)).clock(clock.clone())
        });
        used.expect("room").deposit();
        let other = || registry.retry_budget(&Key::new("new"), |budget| budget);
        other().expect_err("no room");
        clock.advance(Duration::from_secs(11));
        other().expect("room");
    }
}

#[test]
fn a_breaker_that_somebody_listens_to_does_not_make_way() {
    let mut events = None;
    let registry = full_of(|breaker| events = Some(breaker.subscribe(8)));
    assert!(!makes_way(&registry), "who listens would never hear of its successor");
    drop(events);
    assert!(makes_way(&registry));
}

#[test]
fn what_was_changed_live_does_not_make_way() {
    assert!(!makes_way(&full_of(|breaker| breaker.reconfigure(breaker::Settings::new()))));
}

#[cfg(feature = "pipeline")]
#[test]
fn a_bulkhead_that_was_resized_does_not_make_way() {
    let registry = Registry::with_capacity(1);
    let bulkhead = |name| registry.bulkhead(&Key::new(name), 2, |bulkhead| bulkhead);
    bulkhead("used").expect("room").resize(1);
    assert!(bulkhead("new").is_err());
    assert_eq!(bulkhead("used").expect("it is there").snapshot().limit, 1);
}
