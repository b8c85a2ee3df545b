//! The circuit breaker: stops calling what doesn't answer, and finds out with one real call
//! whether it does again.
#![doc = include_str!("../../docs/breaker.md")]
// Inside: `word` is what every call reads, `lane` what every call counts, `watch` the calls in
// flight and `window` their results over time, all of them without a lock; `machine` is the state
// machine behind the lock, which only a result that could change something takes.
#![expect(clippy::inline_always, reason = "measured: a call between them costs more than they do")]

mod cursor;
mod events;
mod hot;
mod inner;
mod lane;
mod machine;
mod permit;
mod policy;
mod probes;
mod report;
mod settings;
mod time;
mod watch;
mod window;
mod word;

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub use events::{Event, EventKind, Events};
pub use permit::Permit;
pub use policy::FailurePolicy;
pub use report::{Rejection, Snapshot, State};
pub use settings::{BreakerBuilder, Settings};
pub use window::WindowCounts;

use crate::classify::{Classify, Verdict};
use inner::{Inner, acquire};
use permit::{Handle, Plain, Quick};

/// A circuit breaker for one dependency. Clones are cheap and share everything.
///
/// It is asked before a call, and told how the call ended:
///
/// ```
/// use resilience::{Breaker, State};
///
/// let breaker = Breaker::builder("billing").build();
/// for _ in 0..3 {
///     let permit = breaker.acquire()?;
///     permit.failure("no answer within 500 ms");
/// }
/// let rejection = breaker.acquire().unwrap_err();
/// assert_eq!(rejection.state(), State::Open);
/// assert_eq!(
///     rejection.to_string(),
///     "billing is unavailable: no answer within 500 ms \
///      (circuit breaker open, next attempt in 6 s)",
/// );
/// # Ok::<(), resilience::Rejection>(())
/// ```
///
/// - **Closed**: every call gets a permit. The policy sees successes and failures and may open it.
/// - **Open**: every call is rejected until the wait is over.
/// - **Half-open**: one call at a time ([`Settings::probes`]) gets a permit, as a probe; all others
///   are rejected. Its success closes the breaker, its failure opens it again. A probe that hangs
///   is replaced when its lease ends, and then its result decides nothing any more.
///
/// Each change of state begins a new generation. A permit carries the generation that it was given
/// under: a result of an earlier one decides nothing, and is counted as stale.
#[derive(Clone)]
pub struct Breaker {
    inner: Arc<Inner>,
}

/// A call through a breaker that brought no value.
#[derive(Clone, Debug)]
pub enum Error<E> {
    /// The breaker let nothing through.
    Rejected(Rejection),
    /// The call was made, and failed.
    Failed(E),
}

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(rejection) => rejection.fmt(f),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl<E: std::error::Error> std::error::Error for Error<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Rejected(_) => None,
            Self::Failed(error) => error.source(),
        }
    }
}

impl Breaker {
    /// Starts building a breaker. The name is the dependency's, as users may read it.
    pub fn builder(name: impl Into<String>) -> BreakerBuilder {
        BreakerBuilder::new(name.into())
    }

    /// The name that it was built with.
    pub fn name(&self) -> &str {
        &self.inner.hot.name
    }

    /// Asks to make a call. Never waits.
    ///
    /// # Errors
    ///
    /// While the breaker is open, or half-open with its probes under way.
    #[inline]
    pub fn acquire(&self) -> Result<Permit<'_>, Rejection> {
        acquire(Handle::Borrowed(&self.inner))
    }

    /// [`acquire`](Self::acquire), for a permit that can be sent anywhere. It counts a reference,
    /// which all threads share: where the permit needn't outlive the breaker, borrow.
    ///
    /// # Errors
    ///
    /// As for [`acquire`](Self::acquire).
    pub fn acquire_owned(&self) -> Result<Permit<'static>, Rejection> {
        acquire(Handle::Owned(Arc::clone(&self.inner)))
    }

    /// Whether a call would be let through now, without making one: for work that would have to be
    /// undone when a later step of it is refused. It changes nothing, and promises nothing.
    ///
    /// # Errors
    ///
    /// As for [`acquire`](Self::acquire).
    pub fn check(&self) -> Result<(), Rejection> {
        self.inner.check()
    }

    /// Makes a call: `Ok` is a success, and `Err` a failure, whose text is the reason.
    ///
    /// ```
    /// use resilience::Breaker;
    /// use resilience::breaker::Error;
    ///
    /// let breaker = Breaker::builder("parser").consecutive_failures(1).build();
    /// assert_eq!(breaker.call(|| "42".parse::<u8>()).unwrap(), 42);
    /// assert!(matches!(breaker.call(|| "x".parse::<u8>()), Err(Error::Failed(_))));
    /// assert!(matches!(breaker.call(|| "42".parse::<u8>()), Err(Error::Rejected(_))));
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`] when nothing was called, [`Error::Failed`] with the call's own error.
    #[inline]
    pub fn call<T, E: fmt::Display>(
        &self,
        op: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, Error<E>> {
        self.call_with(&by_result, op)
    }

    /// Makes a call, with your own view of what its result says.
    ///
    /// # Errors
    ///
    /// As for [`call`](Self::call).
    #[inline]
    pub fn call_with<T, E>(
        &self,
        classify: &impl Classify<Result<T, E>>,
        op: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, Error<E>> {
        let Some(permit) = Plain::acquire(&self.inner) else {
            return self.call_with_care(classify, op);
        };
        let result = op();
        permit.settle(classify.classify(&result));
        result.map_err(Error::Failed)
    }

    #[inline(never)]
    fn call_with_care<T, E>(
        &self,
        classify: &impl Classify<Result<T, E>>,
        op: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, Error<E>> {
        let result = if let Some(permit) = Quick::acquire(&self.inner) {
            let result = op();
            permit.settle(classify.classify(&result));
            result
        } else {
            if let Some(rejection) = self.inner.refuse_now() {
                return Err(Error::Rejected(rejection));
            }
            let permit = self.acquire().map_err(Error::Rejected)?;
            let result = op();
            permit.settle(classify.classify(&result));
            result
        };
        result.map_err(Error::Failed)
    }

    /// [`call`](Self::call) for a future, which isn't polled when the call is rejected. Put its
    /// timeout inside.
    ///
    /// # Errors
    ///
    /// As for [`call`](Self::call).
    pub async fn call_async<T, E: fmt::Display>(
        &self,
        op: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Error<E>> {
        self.call_async_with(&by_result, op).await
    }

    /// [`call_with`](Self::call_with) for a future.
    ///
    /// # Errors
    ///
    /// As for [`call`](Self::call).
    pub async fn call_async_with<T, E>(
        &self,
        classify: &impl Classify<Result<T, E>>,
        op: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Error<E>> {
        let permit = self.acquire().map_err(Error::Rejected)?;
        let result = op.await;
        permit.settle(classify.classify(&result));
        result.map_err(Error::Failed)
    }

    /// The present state. An open breaker whose wait is over is still [`State::Open`], until a
    /// call comes to probe.
    pub fn state(&self) -> State {
        self.inner.hot.word().state()
    }

    /// Rejects every call until it is [reset](Self::reset) or [forced
    /// closed](Self::force_closed).
    pub fn force_open(&self) {
        self.inner.force(State::ForcedOpen);
    }

    /// Lets every call through, whatever they come to, until it is [reset](Self::reset) or [forced
    /// open](Self::force_open).
    pub fn force_closed(&self) {
        self.inner.force(State::ForcedClosed);
    }

    /// Closes it and has it forget everything that it has seen but its counts; also the way out of
    /// a forced state.
    pub fn reset(&self) {
        self.inner.reset();
    }

    /// Takes new settings over at once. The state, the row of failures and what is in the window
    /// survive; a policy of your own begins afresh. When `slow_call` changes, calls under way are
    /// not watched for hanging any more.
    pub fn reconfigure(&self, settings: Settings) {
        self.inner.reconfigure(settings);
    }

    /// What happens to it from now on, as it happens: at most `capacity` events (at least one) wait
    /// to be received.
    pub fn subscribe(&self, capacity: usize) -> Events {
        self.inner.subscribers.add(capacity)
    }

    /// Whether one built afresh would be the same to everybody: nobody else has it or listens to
    /// it, so no call is under way either, its settings are still the first ones, and there is
    /// nothing that could make it open sooner.
    pub(crate) fn is_dispensable(&self) -> bool {
        let word = self.inner.hot.word();
        Arc::strong_count(&self.inner) == 1
            && !self.inner.subscribers.is_any()
            && !self.inner.reconfigured.load(Ordering::Relaxed)
            && word.state() == State::Closed
            && !word.has(word::DIRTY)
            && self.snapshot().window.is_none_or(|window| window.calls == 0)
    }

    /// All that there is to know about it at this moment.
    pub fn snapshot(&self) -> Snapshot {
        self.inner.snapshot()
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker")
            .field("name", &self.inner.hot.name)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

fn by_result<T, E: fmt::Display>(result: &Result<T, E>) -> Verdict {
    match result {
        Ok(_) => Verdict::Success,
        Err(error) => Verdict::Failure(error.to_string().into()),
    }
}
