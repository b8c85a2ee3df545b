use super::*;

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
        // Not `trip`: by the time that it looks, the breaker may be reset.
        for _ in 0..3 {
            permit(&breaker).failure("x");
        }
    });
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn window_begins_empty_when_a_rate_is_watched_again() {
    let (breaker, _) = rates(Settings::new().failure_rate(0.5).minimum_calls(2));
    permit(&breaker).failure("x");
    breaker.reconfigure(Settings::new());
    // Nobody counts these.
    for _ in 0..10 {
        permit(&breaker).success();
    }
    breaker.reconfigure(Settings::new().failure_rate(0.5).minimum_calls(2));
    assert_eq!(breaker.snapshot().window, Some(WindowCounts::default()));
    permit(&breaker).failure("x");
    assert_eq!(breaker.state(), State::Closed, "one of one known call");
}

#[test]
fn lower_limit_of_hung_calls_holds_from_the_next_call_on() {
    let settings = || Settings::new().slow_call(4 * STEP);
    let (breaker, clock) = rates(settings().hung_calls(2));
    let _hung = permit(&breaker);
    clock.advance(5 * STEP);
    permit(&breaker).success();
    breaker.reconfigure(settings().hung_calls(1));
    assert!(breaker.acquire().is_err());
    assert_eq!(breaker.state(), State::Open);
}

/// A clock whose readings can arrive out of order, as those of two threads do.
struct Readings(Arc<std::sync::Mutex<std::time::Instant>>);

impl Clock for Readings {
    fn now(&self) -> std::time::Instant {
        *self.0.lock().expect("nobody panics with it")
    }

    fn wall(&self) -> std::time::SystemTime {
        std::time::UNIX_EPOCH
    }
}

#[test]
fn a_result_whose_time_was_read_before_a_reconfiguration_counts_with_what_it_carries() {
    let origin = std::time::Instant::now();
    let time = Arc::new(std::sync::Mutex::new(origin));
    let settings = || Settings::new().failure_rate(0.5).minimum_calls(2);
    let breaker =
        Breaker::builder("dependency").settings(settings()).clock(Readings(time.clone())).build();
    *time.lock().unwrap() = origin + STEP;
    permit(&breaker).failure("connection refused");
    *time.lock().unwrap() = origin + STEP * 10;
    breaker.reconfigure(settings().window(STEP * 20));
    // Another thread read the clock first, and got the lock last.
    *time.lock().unwrap() = origin + STEP * 8;
    permit(&breaker).failure("connection refused");
    assert_eq!(breaker.state(), State::Open);
}

#[cfg(feature = "pipeline")]
#[tokio::test]
async fn a_subscriber_waits_for_what_comes_and_is_told_when_nothing_can() {
    let (breaker, _) = breaker();
    let mut events = breaker.subscribe(10);
    let (first, ()) = tokio::join!(events.recv(), async { trip(&breaker) });
    assert!(matches!(first.expect("an event").kind, EventKind::Opened { .. }));
    breaker.reset();
    drop(breaker);
    assert_eq!(events.recv().await.expect("what came before").kind, EventKind::Reset);
    assert_eq!(events.recv().await, None);
    assert_eq!(events.recv_timeout(Duration::from_hours(1)), None, "without waiting");
}
