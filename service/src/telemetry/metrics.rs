//! What is counted, what it means, and what is shown on demand.
//!
//! Every label has few values, and none that a client could make up: a path is a route, a method one of
//! seven.

use std::convert::Infallible;
use std::sync::OnceLock;
use std::time::Duration;

use http::{Method, StatusCode};
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, histogram};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use metrics_process::Collector;

/// Upper bounds in seconds: from a read without hops to the longest budget of a request.
const BUCKETS: [f64; 10] = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0];

/// The same for what waits while somebody is away, or this service itself: up to an hour.
const LATE: (&str, [f64; 10]) = (
    "resilience_deferred_lateness_seconds",
    [0.05, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0],
);

/// The process's metrics, in Prometheus' text format on demand.
pub(crate) fn metrics() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let recorder = recorder();
        let handle = recorder.handle();
        #[cfg(feature = "testing")]
        if std::env::var_os("UNCOUNTED").is_some() {
            // To find out what counting costs.
            return handle;
        }
        // Another recorder can be there only in a program of somebody else's: theirs then wins.
        drop(metrics::set_global_recorder(recorder));
        describe();
        handle
    })
}

fn recorder() -> PrometheusRecorder {
    let (late, buckets) = LATE;
    let (late, others) = (Matcher::Full(late.to_owned()), Matcher::Suffix("_seconds".to_owned()));
    // Fails for an empty list alone.
    let builder = PrometheusBuilder::new().set_buckets_for_metric(others, &BUCKETS);
    let builder = builder.and_then(|builder| builder.set_buckets_for_metric(late, &buckets));
    builder.unwrap_or_default().build_recorder()
}

/// How often samples are folded into their buckets: as often as the exporter does where it listens itself.
const FOLDED_EVERY: Duration = Duration::from_secs(5);

/// Folds the samples of durations into their buckets, for good. They would be kept, each of them, until
/// somebody asks for metrics: for ever where nobody does.
pub(crate) async fn fold() -> Infallible {
    let mut turns = tokio::time::interval(FOLDED_EVERY);
    loop {
        turns.tick().await;
        metrics().run_upkeep();
    }
}

/// What is looked at only when somebody asks: the process, as the operating system sees it.
pub(crate) fn publish() {
    Collector::default().collect();
}

fn describe() {
    describe_counter!("http_requests_total", "Requests, by route and by what they were answered");
    describe_histogram!(
        "http_request_duration_seconds",
        Unit::Seconds,
        "How long requests took, by route"
    );
    describe_counter!(
        "http_shed_total",
        "Requests turned away for want of room, or of one user's share"
    );
    describe_gauge!("http_connections", "Connections that are open");
    describe_counter!(
        "http_connections_given_away_total",
        "Connections closed so that another client finds a place"
    );
    describe_gauge!("db_up", "1 while the database answered the last time that it was asked");
    describe_gauge!("db_pool_limit", "Connections to the database that there may be");
    describe_gauge!("db_pool_connections", "Connections to the database that there are");
    describe_gauge!("db_pool_waiting", "Pieces of work that wait for a connection");
    describe_histogram!("db_wait_seconds", Unit::Seconds, "How long work waited for a connection");
    describe_counter!("db_statements_total", "Statements sent, but for those of deferred calls");
    describe_counter!("db_background_statements_total", "Statements sent for deferred calls");
    describe_counter!("access_tokens_total", "Requests let in, by which of the valid tokens");
    describe_gauge!("access_allowed_open", "1 where anybody is let in, and that is allowed");
    resilience::metrics::describe();
    Collector::default().describe();
}

/// A request was answered. `route` is one of the service's own, and `method` one that it has: another one
/// is the client's to choose, and would be a series for each route.
pub(crate) fn request(
    service: &'static str,
    (method, route): (Option<&Method>, &str),
    status: StatusCode,
    shed: bool,
    took: Duration,
) {
    let labels = [
        ("service", service.to_owned()),
        ("method", method.and_then(known).unwrap_or("other").to_owned()),
        ("route", route.to_owned()),
        ("status", status.as_str().to_owned()),
    ];
    counter!("http_requests_total", &labels).increment(1);
    histogram!("http_request_duration_seconds", &labels[..3]).record(took.as_secs_f64());
    if shed {
        let reason = if status == StatusCode::TOO_MANY_REQUESTS { "user" } else { "room" };
        counter!("http_shed_total", "service" => service, "reason" => reason).increment(1);
    }
}

/// Methods are the client's to invent, and may be as long as a head.
pub(crate) fn known(method: &Method) -> Option<&str> {
    let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    Some(method.as_str()).filter(|name| known.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_is_begun_ten_minutes_late_is_told_from_one_that_is_an_hour_late() {
        let recorder = recorder();
        let shown = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            histogram!(LATE.0, "kind" => "claim").record(600.0);
            histogram!("http_request_duration_seconds").record(0.007);
        });
        let shown = shown.render();
        for line in [
            r#"resilience_deferred_lateness_seconds_bucket{kind="claim",le="300"} 0"#,
            r#"resilience_deferred_lateness_seconds_bucket{kind="claim",le="900"} 1"#,
            r#"http_request_duration_seconds_bucket{le="0.005"} 0"#,
            r#"http_request_duration_seconds_bucket{le="0.01"} 1"#,
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line}: {shown}");
        }
    }
}
