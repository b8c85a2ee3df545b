//! Each test named after a trap is one that another breaker is known to fall into.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::*;
use crate::clock::Clock;
use crate::random::Random;
use crate::testkit::ManualClock;

const OPEN_FOR: Duration = Duration::from_secs(6);

fn breaker() -> (Breaker, ManualClock) {
    let clock = ManualClock::new();
    let breaker =
        Breaker::builder("dependency").longest_open(OPEN_FOR).clock(clock.clone()).build();
    (breaker, clock)
}

fn permit(breaker: &Breaker) -> Permit<'static> {
    breaker.acquire_owned().expect("a permit")
}

fn trip(breaker: &Breaker) {
    for _ in 0..3 {
        permit(breaker).failure("connection refused");
    }
    assert_eq!(breaker.state(), State::Open);
}

/// A breaker in half-open, with its probe.
fn probing() -> (Breaker, ManualClock, Permit<'static>) {
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
    assert_eq!(rejection.breaker(), "dependency");
    assert_eq!(rejection.state(), State::Open);
    assert_eq!(rejection.reason(), Some("connection refused"));
    assert_eq!(rejection.retry_after(), Duration::from_millis(3_900));
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
fn permit_before_half_open(breaker: &Breaker, clock: &ManualClock) -> Permit<'static> {
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
    assert_eq!(rejection.reason(), Some("given up after 2500 ms"));
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
fn since_is_when_the_state_began() {
    let (breaker, clock) = breaker();
    clock.advance(Duration::from_secs(1));
    let before = clock.wall();
    trip(&breaker);
    let opened = breaker.snapshot().since;
    assert_eq!(opened, before);
    let _ = breaker.acquire();
    assert_eq!(breaker.snapshot().since, opened, "a rejection begins nothing");
    clock.advance(OPEN_FOR);
    let _probe = permit(&breaker);
    assert_eq!(breaker.snapshot().since, opened + OPEN_FOR);
}

#[cfg(feature = "serde")]
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
    assert_eq!((told.state(), told.retry_after()), (State::Open, OPEN_FOR));
    clock.advance(OPEN_FOR);
    assert!(breaker.check().is_ok(), "the next call probes");
    assert_eq!(breaker.state(), State::Open, "a check is no probe");
    let probe = permit(&breaker);
    assert_eq!(breaker.check().expect_err("one probe at a time").state(), State::HalfOpen);
    probe.success();
    assert!(breaker.check().is_ok());
}

fn rates(settings: Settings) -> (Breaker, ManualClock) {
    let clock = ManualClock::new();
    (Breaker::builder("dependency").settings(settings).clock(clock.clone()).build(), clock)
}

const STEP: Duration = Duration::from_secs(1);

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
fn an_operator_opens_closes_and_resets_it() {
    let (breaker, clock) = breaker();
    let before = permit(&breaker);
    breaker.force_open();
    let rejection = breaker.acquire().expect_err("forced open");
    assert_eq!(rejection.state(), State::ForcedOpen);
    assert!(rejection.to_string().ends_with("(circuit breaker forced open by an operator)"));
    clock.advance(Duration::from_hours(24));
    assert!(breaker.acquire().is_err(), "for as long as it takes");
    before.success();

    breaker.force_closed();
    for _ in 0..100 {
        permit(&breaker).failure("x");
    }
    assert_eq!(breaker.state(), State::ForcedClosed);

    breaker.reset();
    let snapshot = breaker.snapshot();
    assert_eq!((snapshot.state, snapshot.stale, snapshot.failures), (State::Closed, 1, 100));
    trip(&breaker);
    breaker.reset();
    permit(&breaker).failure("x");
    assert_eq!(breaker.state(), State::Closed, "failures count from zero");
}

#[test]
fn settings_change_while_it_works_and_state_row_and_window_survive() {
    let (breaker, clock) = breaker();
    permit(&breaker).failure("x");
    permit(&breaker).failure("x");
    breaker.reconfigure(Settings::new().consecutive_failures(5));
    permit(&breaker).failure("x");
    permit(&breaker).failure("x");
    assert_eq!(breaker.state(), State::Closed);
    breaker.reconfigure(Settings::new().consecutive_failures(2));
    assert_eq!(breaker.state(), State::Closed, "it opens with a failure, not with its settings");
    permit(&breaker).failure("x");
    assert_eq!(breaker.state(), State::Open);
    breaker.reconfigure(Settings::new());
    assert_eq!(breaker.state(), State::Open);

    let settings = || Settings::new().failure_rate(0.5).window(16 * STEP);
    breaker.reset();
    breaker.reconfigure(settings());
    for _ in 0..5 {
        permit(&breaker).success();
        permit(&breaker).failure("x");
        clock.advance(STEP);
    }
    assert_eq!(breaker.state(), State::Open);
    breaker.reset();
    for _ in 0..5 {
        permit(&breaker).success();
    }
    breaker.reconfigure(settings().window(32 * STEP));
    for _ in 0..5 {
        permit(&breaker).failure("x");
    }
    assert_eq!(breaker.state(), State::Open, "five of ten");
}

#[test]
fn a_subscriber_hears_everything_and_a_slow_one_is_told_what_it_missed() {
    let (breaker, clock) = breaker();
    let (quick, slow) = (breaker.subscribe(100), breaker.subscribe(2));
    trip(&breaker);
    clock.advance(OPEN_FOR);
    let hung = permit(&breaker);
    clock.advance(Duration::from_secs(10));
    permit(&breaker).success();
    drop(hung);
    breaker.force_open();
    breaker.force_open();
    breaker.force_closed();
    breaker.reconfigure(Settings::new());
    breaker.reset();
    let events: Vec<_> = std::iter::from_fn(|| quick.try_recv()).collect();
    let reason = Some("connection refused".into());
    assert_eq!(
        events.iter().map(|event| &event.kind).collect::<Vec<_>>(),
        [
            &EventKind::Opened { from: State::Closed, reason, open_for: OPEN_FOR },
            &EventKind::HalfOpened,
            &EventKind::ProbeReplaced,
            &EventKind::Closed,
            &EventKind::ForcedOpen,
            &EventKind::ForcedClosed,
            &EventKind::Reconfigured,
            &EventKind::Reset,
        ]
    );
    assert!(events.iter().map(|event| event.sequence).eq(1..=8));
    assert_eq!((quick.dropped(), slow.dropped()), (0, 6));
    assert_eq!(breaker.snapshot().dropped_events, 6);
    assert!(slow.recv_timeout(Duration::ZERO).is_some());
}

#[test]
fn a_subscriber_that_calls_the_breaker_does_not_deadlock() {
    let (breaker, _) = breaker();
    let events = breaker.subscribe(10);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let event = events.recv_timeout(Duration::from_secs(10)).expect("an event");
            assert!(matches!(event.kind, EventKind::Opened { .. }));
            breaker.reset();
        });
        trip(&breaker);
    });
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn calls_on_many_threads_are_all_counted_wherever_they_end() {
    for settings in [
        Settings::new().without_slow_call(),
        Settings::new(),
        Settings::new().failure_rate(1.0).slow_rate(1.0).window(Duration::from_hours(1)),
    ] {
        let (breaker, _) = rates(settings);
        // More threads than there are lanes, each of which ends what another began.
        let (send, receive) = std::sync::mpsc::channel::<Permit<'static>>();
        let receive = std::sync::Mutex::new(receive);
        std::thread::scope(|scope| {
            for _ in 0..200 {
                let send = send.clone();
                scope.spawn(|| {
                    let send = send;
                    for _ in 0..50 {
                        send.send(permit(&breaker)).expect("somebody receives");
                        let permit = receive.lock().expect("a receiver").recv();
                        permit.expect("a permit").success();
                    }
                });
            }
        });
        let snapshot = breaker.snapshot();
        assert_eq!((snapshot.calls, snapshot.successes), (10_000, 10_000));
        assert_eq!((snapshot.in_flight, snapshot.hung), (0, 0));
        assert!(snapshot.window.is_none_or(|window| window.calls == 10_000));
    }
}
