use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What goes wrong in the pipeline itself: where all goes well, nothing is counted.
#[derive(Default)]
pub(super) struct Counts {
    deadline_exceeded: AtomicU64,
    timed_out: AtomicU64,
    inherited_timeouts: AtomicU64,
}

impl Counts {
    pub(super) fn exceeded(&self, pipeline: &str) {
        self.deadline_exceeded.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(pipeline, "no time is left");
    }

    pub(super) fn timeout(&self, pipeline: &str, limit: Duration, inherited: bool) {
        let count = if inherited { &self.inherited_timeouts } else { &self.timed_out };
        count.fetch_add(1, Ordering::Relaxed);
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        tracing::debug!(pipeline, limit_ms, inherited, "an attempt timed out");
    }

    pub(super) fn snapshot(&self, name: &Arc<str>) -> PipelineSnapshot {
        PipelineSnapshot {
            name: Arc::clone(name),
            deadline_exceeded: self.deadline_exceeded.load(Ordering::Relaxed),
            timed_out: self.timed_out.load(Ordering::Relaxed),
            inherited_timeouts: self.inherited_timeouts.load(Ordering::Relaxed),
        }
    }
}

/// What a [`Pipeline`](super::Pipeline) has counted since it was built.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct PipelineSnapshot {
    /// The pipeline's name.
    pub name: Arc<str>,
    /// Calls for which no time was left, at the beginning or for another attempt.
    pub deadline_exceeded: u64,
    /// Attempts that took longer than their own timeout.
    pub timed_out: u64,
    /// Attempts that took longer than their call's deadline left.
    pub inherited_timeouts: u64,
}
