//! Log lines and metrics of a process.

use std::convert::Infallible;
use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

/// Writes log lines to standard error. `RUST_LOG` filters them (default `info`), `LOG_FORMAT=json`
/// makes each a JSON object. A second call changes nothing.
pub fn init() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let json = std::env::var("LOG_FORMAT").is_ok_and(|format| format == "json");
    let done = if json {
        lines.json().flatten_event(true).try_init()
    } else {
        lines.with_target(false).with_ansi(false).try_init()
    };
    // Already set: the process hosts several services, as tests do.
    drop(done);
}

/// Upper bounds in seconds: from a read without hops to the longest budget of a request.
const BUCKETS: [f64; 10] = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0];

/// The process's metrics, in Prometheus' text format on demand.
pub(crate) fn metrics() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let builder = PrometheusBuilder::new();
        let suffix = Matcher::Suffix("_seconds".to_owned());
        // Fails for an empty list alone.
        let builder = builder.set_buckets_for_metric(suffix, &BUCKETS).unwrap_or_default();
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        // Another recorder can be there only in a program of somebody else's: theirs then wins.
        drop(metrics::set_global_recorder(recorder));
        resilience::metrics::describe();
        handle
    })
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
