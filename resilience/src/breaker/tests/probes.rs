use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

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
    assert_eq!(rejection.state(), State::Open);
    assert_eq!(rejection.retry_after(), OPEN_FOR);
    assert_eq!(rejection.reason(), Some("answered 500"));
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
    assert_eq!(rejection.state(), State::HalfOpen);
    assert_eq!(rejection.retry_after(), Duration::from_millis(500));
    assert!(rejection.to_string().contains("a trial call is under way"));
    clock.advance(Duration::from_millis(9_900));
    let rejection = breaker.acquire().expect_err("the lease runs");
    assert_eq!(rejection.retry_after(), Duration::from_millis(100));
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
fn several_probes_may_go_and_the_first_result_decides() {
    let (breaker, clock) = rates(Settings::new().probes(2).consecutive_failures(1));
    permit(&breaker).failure("x");
    clock.advance(OPEN_FOR);
    let (one, other) = (permit(&breaker), permit(&breaker));
    assert!(breaker.acquire().is_err());
    assert_eq!(breaker.snapshot().probes, 2);
    one.success();
    other.failure("late");
    let snapshot = breaker.snapshot();
    assert_eq!((snapshot.state, snapshot.stale), (State::Closed, 1));
}

#[test]
fn fewer_probes_than_are_under_way_wait_for_as_many_leases_as_it_takes() {
    let settings = || Settings::new().consecutive_failures(1).probe_lease(STEP);
    let (breaker, clock) = rates(settings().probes(3));
    permit(&breaker).failure("x");
    clock.advance(OPEN_FOR);
    let early = [permit(&breaker), permit(&breaker)];
    clock.advance(STEP / 2);
    let late = permit(&breaker);
    breaker.reconfigure(settings().probes(1));
    // The first two leases have ended, and the third probe takes the only place there is.
    clock.advance(STEP / 2);
    assert!(breaker.check().is_err());
    assert_eq!(breaker.acquire().expect_err("no place").retry_after(), STEP / 2);
    assert_eq!(breaker.snapshot().probes, 3, "nobody makes way for nothing");
    clock.advance(STEP / 2);
    assert!(breaker.check().is_ok());
    let probe = permit(&breaker);
    assert_eq!(breaker.snapshot().probes, 1);
    for replaced in early.into_iter().chain([late]) {
        replaced.success();
    }
    assert_eq!(breaker.state(), State::HalfOpen);
    probe.success();
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn a_probe_without_a_lease_is_a_single_one_all_the_same() {
    let clock = ManualClock::new();
    let breaker = Breaker::builder("dependency").probe_lease(Duration::ZERO);
    let breaker = breaker.clock(clock.clone()).build();
    trip(&breaker);
    clock.advance(OPEN_FOR);
    let permits: Vec<_> = (0..1000).filter_map(|_| breaker.acquire().ok()).collect();
    assert_eq!(permits.len(), 1);
}
