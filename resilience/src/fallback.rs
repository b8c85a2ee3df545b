//! The last known good value, for when the live one can't be had.

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
///
/// let prices = LastKnown::new(1000);
/// prices.remember("tea", 4);
/// assert_eq!(prices.recall(&"tea").map(|known| known.value), Some(4));
/// assert!(prices.recall(&"coffee").is_none());
/// ```
pub struct LastKnown<K, V> {
    cache: Cache<K, Stored<V>>,
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
        Self { cache: Cache::new(capacity.max(1)) }
    }

    /// Keeps this as the last good value of its key.
    pub fn remember(&self, key: K, value: V) {
        self.cache.insert(key, Stored { value, at: SystemClock.now() });
    }

    /// The last good value of this key, where there is one still.
    pub fn recall(&self, key: &K) -> Option<Remembered<V>> {
        let Stored { value, at } = self.cache.get(key)?;
        Some(Remembered { value, age: SystemClock.now().saturating_duration_since(at) })
    }
}

impl<K, V> fmt::Debug for LastKnown<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the values: they may be anybody's.
        f.debug_struct("LastKnown").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_value_grows_old_and_is_renewed() {
        let known = LastKnown::new(10);
        known.remember("a", 1);
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(known.recall(&"a"), Some(Remembered { value: 1, age: Duration::from_secs(3) }));
        known.remember("a", 2);
        assert_eq!(known.recall(&"a"), Some(Remembered { value: 2, age: Duration::ZERO }));
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
