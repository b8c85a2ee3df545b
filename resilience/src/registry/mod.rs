//! All breakers, bulkheads and retry budgets of a process, by dependency and class of operation.
//!
//! A [`Registry`] makes each of them once, shows them all in a [`Snapshot`], and with the feature
//! `metrics` [publishes](Registry::publish) them. It is capped, so that keys that come from outside
//! (a tenant, a host) can't fill the memory: when it is full, one that nobody holds and that
//! remembers nothing makes way, and never one that is open or busy.
//!
//! ```
//! use resilience::registry::{Key, Registry};
//! use std::time::Duration;
//!
//! let registry = Registry::new();
//! let billing = Key::new("billing");
//! // Reads and writes fail for different reasons, and one must not close the way for the other.
//! let reads = registry.breaker(&billing.class("read"), |breaker| breaker)?;
//! let writes = registry.breaker(&billing.class("write"), |breaker| {
//!     breaker.slow_call(Duration::from_secs(5))
//! })?;
//! assert_eq!(registry.snapshot().breakers.len(), 2);
//! assert_eq!(registry.find_breaker("billing/write").map(|it| it.name().to_owned()),
//!            Some(writes.name().to_owned()));
//! # Ok::<(), resilience::registry::RegistryFull>(())
//! ```
//!
//! *When not to use it*: a program with one dependency keeps its [`Breaker`] where it is used.

mod key;
mod shelf;

use std::fmt;
use std::sync::Arc;

use crate::breaker::{self, Breaker, BreakerBuilder};
pub use key::Key;
use shelf::{Member, Shelf};

/// Of each kind, unless something else is said.
const CAPACITY: usize = 1024;

/// What protects the calls of a process, by key. Clones are cheap and share everything.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    breakers: Shelf<Breaker>,
}

/// There is no room for one more, as all that there are are in use. Raise the capacity, or find out
/// who makes so many keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryFull {
    kind: &'static str,
    capacity: usize,
}

impl fmt::Display for RegistryFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, capacity } = self;
        write!(f, "the registry is full: {capacity} {kind}, all of them in use")
    }
}

impl std::error::Error for RegistryFull {}

/// Everything in a [`Registry`] at one moment, each kind sorted by name.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Snapshot {
    /// Its breakers.
    pub breakers: Vec<breaker::Snapshot>,
}

impl Registry {
    /// Room for 1024 of each kind.
    pub fn new() -> Self {
        Self::with_capacity(CAPACITY)
    }

    /// Room for this many of each kind (at least one).
    pub fn with_capacity(capacity: usize) -> Self {
        Self { inner: Arc::new(Inner { breakers: Shelf::new(capacity) }) }
    }

    /// The breaker for this key, which is its name. The first time it is made with the settings
    /// that `configure` adds; later ones are ignored: to change them, use
    /// [`Breaker::reconfigure`].
    ///
    /// # Errors
    ///
    /// When there are as many as there may be, and each is held by somebody, open, or remembers
    /// something.
    pub fn breaker(
        &self,
        key: &Key,
        configure: impl FnOnce(BreakerBuilder) -> BreakerBuilder,
    ) -> Result<Breaker, RegistryFull> {
        let make = |key: &Key| configure(Breaker::builder(key.as_str())).build();
        self.inner.breakers.get_or_make(key, make)
    }

    /// The breaker of this name, where there is one.
    pub fn find_breaker(&self, name: &str) -> Option<Breaker> {
        self.inner.breakers.get(name)
    }

    /// All breakers, sorted by key.
    pub fn breakers(&self) -> Vec<(Key, Breaker)> {
        self.inner.breakers.all()
    }

    /// Everything in it, at this moment.
    pub fn snapshot(&self) -> Snapshot {
        let breakers = self.breakers();
        Snapshot { breakers: breakers.iter().map(|(_, breaker)| breaker.snapshot()).collect() }
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let breakers: Vec<_> = self.breakers().into_iter().map(|(_, breaker)| breaker).collect();
        f.debug_struct("Registry").field("breakers", &breakers).finish_non_exhaustive()
    }
}

impl Member for Breaker {
    const KIND: &'static str = "breakers";

    fn is_dispensable(&self) -> bool {
        Self::is_dispensable(self)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::breaker::State;
    use crate::testkit::ManualClock;

    fn names(registry: &Registry) -> Vec<String> {
        registry.breakers().iter().map(|(key, _)| key.to_string()).collect()
    }

    /// Full of one breaker, in whatever condition `wear` leaves it.
    fn full_of(wear: impl FnOnce(&Breaker)) -> Registry {
        let registry = Registry::with_capacity(1);
        let used = registry.breaker(&Key::new("used"), |breaker| breaker).expect("room");
        wear(&used);
        drop(used);
        registry
    }

    fn makes_way(registry: &Registry) -> bool {
        let made = registry.breaker(&Key::new("new"), |breaker| breaker);
        assert_eq!(made.is_ok(), names(registry) == ["new"]);
        made.is_ok()
    }

    #[test]
    fn one_key_is_one_breaker_by_that_name() {
        let registry = Registry::new();
        let key = Key::new("billing").class("write");
        let one = registry.breaker(&key, |breaker| breaker.consecutive_failures(1)).expect("room");
        let other = registry.breaker(&key, |breaker| breaker).expect("room");
        one.acquire().expect("closed").failure("no answer");
        assert_eq!((other.state(), other.name()), (State::Open, "billing/write"));
        assert!(registry.find_breaker("billing").is_none());
        assert!(registry.find_breaker("billing/write").is_some());
    }

    #[test]
    fn the_snapshot_is_sorted_by_name() {
        let registry = Registry::new();
        for name in ["c", "a/write", "b", "a/read"] {
            registry.breaker(&Key::new(name), |breaker| breaker).expect("room");
        }
        let names: Vec<_> =
            registry.snapshot().breakers.into_iter().map(|breaker| breaker.name).collect();
        assert_eq!(names, ["a/read", "a/write", "b", "c"].map(Arc::<str>::from));
    }

    #[test]
    fn an_idle_closed_breaker_that_remembers_nothing_makes_way() {
        assert!(makes_way(&full_of(|_| {})));
        let succeeded = |breaker: &Breaker| breaker.acquire().expect("closed").success();
        assert!(makes_way(&full_of(succeeded)));
        assert!(makes_way(&full_of(|breaker| {
            breaker.acquire().expect("closed").failure("once");
            succeeded(breaker);
        })));
    }

    #[test]
    fn an_open_breaker_never_makes_way() {
        assert!(!makes_way(&full_of(|breaker| {
            for _ in 0..3 {
                breaker.acquire().expect("closed").failure("no answer");
            }
        })));
        assert!(!makes_way(&full_of(Breaker::force_open)));
        assert!(!makes_way(&full_of(Breaker::force_closed)));
    }

    #[test]
    fn a_breaker_that_remembers_a_failure_never_makes_way() {
        assert!(!makes_way(&full_of(|breaker| {
            breaker.acquire().expect("closed").failure("once");
        })));
    }

    #[test]
    fn a_breaker_whose_window_holds_calls_makes_way_when_they_have_left_it() {
        let clock = ManualClock::new();
        let registry = Registry::with_capacity(1);
        let rates = |breaker: BreakerBuilder| {
            breaker.failure_rate(0.5).window(Duration::from_secs(10)).clock(clock.clone())
        };
        let watched = registry.breaker(&Key::new("watched"), rates).expect("room");
        watched.acquire().expect("closed").failure("once");
        drop(watched);
        assert!(!makes_way(&registry));
        clock.advance(Duration::from_secs(11));
        assert!(makes_way(&registry));
    }

    #[test]
    fn a_busy_breaker_never_makes_way() {
        let mut permit = None;
        let registry = full_of(|breaker| permit = breaker.acquire_owned().ok());
        assert!(!makes_way(&registry));
        permit.expect("closed").success();
        assert!(makes_way(&registry));
    }
}
