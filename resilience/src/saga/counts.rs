//! What is counted, where the feature `metrics` is on.

#[cfg(feature = "metrics")]
pub(super) use crate::metrics::saga::{ended, publish, step};
#[cfg(not(feature = "metrics"))]
pub(super) use nothing::*;

#[cfg(not(feature = "metrics"))]
mod nothing {
    use std::time::Duration;

    use crate::saga::Stage;

    pub(in crate::saga) fn ended(_kind: &'static str, _stage: Stage, _took: Duration) {}

    pub(in crate::saga) fn step(_kind: &'static str, _step: &str, _state: &'static str) {}
}
