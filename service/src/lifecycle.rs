//! The work of a process, and its end.
//!
//! Work that a request started belongs to the process, not to the request: it is tracked here,
//! outlives a client that goes away, and is waited for at the end.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// The running work of a process. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    tasks: TaskTracker,
    requests: TaskTracker,
    leaving: CancellationToken,
    draining: CancellationToken,
    migrated: CancellationToken,
}

impl Lifecycle {
    /// Nothing runs yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Carries on with `work` whatever becomes of the one who waits for it.
    ///
    /// # Panics
    /// When `work` panics.
    pub async fn detach<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let running = self.0.tasks.spawn(work.in_current_span());
        match running.await {
            Ok(result) => result,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Counts a request in, until what is returned is dropped.
    pub(crate) fn request(&self) -> tokio_util::task::task_tracker::TaskTrackerToken {
        self.0.requests.token()
    }

    /// How many requests are under way.
    #[cfg(all(test, feature = "testing"))]
    pub(crate) fn requests(&self) -> usize {
        self.0.requests.len()
    }

    /// Whether readiness says no for good: requests are to go elsewhere, and those that don't are
    /// taken until [`Lifecycle::is_draining`].
    pub(crate) fn is_leaving(&self) -> bool {
        self.0.leaving.is_cancelled()
    }

    pub(crate) fn leave(&self) {
        self.0.leaving.cancel();
    }

    /// Whether the end has begun.
    pub fn is_draining(&self) -> bool {
        self.0.draining.is_cancelled()
    }

    /// Resolves when the end begins: for loops that have nothing to finish.
    pub fn draining(&self) -> CancellationToken {
        self.0.draining.clone()
    }

    /// Whether the schema is known to be up to date.
    pub fn is_migrated(&self) -> bool {
        self.0.migrated.is_cancelled()
    }

    /// Resolves when the schema is known to be up to date.
    pub(crate) async fn migrated(&self) {
        self.0.migrated.cancelled().await;
    }

    pub(crate) fn set_migrated(&self) {
        self.0.migrated.cancel();
    }

    /// Begins the end: new requests are refused.
    pub(crate) fn drain(&self) {
        self.0.draining.cancel();
    }

    /// Waits for running requests and tasks, at most for `limit`. True when all have finished.
    pub(crate) async fn finished(&self, limit: Duration) -> bool {
        let all = async {
            self.0.requests.close();
            self.0.requests.wait().await;
            self.0.tasks.close();
            self.0.tasks.wait().await;
        };
        tokio::time::timeout(limit, all).await.is_ok()
    }
}
