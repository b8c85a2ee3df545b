use std::fmt;
use std::hash::Hash;
use std::time::{Duration, Instant};

use quick_cache::sync::Cache;

use crate::clock::{Clock, SystemClock};

/// Remembers the last good value per key, for a bounded number of keys.
///
/// Values are cloned out: wrap what is large in an [`Arc`](std::sync::Arc).
///
/// ```
/// use resilience::LastKnown;
/// use std::time::Duration;
///
/// let prices = LastKnown::new(1000).max_age(Duration::from_hours(1));
/// prices.remember("tea", 4);
/// assert_eq!(prices.recall(&"tea").map(|known| known.value), Some(4));
/// assert!(prices.recall(&"coffee").is_none());
/// ```
pub struct LastKnown<K, V> {
    cache: Cache<K, Stored<V>>,
    max_age: Duration,
    clock: Box<dyn Clock>,
}

#[derive(Clone)]
struct Stored<V> {
    value: V,
    at: Instant,
}

/// A value out of a [`LastKnown`], and how old it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered<V> {
    /// The value, as it was.
    pub value: V,
    /// The time since it was remembered.
    pub age: Duration,
}

impl<K: Hash + Eq + Clone, V: Clone> LastKnown<K, V> {
    /// Room for this many keys (at least one). When it is full, the keys that were asked for least
    /// make way.
    pub fn new(capacity: usize) -> Self {
        Self {
            cache: Cache::new(capacity.max(1)),
            max_age: Duration::MAX,
            clock: Box::new(SystemClock),
        }
    }

    /// What is older than this isn't recalled. The default is no limit.
    #[must_use]
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.max_age = max_age;
        self
    }

    /// Where the time comes from. The default is the [`SystemClock`].
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Box::new(clock);
        self
    }

    /// Keeps this as the last good value of its key.
    pub fn remember(&self, key: K, value: V) {
        self.cache.insert(key, Stored { value, at: self.clock.now() });
    }

    /// The last good value of this key, where there is one still, and not too old.
    pub fn recall(&self, key: &K) -> Option<Remembered<V>> {
        let Stored { value, at } = self.cache.get(key)?;
        let age = self.clock.now().saturating_duration_since(at);
        (age <= self.max_age).then_some(Remembered { value, age })
    }

    /// Forgets this key, whose value is known not to be good any more.
    pub fn forget(&self, key: &K) {
        self.cache.remove(key);
    }
}

impl<K, V> fmt::Debug for LastKnown<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the values: they may be anybody's.
        f.debug_struct("LastKnown").field("max_age", &self.max_age).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::ManualClock;

    #[test]
    fn a_value_grows_old_and_is_renewed() {
        let clock = ManualClock::new();
        let known = LastKnown::new(10).clock(clock.clone());
        known.remember("a", 1);
        clock.advance(Duration::from_secs(3));
        assert_eq!(known.recall(&"a"), Some(Remembered { value: 1, age: Duration::from_secs(3) }));
        known.remember("a", 2);
        assert_eq!(known.recall(&"a"), Some(Remembered { value: 2, age: Duration::ZERO }));
        known.forget(&"a");
        assert_eq!(known.recall(&"a"), None);
    }

    #[test]
    fn what_is_too_old_is_not_recalled() {
        let clock = ManualClock::new();
        let known = LastKnown::new(10).max_age(Duration::from_secs(3)).clock(clock.clone());
        known.remember("a", 1);
        clock.advance(Duration::from_secs(3));
        assert!(known.recall(&"a").is_some());
        clock.advance(Duration::from_millis(1));
        assert_eq!(known.recall(&"a"), None);
    }

    #[test]
    fn the_number_of_keys_is_bounded() {
        for capacity in [0, 1, 100] {
            let known = LastKnown::new(capacity);
            for key in 0..10_000 {
                known.remember(key, key);
            }
            let kept = (0..10_000).filter(|key| known.recall(key).is_some()).count();
            assert!((1..=capacity.max(1)).contains(&kept), "{kept} of {capacity}");
        }
    }
}
