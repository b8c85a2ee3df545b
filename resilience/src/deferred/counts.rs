//! What is counted, where the feature `metrics` is on.

#[cfg(feature = "metrics")]
pub(super) use crate::metrics::deferred::{attempt, begun, publish, stale};
#[cfg(all(feature = "metrics", feature = "rabbitmq"))]
pub(super) use crate::metrics::deferred::{broker, confirmed, unrouted};
#[cfg(not(feature = "metrics"))]
pub(super) use nothing::*;

#[cfg(not(feature = "metrics"))]
mod nothing {
    use std::time::Duration;

    pub(in crate::deferred) fn begun(_kind: &'static str, _lateness: Duration) {}

    pub(in crate::deferred) fn attempt(_kind: &'static str, _outcome: &'static str) {}

    pub(in crate::deferred) fn stale(_kind: &'static str) {}

    #[cfg(feature = "rabbitmq")]
    pub(in crate::deferred) fn confirmed(_took: Duration) {}

    #[cfg(feature = "rabbitmq")]
    pub(in crate::deferred) fn unrouted() {}

    #[cfg(feature = "rabbitmq")]
    pub(in crate::deferred) fn broker(_broker: super::super::shared::Broker) {}
}
