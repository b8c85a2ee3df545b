//! What is published, name by name and label by label.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use resilience::http::{Client, Context, ErrorKind};
use resilience::registry::{Key, Registry};
use resilience::testkit::ManualClock;
use resilience::{Breaker, Bulkhead, Deadline};
use serde_json::Value;

use crate::server::{Reaction, Server, answer, json};
use crate::transport;

/// Everything that a scrape would show, without comments, sorted.
fn published(publish: impl FnOnce()) -> Vec<String> {
    let recorder = PrometheusBuilder::new().build_recorder();
    let shown = recorder.handle();
    metrics::with_local_recorder(&recorder, publish);
    lines(&shown.render())
}

/// On one thread, as the recorder is this thread's: what the work does elsewhere isn't counted.
pub(crate) fn measured(work: impl AsyncFnOnce(&PrometheusHandle)) {
    let recorder = PrometheusBuilder::new().build_recorder();
    let shown = recorder.handle();
    metrics::with_local_recorder(&recorder, || on_a_runtime(work(&shown)));
}

pub(crate) fn lines(text: &str) -> Vec<String> {
    let samples = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut samples: Vec<_> = samples.map(str::to_owned).collect();
    samples.sort_unstable();
    samples
}

/// A breaker that has seen one of everything.
fn worn(registry: &Registry) -> Breaker {
    let key = Key::new("billing").class("write");
    let breaker = registry.breaker(&key, |breaker| breaker.consecutive_failures(1)).expect("room");
    let permit = || breaker.acquire().expect("closed");
    permit().success();
    permit().success();
    permit().ignored();
    drop(permit());
    let late = permit();
    permit().failure("no answer");
    late.success();
    breaker.acquire().expect_err("open");
    breaker.acquire().expect_err("open");
    breaker.acquire().expect_err("open");
    breaker
}

#[test]
fn every_count_of_a_breaker_is_published() {
    let registry = Registry::new();
    let breaker = worn(&registry);
    let permit = breaker.acquire_owned();
    assert!(permit.is_err(), "still open");
    let expected = [
        r#"resilience_breaker_calls_total{breaker="billing/write",outcome="abandoned"} 1"#,
        r#"resilience_breaker_calls_total{breaker="billing/write",outcome="failure"} 1"#,
        r#"resilience_breaker_calls_total{breaker="billing/write",outcome="ignored"} 1"#,
        r#"resilience_breaker_calls_total{breaker="billing/write",outcome="stale"} 1"#,
        r#"resilience_breaker_calls_total{breaker="billing/write",outcome="success"} 2"#,
        r#"resilience_breaker_dropped_events_total{breaker="billing/write"} 0"#,
        r#"resilience_breaker_hung{breaker="billing/write"} 0"#,
        r#"resilience_breaker_in_flight{breaker="billing/write"} 0"#,
        r#"resilience_breaker_opened_total{breaker="billing/write"} 1"#,
        r#"resilience_breaker_rejected_total{breaker="billing/write"} 4"#,
        r#"resilience_breaker_state{breaker="billing/write",state="closed"} 0"#,
        r#"resilience_breaker_state{breaker="billing/write",state="forced_closed"} 0"#,
        r#"resilience_breaker_state{breaker="billing/write",state="forced_open"} 0"#,
        r#"resilience_breaker_state{breaker="billing/write",state="half_open"} 0"#,
        r#"resilience_breaker_state{breaker="billing/write",state="open"} 1"#,
    ];
    let mut found = published(|| registry.publish());
    let since = "resilience_breaker_since_timestamp_seconds{breaker=\"billing/write\"} ";
    found.retain(|sample| {
        let at = sample.strip_prefix(since).map(|at| at.parse::<f64>().expect("a time"));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("later").as_secs_f64();
        assert!(at.is_none_or(|at| (now - 60.0..=now).contains(&at)), "{sample}");
        at.is_none()
    });
    assert_eq!(found, expected);
}

#[test]
fn publishing_again_follows_the_state_and_counts_nothing_twice() {
    let registry = Registry::new();
    let breaker = worn(&registry);
    let samples = published(|| {
        registry.publish();
        breaker.force_closed();
        let _held = breaker.acquire();
        registry.publish();
    });
    for expected in [
        r#"resilience_breaker_calls_total{breaker="billing/write",outcome="success"} 2"#,
        r#"resilience_breaker_in_flight{breaker="billing/write"} 1"#,
        r#"resilience_breaker_state{breaker="billing/write",state="forced_closed"} 1"#,
        r#"resilience_breaker_state{breaker="billing/write",state="open"} 0"#,
    ] {
        assert!(samples.iter().any(|sample| sample == expected), "{expected} in {samples:#?}");
    }
}

#[tokio::test]
async fn every_count_of_a_bulkhead_and_a_retry_budget_is_published() {
    let registry = Registry::new();
    let key = Key::new("billing");
    let second = Duration::from_secs(1);
    let clock = ManualClock::new();
    let bulkhead =
        registry.bulkhead(&key, 1, |bulkhead| bulkhead.queue(1, second).clock(clock.clone()));
    let bulkhead = bulkhead.expect("room");
    let first = bulkhead.try_acquire().expect("free");
    let mut waiting = Box::pin(bulkhead.acquire(None));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    bulkhead.try_acquire().expect_err("taken");
    bulkhead.acquire(None).await.expect_err("somebody waits already");
    clock.advance(second / 4);
    drop(first);
    let _place = waiting.await.expect("its turn");
    let budget = registry.retry_budget(&key, |budget| budget.ratio(1.0).floor(0.0));
    let budget = budget.expect("room");
    budget.deposit();
    assert!(budget.withdraw() && !budget.withdraw() && !budget.withdraw());
    budget.deposit();

    let expected = [
        r#"resilience_bulkhead_admitted_total{bulkhead="billing"} 2"#,
        r#"resilience_bulkhead_in_flight{bulkhead="billing"} 1"#,
        r#"resilience_bulkhead_limit{bulkhead="billing"} 1"#,
        r#"resilience_bulkhead_queued_total{bulkhead="billing"} 1"#,
        r#"resilience_bulkhead_rejected_total{bulkhead="billing"} 2"#,
        r#"resilience_bulkhead_waiting{bulkhead="billing"} 0"#,
        r#"resilience_retries_total{budget="billing",outcome="denied"} 2"#,
        r#"resilience_retries_total{budget="billing",outcome="granted"} 1"#,
        r#"resilience_retry_budget_available{budget="billing"} 1"#,
    ];
    assert_eq!(published(|| registry.publish()), expected);
}

/// How many attempts of each outcome were timed.
fn timed(samples: &[String]) -> Vec<&str> {
    let name = "resilience_call_duration_seconds_count";
    samples.iter().filter_map(|sample| sample.strip_prefix(name)).collect()
}

fn on_a_runtime(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work);
}

#[test]
fn an_attempt_that_nobody_saw_to_its_end_is_timed_by_who_gave_up() {
    let samples = published(|| {
        on_a_runtime(async {
            let server = Server::always(Reaction::Hang).await;
            let clock = ManualClock::new();
            let client = Client::builder("billing", server.url.clone())
                .timeout(Duration::from_secs(2))
                .clock(clock.clone())
                .build(&transport());
            let deadline = Deadline::after_on(&clock, Duration::from_secs(3));
            let cx = Context::new().with_deadline(deadline);
            let call = || Box::pin(client.get("/").fetch::<Value>(&cx));
            // Given up by its caller.
            let mut abandoned = call();
            assert!(futures_util::poll!(&mut abandoned).is_pending());
            drop(abandoned);
            // By its own timeout, and by what the deadline then has left.
            for inherited in [false, true] {
                let mut late = call();
                assert!(futures_util::poll!(&mut late).is_pending());
                clock.advance(Duration::from_secs(2));
                let error = late.await.expect_err("late");
                let as_expected = matches!(
                    error.kind(),
                    ErrorKind::TimedOut { inherited: found, .. } if *found == inherited
                );
                assert!(as_expected, "{error:?}");
            }
        });
    });
    assert_eq!(
        timed(&samples),
        [
            r#"{dependency="billing",outcome="abandoned"} 1"#,
            r#"{dependency="billing",outcome="failure"} 1"#,
            r#"{dependency="billing",outcome="ignored"} 1"#,
        ]
    );
}

#[test]
fn each_attempt_that_goes_out_is_timed_by_what_it_said() {
    let samples = published(|| {
        on_a_runtime(async {
            let replies = [json(200, "{}"), json(200, "{}"), Reaction::Send(answer(500, &[], ""))];
            let server = Server::start(move |n| std::future::ready(replies[n].clone())).await;
            let breaker = Breaker::builder("billing/read").consecutive_failures(1).build();
            let client = Client::builder("billing", server.url.clone()).breaker(breaker);
            let client = client.build(&transport());
            for works in [true, true, false, false] {
                let reply = client.get("/").fetch::<Value>(&Context::new()).await;
                assert_eq!(reply.is_ok(), works);
            }
        });
    });
    assert_eq!(
        timed(&samples),
        [
            r#"{dependency="billing",outcome="failure"} 1"#,
            r#"{dependency="billing",outcome="success"} 2"#,
        ]
    );
}

#[test]
fn what_does_not_go_out_is_counted_by_what_kept_it_back() {
    let samples = published(|| {
        on_a_runtime(async {
            let server = Server::always(Reaction::Hang).await;
            let client = |breaker: &Breaker| {
                let client = Client::builder("billing", server.url.clone());
                let bulkhead = Bulkhead::builder("billing", 1).build();
                client.breaker(breaker.clone()).bulkhead(bulkhead).build(&transport())
            };
            let forced = Breaker::builder("billing").build();
            forced.force_open();
            let cx = Context::new();
            client(&forced).get("/").fetch::<Value>(&cx).await.expect_err("forced open");
            client(&forced).check().expect_err("forced open");
            let well = client(&Breaker::builder("billing").build());
            let mut hangs = Box::pin(well.get("/").fetch::<Value>(&cx));
            assert!(futures_util::poll!(&mut hangs).is_pending());
            well.get("/").fetch::<Value>(&cx).await.expect_err("full");
            drop(hangs);
            let cx = Context::new().with_deadline(Deadline::after(Duration::ZERO));
            well.get("/").fetch::<Value>(&cx).await.expect_err("too late");
        });
    });
    let name = "resilience_calls_not_made_total";
    let found: Vec<_> = samples.iter().filter_map(|sample| sample.strip_prefix(name)).collect();
    assert_eq!(
        found,
        [
            r#"{dependency="billing",reason="forced_open"} 2"#,
            r#"{dependency="billing",reason="full"} 1"#,
            r#"{dependency="billing",reason="time"} 1"#,
        ]
    );
}

#[test]
fn who_waits_for_a_place_is_timed() {
    let samples = published(|| {
        on_a_runtime(async {
            let (clock, second) = (ManualClock::new(), Duration::from_secs(1));
            let bulkhead =
                Bulkhead::builder("billing", 1).queue(1, second).clock(clock.clone()).build();
            let first = bulkhead.try_acquire().expect("free");
            let mut waiting = Box::pin(bulkhead.acquire(None));
            assert!(futures_util::poll!(&mut waiting).is_pending());
            clock.advance(second / 4);
            drop(first);
            drop(waiting.await.expect("its turn"));
        });
    });
    let sum = r#"resilience_bulkhead_wait_seconds_sum{bulkhead="billing"} 0.25"#;
    assert!(samples.iter().any(|sample| sample == sum), "{samples:#?}");
}

#[test]
fn each_metric_is_described() {
    let registry = Registry::new();
    worn(&registry);
    let _bulkhead = registry.bulkhead(&Key::new("billing"), 1, |bulkhead| bulkhead);
    let _budget = registry.retry_budget(&Key::new("billing"), |budget| budget);
    let recorder = PrometheusBuilder::new().build_recorder();
    let shown = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        resilience::metrics::describe();
        registry.publish();
    });
    let text = shown.render();
    for sample in lines(&text) {
        let name = sample.split(['{', ' ']).next().unwrap_or_default();
        assert!(text.contains(&format!("# HELP {name} ")), "{name} in {text}");
    }
}
