//! What running services tell of themselves: spans, log lines, metrics; and what is made of those.
//!
//! - [`collector`]: takes spans over OTLP, as a collector does;
//! - `traces`: from hop to hop, into what is done later, and while nobody takes them;
//! - `metrics`: however much is made up, and by Prometheus' own rules;
//! - `monitoring`: alerts and dashboards ask for what there is;
//! - `cost`: what all of that takes of the throughput.

pub(crate) mod collector;
mod cost;
mod metrics;
mod monitoring;
mod traces;
