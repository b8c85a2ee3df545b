use std::collections::HashMap;
use std::hash::Hash;

use super::last_known::{LastKnown, Remembered};
use super::{Answer, Source};

/// The values of many keys out of one live answer, with a fallback for each: begun by
/// [`live_each`].
#[derive(Debug)]
pub struct Each<'a, K, V, E> {
    live: Result<HashMap<K, V>, E>,
    known: Option<&'a LastKnown<K, V>>,
}

/// Begins a chain with a live answer that holds the values of many keys.
///
/// ```
/// use resilience::fallback::{self, LastKnown, Source};
///
/// let prices = LastKnown::new(1000);
/// let live: Result<_, &str> = Ok([("tea", 4), ("milk", 1)]);
/// let now = fallback::live_each(live).or_last_known(&prices);
/// assert_eq!(now.get(&"tea").map(|price| price.value), Some(4));
/// assert!(now.get(&"coffee").is_none(), "there is none");
///
/// let later = fallback::live_each(Err::<[_; 0], _>("connection refused")).or_last_known(&prices);
/// assert_eq!(later.error(), Some(&"connection refused"));
/// let milk = later.get(&"milk").unwrap();
/// assert!(milk.value == 1 && !milk.source.is_live());
/// ```
pub fn live_each<'a, K, V, E, I>(result: Result<I, E>) -> Each<'a, K, V, E>
where
    K: Hash + Eq,
    I: IntoIterator<Item = (K, V)>,
{
    Each { live: result.map(|values| values.into_iter().collect()), known: None }
}

impl<'a, K: Hash + Eq + Clone, V: Clone, E> Each<'a, K, V, E> {
    /// Else the last known good value of each key. Live ones are remembered.
    #[must_use]
    pub fn or_last_known(mut self, known: &'a LastKnown<K, V>) -> Self {
        if let Ok(live) = &self.live {
            for (key, value) in live {
                known.remember(key.clone(), value.clone());
            }
        }
        self.known = Some(known);
        self
    }

    /// The value of this key: none when the live answer has none, or nothing is known of it.
    pub fn get(&self, key: &K) -> Option<Answer<V, &E>> {
        match &self.live {
            Ok(live) => {
                let value = live.get(key)?.clone();
                Some(Answer { value, source: Source::Live, error: None })
            }
            Err(error) => {
                let Remembered { value, age } = self.known?.recall(key)?;
                Some(Answer { value, source: Source::LastKnown { age }, error: Some(error) })
            }
        }
    }

    /// Why there is no live answer; none when there is.
    pub fn error(&self) -> Option<&E> {
        self.live.as_ref().err()
    }
}
