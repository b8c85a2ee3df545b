//! What to answer when the live answer can't be had: a chain, read as it is written.
#![doc = include_str!("../../docs/fallback.md")]

mod each;
mod last_known;

pub use each::{Each, live_each};
pub use last_known::{LastKnown, Remembered};

use std::hash::Hash;
use std::time::Duration;

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// From the dependency, now.
    Live,
    /// From the dependency, a while ago.
    LastKnown {
        /// The time since it was live.
        age: Duration,
    },
    /// From nowhere: it was declared for such cases.
    Declared,
}

impl Source {
    /// Whether it is what the dependency says now.
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Live)
    }

    /// `live`, `last_known` or `declared`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::LastKnown { .. } => "last_known",
            Self::Declared => "declared",
        }
    }
}

/// A value, and how it was come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<T, E> {
    /// The value.
    pub value: T,
    /// Where it comes from.
    pub source: Source,
    /// Why it isn't live; none when it is.
    pub error: Option<E>,
}

/// A chain of fallbacks, as far as it is written: begun by [`live`].
#[derive(Clone, Debug)]
#[must_use = "a chain ends with `or_declared` or `into_result`"]
pub struct Chain<T, E> {
    found: Result<Answer<T, E>, E>,
}

/// Begins a chain with the live answer. Every error leads to the next link.
pub fn live<T, E>(result: Result<T, E>) -> Chain<T, E> {
    Chain { found: result.map(|value| Answer { value, source: Source::Live, error: None }) }
}

/// Begins a chain with the live answer, unless it is an error that is an answer itself: "there is no
/// such thing" must not be hidden by an old value.
///
/// ```
/// use resilience::fallback::{self, LastKnown};
///
/// #[derive(Debug, PartialEq)]
/// enum Failure { NotFound, Unavailable }
///
/// fn price(known: &LastKnown<&str, u32>, live: Result<u32, Failure>) -> Result<u32, Failure> {
///     let price = fallback::live_unless(live, |error| *error == Failure::NotFound)?
///         .or_last_known(known, &"tea")
///         .or_declared(3);
///     Ok(price.value)
/// }
///
/// let known = LastKnown::new(1000);
/// assert_eq!(price(&known, Ok(4)), Ok(4));
/// assert_eq!(price(&known, Err(Failure::Unavailable)), Ok(4));
/// assert_eq!(price(&known, Err(Failure::NotFound)), Err(Failure::NotFound));
/// ```
///
/// # Errors
///
/// The error, where it is an answer.
pub fn live_unless<T, E>(
    result: Result<T, E>,
    is_answer: impl FnOnce(&E) -> bool,
) -> Result<Chain<T, E>, E> {
    match result {
        Err(error) if is_answer(&error) => Err(error),
        result => Ok(live(result)),
    }
}

impl<T, E> Chain<T, E> {
    /// Else the last known good value of this key. A live one is remembered under it.
    pub fn or_last_known<K>(self, known: &LastKnown<K, T>, key: &K) -> Self
    where
        K: Hash + Eq + Clone,
        T: Clone,
    {
        let found = match self.found {
            Ok(answer) => {
                if answer.source.is_live() {
                    known.remember(key.clone(), answer.value.clone());
                }
                Ok(answer)
            }
            Err(error) => match known.recall(key) {
                Some(Remembered { value, age }) => {
                    Ok(Answer { value, source: Source::LastKnown { age }, error: Some(error) })
                }
                None => Err(error),
            },
        };
        Self { found }
    }

    /// Else this value: the end of the chain.
    pub fn or_declared(self, value: T) -> Answer<T, E> {
        self.found.unwrap_or_else(|error| Answer {
            value,
            source: Source::Declared,
            error: Some(error),
        })
    }

    /// Else the error: the end of the chain.
    ///
    /// # Errors
    ///
    /// The error of the live answer, when nothing has replaced it.
    pub fn into_result(self) -> Result<Answer<T, E>, E> {
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::ManualClock;

    #[test]
    fn live_then_last_known_then_declared() {
        let clock = ManualClock::new();
        let known = LastKnown::new(10).max_age(Duration::from_mins(1)).clock(clock.clone());
        let ask = |answer: Result<u32, &'static str>| {
            live(answer).or_last_known(&known, &"tea").or_declared(0)
        };
        let declared = Answer { value: 0, source: Source::Declared, error: Some("away") };
        assert_eq!(ask(Err("away")), declared);
        assert_eq!(ask(Ok(7)), Answer { value: 7, source: Source::Live, error: None });

        clock.advance(Duration::from_mins(1));
        let source = Source::LastKnown { age: Duration::from_mins(1) };
        let last = Answer { value: 7, source, error: Some("away") };
        assert_eq!(ask(Err("away")), last);
        assert_eq!(ask(Err("away")), last, "recalling it doesn't make it younger");

        clock.advance(Duration::from_secs(1));
        assert_eq!(ask(Err("away")), declared, "too old");
    }

    #[test]
    fn the_first_source_that_has_it_wins() {
        let (near, far) = (LastKnown::new(10), LastKnown::new(10));
        far.remember("tea", 1);
        let both = |answer: Result<u32, &'static str>| {
            live(answer).or_last_known(&near, &"tea").or_last_known(&far, &"tea").into_result()
        };
        assert_eq!(both(Err("away")).map(|answer| answer.value), Ok(1));
        near.remember("tea", 2);
        assert_eq!(both(Err("away")).map(|answer| answer.value), Ok(2));
        assert_eq!(far.recall(&"tea").map(|known| known.value), Some(1), "only live ones are kept");
        assert_eq!(both(Ok(3)).map(|answer| answer.value), Ok(3));
        assert_eq!(far.recall(&"tea").map(|known| known.value), Some(3));
    }

    #[test]
    fn a_chain_without_an_end_value_ends_with_the_error() {
        let known = LastKnown::<_, u32>::new(10);
        assert_eq!(live(Err("away")).or_last_known(&known, &1).into_result(), Err("away"));
    }

    #[test]
    fn an_error_that_is_an_answer_is_not_hidden() {
        let known = LastKnown::new(10);
        known.remember("tea", 1);
        let ask = |error: &'static str| {
            let chain = live_unless(Err(error), |error| *error == "not found")?;
            Ok(chain.or_last_known(&known, &"tea").or_declared(0).value)
        };
        assert_eq!(ask("not found"), Err("not found"));
        assert_eq!(ask("away"), Ok(1));
    }
}
