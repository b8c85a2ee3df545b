//! What a call's result says about the dependency.
#![doc = include_str!("../docs/classify.md")]

use std::borrow::Cow;

/// What a call's result says about the dependency's health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It did what it was asked, or said no as it should.
    Success,
    /// It failed. The reason is shown to users while the breaker is open: no addresses, no
    /// internals.
    Failure(Cow<'static, str>),
    /// Nothing: the call was never made, or ended for a cause of the caller's.
    Ignored,
}

/// Tells what results say about a dependency. Every `Fn(&R) -> Verdict` does.
///
/// ```
/// use resilience::{Breaker, Classify, State, Verdict};
///
/// #[derive(Debug)]
/// enum Failure { NotFound, Overloaded, NoTime }
///
/// fn classify(result: &Result<u32, Failure>) -> Verdict {
///     match result {
///         // An answer, if not the one that was hoped for: the dependency is fine.
///         Ok(_) | Err(Failure::NotFound) => Verdict::Success,
///         Err(Failure::Overloaded) => Verdict::Failure("overloaded".into()),
///         Err(Failure::NoTime) => Verdict::Ignored,
///     }
/// }
///
/// let breaker = Breaker::builder("billing").build();
/// for _ in 0..10 {
///     let result = breaker.call_with(&classify, || Err(Failure::NotFound));
///     assert!(result.is_err());
/// }
/// assert_eq!(breaker.state(), State::Closed);
/// ```
pub trait Classify<R: ?Sized> {
    /// What this result says.
    fn classify(&self, result: &R) -> Verdict;
}

impl<R: ?Sized, F: Fn(&R) -> Verdict> Classify<R> for F {
    fn classify(&self, result: &R) -> Verdict {
        self(result)
    }
}
