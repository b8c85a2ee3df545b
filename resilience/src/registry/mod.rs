//! All breakers, bulkheads and retry budgets of a process, by dependency and class of operation.
#![doc = include_str!("../../docs/registry.md")]

mod key;
mod shelf;

use std::fmt;
use std::sync::Arc;

use crate::breaker::{self, Breaker, BreakerBuilder};
#[cfg(feature = "pipeline")]
use crate::bulkhead::{Bulkhead, BulkheadBuilder, BulkheadSnapshot};
#[cfg(feature = "pipeline")]
use crate::retry::{RetryBudget, RetryBudgetBuilder, RetryBudgetSnapshot};
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
    #[cfg(feature = "pipeline")]
    bulkheads: Shelf<Bulkhead>,
    #[cfg(feature = "pipeline")]
    retry_budgets: Shelf<RetryBudget>,
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
    /// Its bulkheads.
    #[cfg(feature = "pipeline")]
    pub bulkheads: Vec<BulkheadSnapshot>,
    /// Its retry budgets.
    #[cfg(feature = "pipeline")]
    pub retry_budgets: Vec<RetryBudgetSnapshot>,
}

impl Registry {
    /// Room for 1024 of each kind.
    pub fn new() -> Self {
        Self::with_capacity(CAPACITY)
    }

    /// Room for this many of each kind (at least one).
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            inner: Arc::new(Inner {
                breakers: Shelf::new(capacity),
                #[cfg(feature = "pipeline")]
                bulkheads: Shelf::new(capacity),
                #[cfg(feature = "pipeline")]
                retry_budgets: Shelf::new(capacity),
            }),
        }
    }

    /// The breaker for this key, which is its name. The first time it is made with the settings
    /// that `configure` adds; later ones are ignored: to change them, use
    /// [`Breaker::reconfigure`].
    ///
    /// # Errors
    ///
    /// When there are as many as there may be, and each is held or listened to by somebody,
    /// open, reconfigured, or remembers something.
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

    /// The bulkhead for this key, which is its name. The first time it is made for this many calls
    /// and with what `configure` adds; later ones are ignored: to change the limit, use
    /// [`Bulkhead::resize`].
    ///
    /// # Errors
    ///
    /// When there are as many as there may be, and each is held by somebody or was resized.
    #[cfg(feature = "pipeline")]
    pub fn bulkhead(
        &self,
        key: &Key,
        limit: usize,
        configure: impl FnOnce(BulkheadBuilder) -> BulkheadBuilder,
    ) -> Result<Bulkhead, RegistryFull> {
        let make = |key: &Key| configure(Bulkhead::builder(key.as_str(), limit)).build();
        self.inner.bulkheads.get_or_make(key, make)
    }

    /// All bulkheads, sorted by key.
    #[cfg(feature = "pipeline")]
    pub fn bulkheads(&self) -> Vec<(Key, Bulkhead)> {
        self.inner.bulkheads.all()
    }

    /// The retry budget for this key, which is its name. The first time it is made with what
    /// `configure` adds; later ones are ignored.
    ///
    /// # Errors
    ///
    /// When there are as many as there may be, and each is held by somebody or has something in its
    /// window.
    #[cfg(feature = "pipeline")]
    pub fn retry_budget(
        &self,
        key: &Key,
        configure: impl FnOnce(RetryBudgetBuilder) -> RetryBudgetBuilder,
    ) -> Result<RetryBudget, RegistryFull> {
        let make = |key: &Key| configure(RetryBudget::builder(key.as_str())).build();
        self.inner.retry_budgets.get_or_make(key, make)
    }

    /// All retry budgets, sorted by key.
    #[cfg(feature = "pipeline")]
    pub fn retry_budgets(&self) -> Vec<(Key, RetryBudget)> {
        self.inner.retry_budgets.all()
    }

    /// Everything in it, at this moment.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            breakers: self.inner.breakers.snapshots(Breaker::snapshot),
            #[cfg(feature = "pipeline")]
            bulkheads: self.inner.bulkheads.snapshots(Bulkhead::snapshot),
            #[cfg(feature = "pipeline")]
            retry_budgets: self.inner.retry_budgets.snapshots(RetryBudget::snapshot),
        }
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let breakers = self.inner.breakers.snapshots(Breaker::clone);
        f.debug_struct("Registry").field("breakers", &breakers).finish_non_exhaustive()
    }
}

impl Member for Breaker {
    const KIND: &'static str = "breakers";

    fn is_dispensable(&self) -> bool {
        Self::is_dispensable(self)
    }
}

#[cfg(feature = "pipeline")]
impl Member for Bulkhead {
    const KIND: &'static str = "bulkheads";

    fn is_dispensable(&self) -> bool {
        Self::is_dispensable(self)
    }
}

#[cfg(feature = "pipeline")]
impl Member for RetryBudget {
    const KIND: &'static str = "retry budgets";

    fn is_dispensable(&self) -> bool {
        Self::is_dispensable(self)
    }
}

#[cfg(test)]
mod tests;
