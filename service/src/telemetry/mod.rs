//! Log lines, metrics and traces of a process.
//!
//! - `logs`: what lines look like;
//! - `metrics`: what is counted, what it means, and what is shown on demand;
//! - `traces`: spans over OTLP.

pub(crate) mod logs;
mod metrics;
pub(crate) mod traces;

use std::io::{self, IsTerminal as _};

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use logs::{Identified, Readable};
pub(crate) use metrics::{fold, known, metrics, publish, request};
pub use traces::Traces;

/// The target of the lines that say what requests were answered.
const ANSWERED: &str = "service::pipeline";

/// Writes log lines to standard error. `RUST_LOG` filters them (default `info`), `LOG_FORMAT=json`
/// makes each a JSON object. With `traced`, spans are sent to where OpenTelemetry's variables say, until
/// what is returned [ends](Traces::end). A second call changes nothing.
///
/// # Errors
/// When the variables for spans are there, and can't be used.
pub fn init(service: &'static str, traced: bool) -> anyhow::Result<Traces> {
    let traces = if traced { Traces::start(service)? } else { Traces::NONE };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let spans = traces.layer(service);
    // Already set: the process hosts several services, as tests do.
    drop(tracing_subscriber::registry().with(lines().with_filter(filter)).with(spans).try_init());
    Ok(traces)
}

fn lines() -> Box<dyn Layer<Registry> + Send + Sync> {
    let lines = fmt::layer().with_writer(io::stderr);
    if std::env::var("LOG_FORMAT").is_ok_and(|format| format == "json") {
        let json = fmt::format().json().flatten_event(true).with_current_span(false);
        lines.fmt_fields(fmt::format::JsonFields::new()).event_format(Identified(json)).boxed()
    } else {
        let colours = io::stderr().is_terminal();
        lines.fmt_fields(Readable).with_target(false).with_ansi(colours).boxed()
    }
}
