use super::*;

#[test]
fn open_waits_below_a_second_are_kept_exactly() {
    for millis in [500, 1_500] {
        let clock = ManualClock::new();
        let open_for = Duration::from_millis(millis);
        let breaker = Breaker::builder("dependency")
            .consecutive_failures(1)
            .open_for(open_for)
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
        .consecutive_failures(0)
        .open_for(Duration::MAX)
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
fn a_failure_rate_opens_at_its_share_of_enough_calls() {
    let (breaker, _) = rates(Settings::new().failure_rate(0.5).minimum_calls(10));
    for _ in 0..5 {
        permit(&breaker).success();
    }
    for _ in 0..4 {
        permit(&breaker).failure("x");
    }
    assert_eq!(breaker.state(), State::Closed, "nine calls");
    permit(&breaker).failure("x");
    assert_eq!(breaker.state(), State::Open, "five of ten");
}

#[test]
fn a_window_slides_however_many_successes_went_before() {
    let (breaker, clock) = rates(Settings::new().failure_rate(0.5).window(16 * STEP));
    for _ in 0..10_000 {
        permit(&breaker).success();
    }
    clock.advance(16 * STEP);
    for _ in 0..9 {
        permit(&breaker).failure("x");
        assert_eq!(breaker.state(), State::Closed);
    }
    permit(&breaker).failure("x");
    assert_eq!(breaker.state(), State::Open, "ten failures, not ten thousand");
}

#[test]
fn old_results_leave_the_window_one_slice_at_a_time() {
    let (breaker, clock) = rates(Settings::new().failure_rate(1.0).window(16 * STEP));
    for _ in 0..32 {
        permit(&breaker).success();
        clock.advance(STEP);
    }
    let calls = || breaker.snapshot().window.expect("a window").calls;
    for left in (0..16).rev() {
        assert_eq!(calls(), left);
        clock.advance(STEP);
    }
}

#[test]
fn slow_calls_open_it_although_they_succeed() {
    let settings = Settings::new().slow_call(STEP).slow_rate(0.5).minimum_calls(4);
    let (breaker, clock) = rates(settings);
    for _ in 0..2 {
        permit(&breaker).success();
    }
    for _ in 0..2 {
        assert_eq!(breaker.state(), State::Closed);
        let call = permit(&breaker);
        clock.advance(STEP + Duration::from_nanos(1));
        call.success();
    }
    let rejection = breaker.acquire().expect_err("open");
    assert_eq!(rejection.reason(), Some("too many calls took longer than 1s"));
}

#[test]
fn hung_calls_open_it_before_any_of_them_returns() {
    let (breaker, clock) = rates(Settings::new().slow_call(4 * STEP).hung_calls(3));
    let hung: Vec<_> = (0..3).map(|_| permit(&breaker)).collect();
    clock.advance(4 * STEP);
    drop(permit(&breaker));
    assert_eq!(breaker.snapshot().hung, 0, "not longer than the threshold");
    clock.advance(STEP);
    assert_eq!(breaker.snapshot().hung, 3);
    let rejection = breaker.acquire().expect_err("open");
    assert_eq!(rejection.reason(), Some("3 calls have been waiting for more than 4s"));
    assert_eq!(breaker.snapshot().in_flight, 3);

    // They hang on. Healed is healed: what began before opens nothing.
    clock.advance(Duration::from_secs(6));
    permit(&breaker).success();
    clock.advance(20 * STEP);
    permit(&breaker).success();
    let snapshot = breaker.snapshot();
    assert_eq!((snapshot.state, snapshot.hung), (State::Closed, 3));
    for call in hung {
        call.success();
    }
    let snapshot = breaker.snapshot();
    assert_eq!((snapshot.hung, snapshot.in_flight, snapshot.stale), (0, 0, 3));
}

#[test]
fn failing_probes_make_the_wait_grow_and_a_good_one_ends_that() {
    let clock = ManualClock::new();
    let breaker = Breaker::builder("dependency")
        .consecutive_failures(1)
        .clock(clock.clone())
        .random(Random::seeded(3))
        .build();
    let mut waits = Vec::new();
    for _ in 0..12 {
        permit(&breaker).failure("x");
        let wait = breaker.snapshot().retry_after.expect("open");
        waits.push(wait);
        clock.advance(wait);
    }
    assert_eq!(waits[0], OPEN_FOR);
    assert!(waits.iter().all(|wait| (OPEN_FOR..=Duration::from_mins(1)).contains(wait)));
    assert!(waits.iter().any(|wait| *wait > Duration::from_secs(30)), "{waits:?}");
    permit(&breaker).success();
    permit(&breaker).failure("x");
    assert_eq!(breaker.snapshot().retry_after, Some(OPEN_FOR));
}

#[test]
fn a_burst_that_hangs_at_the_moment_of_recovery_opens_it_again() {
    let (breaker, clock) = rates(Settings::new().slow_call(4 * STEP).hung_calls(5));
    for _ in 0..3 {
        permit(&breaker).failure("x");
    }
    clock.advance(OPEN_FOR);
    permit(&breaker).success();
    // In the same slice of time as the probe, and after it.
    let burst: Vec<_> = (0..5).map(|_| permit(&breaker)).collect();
    clock.advance(5 * STEP);
    assert!(breaker.acquire().is_err());
    assert_eq!(breaker.state(), State::Open);
    drop(burst);
}
