use super::*;

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

#[test]
fn a_success_is_stale_when_the_breaker_opens_meanwhile_also_where_nothing_is_timed() {
    let breaker =
        Breaker::builder("dependency").consecutive_failures(1).without_slow_call().build();
    let late = breaker.call(|| {
        permit(&breaker).failure("connection refused");
        Ok::<_, &str>("late")
    });
    assert_eq!(late.ok(), Some("late"));
    let snapshot = breaker.snapshot();
    assert_eq!((snapshot.state, snapshot.successes, snapshot.stale), (State::Open, 0, 1));
}

#[test]
fn the_error_of_a_call_speaks_for_the_call_or_for_the_breaker() {
    let breaker = Breaker::builder("dependency").consecutive_failures(1).build();
    let failed = breaker.call(|| Err::<(), _>("no answer")).expect_err("it failed");
    assert_eq!(failed.to_string(), "no answer");
    let rejected = breaker.call(|| Ok::<_, &str>(())).expect_err("it is open");
    assert!(rejected.to_string().starts_with("dependency is unavailable: no answer"));
}

#[test]
fn permits_and_rejections_say_in_a_log_what_they_are() {
    let (breaker, clock) = breaker();
    assert!(format!("{:?}", permit(&breaker)).contains("probe: false"));
    trip(&breaker);
    clock.advance(OPEN_FOR);
    let probe = permit(&breaker);
    assert!(format!("{probe:?}").contains("probe: true"));
    let rejection = breaker.acquire().expect_err("half-open");
    let logged = format!("{rejection:?}");
    for part in ["dependency", "HalfOpen", "connection refused", "retry_after: 500ms"] {
        assert!(logged.contains(part), "{part} in {logged}");
    }
}
