//! The circuit breaker: stops calling what doesn't answer, and finds out with one real call
//! whether it does again.
//!
//! - [`Breaker`] hands out a [`Permit`] per call, or a [`Rejection`] that explains itself.
//! - `machine` is the state machine: no locks, no clocks, no logging in it.
//! - [`FailurePolicy`] is the seam that decides when to open and for how long; any policy of
//!   `failsafe` plugs in.

mod builder;
mod machine;
mod permit;
mod policy;
mod report;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use builder::BreakerBuilder;
use machine::{Event, Machine, Refused};
pub use permit::Permit;
pub use policy::FailurePolicy;
pub use report::{Rejection, Snapshot, State};

use crate::clock::Clock;

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
/// assert_eq!(rejection.state, State::Open);
/// assert_eq!(
///     rejection.to_string(),
///     "billing is unavailable: no answer within 500 ms \
///      (circuit breaker open, next attempt in 6 s)",
/// );
/// # Ok::<(), resilience::Rejection>(())
/// ```
///
/// - **Closed**: every call gets a permit. The policy sees successes and failures and may open it.
/// - **Open**: every call is rejected until the policy's wait is over.
/// - **Half-open**: one call at a time gets a permit, as a probe; all others are rejected. Its
///   success closes the breaker, its failure opens it again. A probe that hangs is replaced when
///   its lease ends, and then its result decides nothing any more.
#[derive(Clone)]
pub struct Breaker {
    inner: Arc<Inner>,
}

struct Inner {
    name: Arc<str>,
    probe_lease: Duration,
    slow_call: Duration,
    clock: Box<dyn Clock>,
    machine: Mutex<Machine>,
    rejected: AtomicU64,
}

impl Breaker {
    /// Starts building a breaker. The name is the dependency's, as users may read it.
    pub fn builder(name: impl Into<String>) -> BreakerBuilder {
        BreakerBuilder::new(name.into())
    }

    /// The name that it was built with.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Asks to make a call. Never waits.
    ///
    /// # Errors
    ///
    /// While the breaker is open, or half-open with its probe under way.
    pub fn acquire(&self) -> Result<Permit, Rejection> {
        let inner = &self.inner;
        let now = inner.clock.now();
        let (admission, event) = inner.lock().admit(now, inner.probe_lease);
        inner.announce(event);
        match admission {
            Ok(generation) => Ok(Permit::new(Arc::clone(inner), generation, now)),
            Err(refused) => Err(inner.reject(refused)),
        }
    }

    /// Whether a call would be let through now, without making one: for work that would have to be
    /// undone when a later step of it is refused. It changes nothing, and promises nothing.
    ///
    /// # Errors
    ///
    /// As for [`acquire`](Self::acquire).
    pub fn check(&self) -> Result<(), Rejection> {
        let now = self.inner.clock.now();
        let refused = self.inner.lock().refuses(now);
        refused.map_or(Ok(()), |refused| Err(self.inner.reject(refused)))
    }

    /// The present state. An open breaker whose wait is over is still [`State::Open`], until a
    /// call comes to probe.
    pub fn state(&self) -> State {
        self.inner.lock().state()
    }

    /// All that there is to know about it at this moment.
    pub fn snapshot(&self) -> Snapshot {
        let now = self.inner.clock.now();
        let machine = self.inner.lock();
        Snapshot {
            name: Arc::clone(&self.inner.name),
            state: machine.state(),
            since: machine.since(),
            reason: machine.reason(),
            retry_after: machine.retry_after(now),
            stale: machine.stale(),
            rejected: self.inner.rejected.load(Ordering::Relaxed),
            abandoned: machine.abandoned(),
        }
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker")
            .field("name", &self.inner.name)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Machine> {
        // Only a policy can panic in there, and the machine is consistent before each call to it.
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reject(&self, refused: Refused) -> Rejection {
        self.rejected.fetch_add(1, Ordering::Relaxed);
        Rejection {
            breaker: Arc::clone(&self.name),
            state: refused.state,
            reason: refused.reason,
            retry_after: refused.retry_after,
        }
    }

    /// Tells the world. Never called under the lock: a subscriber may ask the breaker.
    fn announce(&self, event: Option<Event>) {
        let breaker = &*self.name;
        match event {
            None => {}
            Some(Event::Opened { from, reason, open_for }) => tracing::warn!(
                breaker,
                %from,
                to = %State::Open,
                reason = reason.as_deref(),
                open_for_ms = u64::try_from(open_for.as_millis()).unwrap_or(u64::MAX),
                "circuit breaker opened"
            ),
            Some(Event::Probing) => tracing::info!(
                breaker,
                from = %State::Open,
                to = %State::HalfOpen,
                "circuit breaker half-open: one call probes"
            ),
            Some(Event::ProbeReplaced) => tracing::warn!(
                breaker,
                lease_ms = u64::try_from(self.probe_lease.as_millis()).unwrap_or(u64::MAX),
                "the probe's lease ended without a result: another call probes"
            ),
            Some(Event::Closed) => tracing::info!(
                breaker,
                from = %State::HalfOpen,
                to = %State::Closed,
                "circuit breaker closed"
            ),
        }
    }
}

#[cfg(test)]
mod tests;
