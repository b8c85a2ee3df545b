//! Undoing in reverse order what a failed operation has done, in the memory of this process.
#![doc = include_str!("../docs/rollback.md")]

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::retry::Backoff;

/// What is added at most to the time that a dependency or its breaker asked for, so that not
/// everything that waited for the same moment comes at once.
const RETRY_AFTER_JITTER: Duration = Duration::from_millis(100);

/// The longest that anybody's `retry_after` is heeded: a rollback isn't put off for a day.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(30);

type Attempt = dyn Fn() -> BoxFuture<'static, Result<(), UndoError>> + Send + Sync;

/// One step back: what to do, under a key that names it.
#[derive(Clone)]
pub struct Undo {
    inner: Arc<Inner>,
}

struct Inner {
    key: String,
    dependency: String,
    attempt: Box<Attempt>,
}

impl Undo {
    /// An undo that asks `dependency` to take something back.
    ///
    /// The key names the effect that is undone: of undos with the same key only one is ever
    /// pending. The closure is called once per attempt and must bound its own time. It has to be
    /// idempotent: an attempt whose answer was lost is repeated.
    pub fn new<F, Fut, E>(key: impl Into<String>, dependency: impl Into<String>, f: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<UndoError>,
    {
        let attempt = Box::new(move || f().map(|result| result.map_err(Into::into)).boxed());
        Self { inner: Arc::new(Inner { key: key.into(), dependency: dependency.into(), attempt }) }
    }

    /// The key that it was made with.
    pub fn key(&self) -> &str {
        &self.inner.key
    }

    /// The name of the system that is asked.
    pub fn dependency(&self) -> &str {
        &self.inner.dependency
    }

    async fn attempt(&self) -> Result<(), UndoError> {
        // A defect in one undo must neither stop the others nor end its own retries. The closure
        // is called inside, for it can panic as well.
        let attempt = async { (self.inner.attempt)().await };
        match AssertUnwindSafe(attempt).catch_unwind().await {
            Ok(result) => result,
            Err(_) => Err(UndoError::new("the undo panicked")),
        }
    }
}

impl fmt::Debug for Undo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Undo")
            .field("key", &self.inner.key)
            .field("dependency", &self.inner.dependency)
            .finish_non_exhaustive()
    }
}

/// Why an [`Undo`] failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct UndoError {
    message: String,
    retry_after: Option<Duration>,
    dependency: Option<String>,
}

impl UndoError {
    /// A failure with this explanation; repeated after the backoff's next delay.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), retry_after: None, dependency: None }
    }

    /// Trying again before this has passed makes no sense (an open breaker says so). Heeded up to
    /// 30 seconds.
    #[must_use]
    pub fn with_retry_after(mut self, retry_after: Duration) -> Self {
        self.retry_after = Some(retry_after);
        self
    }

    /// The system at fault, where it isn't the one that the undo asks but one further down.
    #[must_use]
    pub fn with_dependency(mut self, dependency: impl Into<String>) -> Self {
        self.dependency = Some(dependency.into());
        self
    }

    /// Without the wait that somebody asked for: for an undo that holds a lease which each attempt
    /// extends, and that must be attempted often therefore.
    #[must_use]
    pub fn without_retry_after(mut self) -> Self {
        self.retry_after = None;
        self
    }

    /// The explanation.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The least time until the next attempt, where it is known.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// The system at fault, where it was named.
    pub fn dependency(&self) -> Option<&str> {
        self.dependency.as_deref()
    }
}

impl From<String> for UndoError {
    fn from(message: String) -> Self {
        Self::new(message)
    }
}

#[cfg(feature = "http")]
impl From<crate::http::CallError> for UndoError {
    fn from(error: crate::http::CallError) -> Self {
        Self {
            message: error.to_string(),
            retry_after: error.retry_after(),
            dependency: Some(error.dependency().to_owned()),
        }
    }
}

/// The undos that are still to succeed, each repeated by a task of its own.
///
/// The tasks belong to the given [`TaskTracker`]: closing it and waiting for it at shutdown drains
/// the backlog, as far as the dependencies are there. What is pending when the process ends is
/// lost: the backlog lives in memory. Clones share everything.
#[derive(Clone)]
pub struct Backlog {
    tasks: TaskTracker,
    backoff: Backoff,
    pending: Arc<Mutex<HashSet<String>>>,
    /// Told whenever an undo has succeeded.
    succeeded: Arc<Notify>,
}

impl Backlog {
    /// An empty backlog, whose waits between attempts are these.
    pub fn new(tasks: TaskTracker, backoff: Backoff) -> Self {
        Self { tasks, backoff, pending: Arc::default(), succeeded: Arc::default() }
    }

    /// Repeats this undo in the background until it succeeds, beginning at once. One whose key is
    /// pending already is not added again.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    pub fn submit(&self, undo: Undo) {
        self.add(undo, None);
    }

    /// With the failure of an attempt made just now, the next one waits.
    fn add(&self, undo: Undo, failure: Option<UndoError>) {
        if !self.lock().insert(undo.key().to_owned()) {
            return;
        }
        let backlog = self.clone();
        self.tasks.spawn(async move {
            backlog.repeat(&undo, failure).await;
            backlog.lock().remove(undo.key());
            backlog.succeeded.notify_waiters();
        });
    }

    async fn repeat(&self, undo: &Undo, mut failure: Option<UndoError>) {
        let (key, dependency) = (undo.key(), undo.dependency());
        let since = Instant::now();
        let mut delays = self.backoff.delays();
        for attempt in 1_u64.. {
            if let Some(error) = failure {
                let wait = match error.retry_after {
                    Some(after) => {
                        after.min(LONGEST_RETRY_AFTER) + self.backoff.jitter(RETRY_AFTER_JITTER)
                    }
                    None => delays.next().unwrap_or(LONGEST_RETRY_AFTER),
                };
                tokio::time::sleep(wait).await;
            }
            match undo.attempt().await {
                Ok(()) => {
                    let after_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
                    tracing::info!(key, dependency, attempt, after_ms, "undone in the background");
                    return;
                }
                Err(error) => {
                    tracing::debug!(key, dependency, attempt, %error, "undo failed again");
                    failure = Some(error);
                }
            }
        }
    }

    /// The number of undos that have not succeeded yet.
    pub fn pending(&self) -> usize {
        self.lock().len()
    }

    /// Whether the undo with this key has not succeeded yet.
    pub fn is_pending(&self, key: &str) -> bool {
        self.lock().contains(key)
    }

    /// Waits until the undo with this key is not pending, which it may be already; at most for
    /// `limit`. False when it still is.
    pub async fn wait(&self, key: &str, limit: Duration) -> bool {
        let gone = async {
            loop {
                let mut told = std::pin::pin!(self.succeeded.notified());
                // Listens before it looks, or a success in between would be missed.
                told.as_mut().enable();
                if !self.is_pending(key) {
                    return;
                }
                told.await;
            }
        };
        tokio::time::timeout(limit, gone).await.is_ok()
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Backlog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backlog").field("pending", &self.pending()).finish_non_exhaustive()
    }
}

/// The undos of the steps that an operation has taken so far.
///
/// Push an undo *before* its step is tried: a step whose outcome is unknown has to be undone as
/// well. When the operation succeeds, drop the rollback.
///
/// ```
/// use resilience::{Backlog, Backoff, RolledBack, Rollback, Undo};
/// use tokio_util::task::TaskTracker;
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
/// # runtime.block_on(async {
/// let backlog = Backlog::new(TaskTracker::new(), Backoff::new());
/// let mut rollback = Rollback::new();
/// rollback.push(Undo::new("reservation/42", "billing", || async {
///     // DELETE the reservation
///     Ok::<(), String>(())
/// }));
/// assert_eq!(rollback.run(&backlog).await, RolledBack::Complete);
/// # });
/// ```
#[derive(Debug, Default)]
#[must_use = "a rollback does nothing until it is run"]
pub struct Rollback {
    undos: Vec<Undo>,
}

/// How a [`Rollback`] ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum RolledBack {
    /// Everything is undone.
    Complete,
    /// Something is not undone yet; the [`Backlog`] has it.
    Pending {
        /// The first system that could not be asked.
        dependency: String,
    },
}

impl Rollback {
    /// Nothing to undo yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the undo of the next step.
    pub fn push(&mut self, undo: Undo) {
        self.undos.push(undo);
    }

    /// Whether there is nothing to undo.
    pub fn is_empty(&self) -> bool {
        self.undos.is_empty()
    }

    /// Runs the undos, the last one first, each once. One that fails goes to the backlog, and the
    /// others go on.
    ///
    /// Run it in a task of its own, not in a request's handler that its client can drop. Should the
    /// future be dropped all the same, what is not undone yet goes to the backlog.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    pub async fn run(self, backlog: &Backlog) -> RolledBack {
        let mut left = Left { undos: self.undos, backlog };
        let mut outcome = RolledBack::Complete;
        while let Some(undo) = left.undos.last().cloned() {
            let result = undo.attempt().await;
            left.undos.pop();
            let Err(error) = result else { continue };
            let (key, dependency) = (undo.key(), undo.dependency());
            tracing::warn!(key, dependency, %error, "undo failed, to be repeated in the background");
            if outcome == RolledBack::Complete {
                let at_fault = error.dependency.clone();
                let dependency = at_fault.unwrap_or_else(|| dependency.to_owned());
                outcome = RolledBack::Pending { dependency };
            }
            backlog.add(undo, Some(error));
        }
        outcome
    }
}

/// What a running rollback still has to do, the one under way included.
struct Left<'a> {
    undos: Vec<Undo>,
    backlog: &'a Backlog,
}

impl Drop for Left<'_> {
    fn drop(&mut self) {
        if self.undos.is_empty() {
            return;
        }
        // Nothing can be started when the runtime itself is gone, and a panic here would abort.
        if Handle::try_current().is_err() {
            tracing::error!(left = self.undos.len(), "a rollback was dropped with its runtime");
            return;
        }
        for undo in self.undos.drain(..).rev() {
            self.backlog.submit(undo);
        }
    }
}
