use std::time::Duration;

/// Whether a call that ended like this should be made again.
///
/// ```
/// use resilience::retry::Advice;
/// use std::time::Duration;
///
/// // Overloaded, and asks for a pause. Whether it did something isn't known.
/// let overloaded = Advice::retry().after(Duration::from_secs(1));
/// // No connection: nothing was sent, so even what isn't idempotent may be repeated.
/// let refused = Advice::retry().without_effect();
/// // The answer is no.
/// let not_found = Advice::never();
/// # let _ = (overloaded, refused, not_found);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advice {
    kind: Kind,
    after: Option<Duration>,
    without_effect: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Never,
    Downstream,
    Retry,
}

impl Advice {
    const fn new(kind: Kind) -> Self {
        Self { kind, after: None, without_effect: false }
    }

    /// It is over: it went well, or another attempt would end in the same way.
    pub const fn never() -> Self {
        Self::new(Kind::Never)
    }

    /// The one that was called is fine, and names a system further down that isn't. Never repeated:
    /// whoever calls that system has done so already, and if each hop did it again the system would
    /// get a multiple of its traffic just when it can bear it least.
    pub const fn downstream() -> Self {
        Self::new(Kind::Downstream)
    }

    /// Another attempt may end better. What isn't [idempotent](crate::call::Idempotency) is
    /// repeated only [without an effect](Self::without_effect).
    pub const fn retry() -> Self {
        Self::new(Kind::Retry)
    }

    /// Not before this has passed: what the other side asked for, such as `Retry-After`.
    #[must_use]
    pub const fn after(mut self, wait: Duration) -> Self {
        self.after = Some(wait);
        self
    }

    /// It is certain that nothing has happened, because nothing was sent or all of it was refused.
    #[must_use]
    pub const fn without_effect(mut self) -> Self {
        self.without_effect = true;
        self
    }

    /// For an attempt that can't be followed by another one.
    #[cfg(feature = "tower")]
    pub(crate) fn for_the_last(mut self) -> Self {
        if self.is_retry() {
            self.kind = Kind::Never;
        }
        self
    }

    /// Whether another attempt may end better.
    pub const fn is_retry(self) -> bool {
        matches!(self.kind, Kind::Retry)
    }

    /// Whether a system further down is at fault.
    pub const fn is_downstream(self) -> bool {
        matches!(self.kind, Kind::Downstream)
    }

    /// Whether it is certain that nothing has happened.
    pub const fn is_without_effect(self) -> bool {
        self.without_effect
    }

    /// The least wait before the next attempt, where the other side asked for one.
    pub const fn wait(self) -> Option<Duration> {
        self.after
    }
}

/// An error that knows whether it is worth another attempt.
///
/// There is no blanket implementation, and `?` converts nothing silently: an error is repeated only
/// where its type says so.
pub trait Retryable {
    /// Whether a call that failed like this should be made again.
    fn advice(&self) -> Advice;
}

/// Tells which results are worth another attempt. Every `Fn(&R) -> Advice` does.
///
/// It sees the whole result: with some clients, a 503 is an `Ok`.
pub trait Advise<R: ?Sized> {
    /// What to do after this result.
    fn advise(&self, result: &R) -> Advice;

    /// What to do after an attempt that took longer than it may, and so has no result. The default
    /// is to make another, if the call is idempotent.
    fn advise_on_timeout(&self) -> Advice {
        Advice::retry()
    }
}

impl<R: ?Sized, F: Fn(&R) -> Advice> Advise<R> for F {
    fn advise(&self, result: &R) -> Advice {
        self(result)
    }
}

/// Leaves it to the error: the usual [`Advise`].
pub fn by_error<T, E: Retryable>(result: &Result<T, E>) -> Advice {
    result.as_ref().map_or_else(E::advice, |_| Advice::never())
}

/// Repeats nothing: an [`Advise`] for errors that know nothing of retries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Never;

impl<R: ?Sized> Advise<R> for Never {
    fn advise(&self, _: &R) -> Advice {
        Advice::never()
    }

    fn advise_on_timeout(&self) -> Advice {
        Advice::never()
    }
}
