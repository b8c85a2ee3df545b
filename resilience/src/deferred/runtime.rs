//! Runs everything until it is told to stop.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::handle::Deferred;
#[cfg(feature = "rabbitmq")]
use super::rabbitmq;
use super::shared::Shared;
use super::{direct, janitor};

/// Carries deferred calls out, until it is told to stop. Made by
/// [`Deferred::builder`](super::Deferred::builder).
#[derive(Debug)]
#[must_use = "nothing is carried out until it runs"]
pub struct Runtime {
    pub(super) shared: Arc<Shared>,
    pub(super) times: Times,
    #[cfg(feature = "saga")]
    pub(super) sagas: Arc<crate::saga::Definitions>,
    #[cfg(feature = "rabbitmq")]
    pub(super) broker: Option<rabbitmq::Address>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) retention: Duration,
    pub(super) drain: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self { retention: Duration::from_hours(30 * 24), drain: Duration::from_secs(10) }
    }
}

/// How long those that were cut off have to say so in the ledger.
const LAST_WORDS: Duration = Duration::from_secs(2);

impl Runtime {
    /// For whoever defers calls, and for operators.
    pub fn handle(&self) -> Deferred {
        Deferred::new(Arc::clone(&self.shared))
    }

    /// For whoever begins sagas, and for operators.
    #[cfg(feature = "saga")]
    pub fn sagas(&self) -> crate::saga::Sagas {
        crate::saga::Sagas::new(Arc::clone(&self.sagas), self.handle())
    }

    /// Carries out what is deferred until `shutdown` ends. Then nothing more is begun, and it
    /// returns when what runs is over and written, or [cut off](Deferred::cut_off), or the time for
    /// [draining](super::Builder::drain) is over.
    ///
    /// Dropped in the middle it stops at once: what ran is made again when its lease is over.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let shared = &self.shared;
        // However this future ends, the tasks do too.
        let _stop = shared.stop.clone().drop_guard();
        let tasks = TaskTracker::new();
        for kind in shared.kinds.values() {
            tasks.spawn(direct::run(Arc::clone(shared), Arc::clone(kind)));
        }
        tasks.spawn(janitor::run(Arc::clone(shared), self.times.retention));
        #[cfg(feature = "saga")]
        if !self.sagas.is_empty() {
            let (sagas, retention) = (Arc::clone(&self.sagas), self.times.retention);
            tasks.spawn(crate::saga::recover(sagas, retention, shared.stop.clone()));
        }
        #[cfg(feature = "rabbitmq")]
        if let Some(address) = self.broker {
            tasks.spawn(rabbitmq::supervise(Arc::clone(shared), address));
        }
        tasks.close();
        shutdown.await;
        shared.stop.cancel();
        shared.running.close();
        let drained = async {
            tasks.wait().await;
            shared.running.wait().await;
        };
        if timeout(self.times.drain, drained).await.is_err() {
            shared.cut_off();
            let _ = timeout(LAST_WORDS, shared.running.wait()).await;
        }
    }
}
