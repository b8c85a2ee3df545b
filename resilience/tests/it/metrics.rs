//! What is published, name by name and label by label.

use metrics_exporter_prometheus::PrometheusBuilder;
use resilience::breaker::Breaker;
use resilience::http::{Client, Context};
use resilience::registry::{Key, Registry};
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

fn lines(text: &str) -> Vec<String> {
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
    assert_eq!(published(|| registry.publish()), expected);
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

#[test]
fn each_attempt_that_goes_out_is_timed_by_what_it_said() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let samples = published(|| {
        runtime.block_on(async {
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
    let counted: Vec<_> = samples
        .iter()
        .filter(|sample| sample.starts_with("resilience_call_duration_seconds_count"))
        .collect();
    assert_eq!(
        counted,
        [
            r#"resilience_call_duration_seconds_count{dependency="billing",outcome="failure"} 1"#,
            r#"resilience_call_duration_seconds_count{dependency="billing",outcome="success"} 2"#,
        ]
    );
}

#[test]
fn each_metric_is_described() {
    let registry = Registry::new();
    worn(&registry);
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
