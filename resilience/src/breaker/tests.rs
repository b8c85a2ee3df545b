//! Each test named after a trap is one that another breaker is known to fall into.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use super::*;
use crate::testkit::ManualClock;

const OPEN_FOR: Duration = Duration::from_secs(6);

fn breaker() -> (Breaker, ManualClock) {
    let clock = ManualClock::new();
    let breaker = Breaker::builder("dependency").clock(clock.clone()).build();
    (breaker, clock)
}

fn permit(breaker: &Breaker) -> Permit {
    breaker.acquire().expect("a permit")
}

fn trip(breaker: &Breaker) {
    for _ in 0..3 {
        permit(breaker).failure("connection refused");
    }
    assert_eq!(breaker.state(), State::Open);
}

/// A breaker in half-open, with its probe.
fn probing() -> (Breaker, ManualClock, Permit) {
    let (breaker, clock) = breaker();
    trip(&breaker);
    clock.advance(OPEN_FOR);
    let probe = permit(&breaker);
    assert_eq!(breaker.state(), State::HalfOpen);
    (breaker, clock, probe)
}

#[test]
fn three_failures_in_a_row_open_it() {
    let (breaker, _) = breaker();
    permit(&breaker).failure("a");
    permit(&breaker).failure("b");
    permit(&breaker).success();
    permit(&breaker).failure("c");
    permit(&breaker).failure("d");
    assert_eq!(breaker.state(), State::Closed);
    permit(&breaker).failure("e");
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn a_rejection_explains_itself() {
    let (breaker, clock) = breaker();
    trip(&breaker);
    clock.advance(Duration::from_millis(2_100));
    let rejection = breaker.acquire().expect_err("open");
    assert_eq!(&*rejection.breaker, "dependency");
    assert_eq!(rejection.state, State::Open);
    assert_eq!(rejection.reason.as_deref(), Some("connection refused"));
    assert_eq!(rejection.retry_after, Duration::from_millis(3_900));
    assert_eq!(
        rejection.to_string(),
        "dependency is unavailable: connection refused \
         (circuit breaker open, next attempt in 4 s)"
    );
    assert_eq!(breaker.snapshot().rejected, 1);
}

#[test]
fn it_is_open_to_the_end_of_its_wait_and_not_longer() {
    let (breaker, clock) = breaker();
    trip(&breaker);
    clock.advance(OPEN_FOR.saturating_sub(Duration::from_nanos(1)));
    assert!(breaker.acquire().is_err());
    clock.advance(Duration::from_nanos(1));
    assert_eq!(breaker.snapshot().retry_after, Some(Duration::ZERO));
    assert!(breaker.acquire().is_ok());
}

#[test]
fn a_good_probe_closes_and_starts_afresh() {
    let (breaker, _, probe) = probing();
    probe.success();
    let snapshot = breaker.snapshot();
    assert_eq!(snapshot.state, State::Closed);
    assert_eq!(snapshot.reason, None);
    assert_eq!(snapshot.retry_after, None);
    permit(&breaker).failure("a");
    permit(&breaker).failure("b");
    assert_eq!(breaker.state(), State::Closed, "failures count from zero");
}

#[test]
fn a_bad_probe_opens_again() {
    let (breaker, _, probe) = probing();
    probe.failure("answered 500");
    let rejection = breaker.acquire().expect_err("open");
    assert_eq!(rejection.state, State::Open);
    assert_eq!(rejection.retry_after, OPEN_FOR);
    assert_eq!(rejection.reason.as_deref(), Some("answered 500"));
}

#[test]
fn half_open_admits_exactly_one_of_a_thousand() {
    let (breaker, clock) = breaker();
    trip(&breaker);
    clock.advance(OPEN_FOR);
    let barrier = Barrier::new(8);
    let admitted = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                barrier.wait();
                let permits: Vec<_> = (0..125).filter_map(|_| breaker.acquire().ok()).collect();
                admitted.fetch_add(permits.len(), Ordering::Relaxed);
                // Kept: a probe that ends would make room for the next.
                std::mem::forget(permits);
            });
        }
    });
    assert_eq!(admitted.load(Ordering::Relaxed), 1);
    assert_eq!(breaker.snapshot().rejected, 999);
}

#[test]
fn while_a_probe_is_under_way_the_hint_is_short() {
    let (breaker, clock, _probe) = probing();
    let rejection = breaker.acquire().expect_err("a probe is under way");
    assert_eq!(rejection.state, State::HalfOpen);
    assert_eq!(rejection.retry_after, Duration::from_millis(500));
    assert!(rejection.to_string().contains("a trial call is under way"));
    clock.advance(Duration::from_millis(9_900));
    let rejection = breaker.acquire().expect_err("the lease runs");
    assert_eq!(rejection.retry_after, Duration::from_millis(100));
}

#[test]
fn a_hung_probe_is_replaced_and_its_result_decides_nothing() {
    for late_success in [true, false] {
        let (breaker, clock, hung) = probing();
        clock.advance(Duration::from_secs(10));
        let second = permit(&breaker);
        assert!(breaker.acquire().is_err(), "one probe at a time");
        if late_success {
            hung.success();
        } else {
            hung.failure("late");
        }
        assert_eq!(breaker.state(), State::HalfOpen);
        assert_eq!(breaker.snapshot().stale, 1);
        assert!(breaker.acquire().is_err(), "the second probe still has the place");
        second.success();
        assert_eq!(breaker.state(), State::Closed);
    }
}

#[test]
fn dropping_a_replaced_probe_does_not_free_the_place_of_its_successor() {
    let (breaker, clock, hung) = probing();
    clock.advance(Duration::from_secs(10));
    let _second = permit(&breaker);
    drop(hung);
    assert_eq!(breaker.state(), State::HalfOpen);
    assert!(breaker.acquire().is_err());
}

#[test]
fn a_stale_success_does_not_close() {
    let (breaker, clock) = breaker();
    let slow = permit(&breaker);
    trip(&breaker);
    slow.success();
    assert_eq!(breaker.state(), State::Open);

    assert_eq!(breaker.snapshot().stale, 1);

    // Not in half-open either.
    let slow = permit_before_half_open(&breaker, &clock);
    slow.success();
    assert_eq!(breaker.state(), State::HalfOpen);
}

/// A permit of a closed breaker that has gone half-open since, with a probe under way for good.
fn permit_before_half_open(breaker: &Breaker, clock: &ManualClock) -> Permit {
    clock.advance(OPEN_FOR);
    permit(breaker).success();
    let early = permit(breaker);
    trip(breaker);
    clock.advance(OPEN_FOR);
    std::mem::forget(permit(breaker));
    early
}

#[test]
fn a_stale_failure_does_not_open() {
    let (breaker, clock) = breaker();
    let late: Vec<_> = (0..5).map(|_| permit(&breaker)).collect();
    trip(&breaker);
    clock.advance(OPEN_FOR);
    permit(&breaker).success();
    for permit in late {
        permit.failure("from before");
    }
    let snapshot = breaker.snapshot();
    assert_eq!((snapshot.state, snapshot.stale), (State::Closed, 5));
    assert_eq!(snapshot.reason, None);
}

#[test]
fn an_ignored_probe_gives_its_place_back_and_changes_no_state() {
    let (breaker, _, probe) = probing();
    let since = breaker.snapshot().since;
    probe.ignored();
    let snapshot = breaker.snapshot();
    assert_eq!((snapshot.state, snapshot.since), (State::HalfOpen, since));
    assert_eq!(snapshot.retry_after, Some(Duration::ZERO));
    permit(&breaker).success();
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn ignored_results_neither_count_nor_forgive() {
    let (breaker, _) = breaker();
    permit(&breaker).failure("a");
    permit(&breaker).failure("b");
    for _ in 0..10 {
        permit(&breaker).ignored();
    }
    assert_eq!(breaker.state(), State::Closed);
    permit(&breaker).failure("c");
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn a_call_cut_by_an_outer_timeout_is_recorded() {
    let (breaker, clock) = breaker();
    for _ in 0..3 {
        let call = permit(&breaker);
        clock.advance(Duration::from_millis(2_500));
        drop(call);
    }
    let rejection = breaker.acquire().expect_err("open");
    assert_eq!(rejection.reason.as_deref(), Some("given up after 2500 ms"));
    assert_eq!(breaker.snapshot().abandoned, 3);
}

#[test]
fn a_call_dropped_early_is_no_failure_and_no_success() {
    let (breaker, clock) = breaker();
    permit(&breaker).failure("a");
    permit(&breaker).failure("b");
    for _ in 0..5 {
        let call = permit(&breaker);
        clock.advance(Duration::from_secs(2));
        drop(call);
    }
    assert_eq!(breaker.state(), State::Closed);
    permit(&breaker).failure("c");
    assert_eq!(breaker.state(), State::Open, "two failures were not forgotten");
    assert_eq!(breaker.snapshot().abandoned, 5);
}

#[test]
fn a_dropped_probe_gives_its_place_back() {
    let (breaker, _, probe) = probing();
    drop(probe);
    assert_eq!(breaker.state(), State::HalfOpen);
    permit(&breaker).success();
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn a_probe_given_up_late_opens_again() {
    let (breaker, clock, probe) = probing();
    clock.advance(Duration::from_secs(3));
    drop(probe);
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn a_panicking_call_gives_its_place_back() {
    let (breaker, _, probe) = probing();
    let call = std::panic::AssertUnwindSafe(|| {
        let _probe = probe;
        panic!("a defect");
    });
    assert!(std::panic::catch_unwind(call).is_err());
    assert!(breaker.acquire().is_ok());
}

#[test]
fn open_waits_below_a_second_are_kept_exactly() {
    for millis in [500, 1_500] {
        let clock = ManualClock::new();
        let open_for = Duration::from_millis(millis);
        let breaker = Breaker::builder("dependency")
            .consecutive_failures(1, open_for)
            .clock(clock.clone())
            .build();
        permit(&breaker).failure("x");
        assert_eq!(breaker.snapshot().retry_after, Some(open_for));
        clock.advance(open_for.saturating_sub(Duration::from_millis(1)));
        assert!(breaker.acquire().is_err());
        clock.advance(Duration::from_millis(1));
        assert!(breaker.acquire().is_ok());
    }
}

#[test]
fn an_endless_open_wait_does_not_overflow() {
    let breaker = Breaker::builder("dependency")
        .consecutive_failures(0, Duration::MAX)
        .probe_lease(Duration::MAX)
        .build();
    permit(&breaker).failure("x");
    assert!(breaker.acquire().is_err());
}

#[test]
fn any_policy_of_failsafe_plugs_in_with_growing_waits() {
    use failsafe::{backoff, failure_policy};

    let clock = ManualClock::new();
    let waits = backoff::exponential(Duration::from_secs(1), Duration::from_secs(4));
    let breaker = Breaker::builder("dependency")
        .policy(failure_policy::consecutive_failures(1, waits))
        .clock(clock.clone())
        .build();
    permit(&breaker).failure("x");
    for seconds in [1, 2, 4, 4] {
        let wait = Duration::from_secs(seconds);
        assert_eq!(breaker.snapshot().retry_after, Some(wait));
        clock.advance(wait);
        permit(&breaker).failure("x");
    }
    clock.advance(Duration::from_secs(4));
    permit(&breaker).success();
    permit(&breaker).failure("x");
    assert_eq!(breaker.snapshot().retry_after, Some(Duration::from_secs(1)));
}

#[test]
fn a_policy_of_ones_own_plugs_in() {
    struct Never;
    impl FailurePolicy for Never {
        fn on_success(&mut self) {}
        fn on_failure(&mut self) -> Option<Duration> {
            None
        }
        fn on_closed(&mut self) {}
    }
    let breaker = Breaker::builder("dependency").policy(Never).build();
    for _ in 0..100 {
        permit(&breaker).failure("x");
    }
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn since_is_when_the_state_began() {
    let (breaker, clock) = breaker();
    let before = SystemTime::now();
    trip(&breaker);
    let opened = breaker.snapshot().since;
    assert!(opened >= before && opened <= SystemTime::now());
    let _ = breaker.acquire();
    assert_eq!(breaker.snapshot().since, opened, "a rejection begins nothing");
    clock.advance(OPEN_FOR);
    let _probe = permit(&breaker);
    assert!(breaker.snapshot().since >= opened);
}

#[test]
fn a_snapshot_serializes_its_state_in_snake_case() {
    let (breaker, _, _probe) = probing();
    let json = serde_json::to_value(breaker.snapshot()).expect("JSON");
    assert_eq!(json["state"], "half_open");
    assert_eq!(json["name"], "dependency");
    assert_eq!(json["reason"], "connection refused");
    assert_eq!(State::HalfOpen.to_string(), "half_open");
}

#[test]
fn a_check_tells_what_a_call_would_be_told_and_changes_nothing() {
    let (breaker, clock) = breaker();
    assert!(breaker.check().is_ok());
    trip(&breaker);
    let told = breaker.check().expect_err("open");
    assert_eq!((told.state, told.retry_after), (State::Open, OPEN_FOR));
    clock.advance(OPEN_FOR);
    assert!(breaker.check().is_ok(), "the next call probes");
    assert_eq!(breaker.state(), State::Open, "a check is no probe");
    let probe = permit(&breaker);
    assert_eq!(breaker.check().expect_err("one probe at a time").state, State::HalfOpen);
    probe.success();
    assert!(breaker.check().is_ok());
}
