use std::fmt;
use std::time::Duration;

use crate::breaker::Rejection;
use crate::bulkhead::BulkheadFull;

/// A call through a [`Pipeline`](super::Pipeline) that brought no value.
///
/// Its text is fit for users, if the operation's own error is.
#[derive(Clone, Debug)]
pub struct Error<E> {
    kind: ErrorKind<E>,
    attempts: u32,
    sent: bool,
}

type Boxed = Box<dyn std::error::Error + Send + Sync>;

/// An error of any type, that is one itself: see [`Error::boxed`].
#[derive(Debug)]
pub struct AnyError(Boxed);

impl AnyError {
    /// What is in it.
    pub fn into_inner(self) -> Box<dyn std::error::Error + Send + Sync> {
        self.0
    }
}

impl fmt::Display for AnyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for AnyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

/// What became of the last attempt.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ErrorKind<E> {
    /// The breaker let nothing through.
    Rejected(Rejection),
    /// There were too many calls in flight.
    BulkheadFull(BulkheadFull),
    /// No time was left to make it: less than a millisecond.
    DeadlineExceeded,
    /// It didn't end in time.
    TimedOut {
        /// The time that it was given.
        limit: Duration,
        /// Whether that was what the call's deadline left, less than its own timeout. This says
        /// nothing about the dependency, and the breaker ignores it, unless there is no such
        /// timeout and it took longer than the breaker's slow threshold.
        inherited: bool,
    },
    /// It was made, and failed.
    Failed(E),
}

impl<E> Error<E> {
    pub(super) fn new(kind: ErrorKind<E>, attempts: u32, sent: bool) -> Self {
        Self { kind, attempts, sent }
    }

    /// The operation failed before it was tried.
    #[cfg(feature = "tower")]
    pub(crate) fn unready(error: E) -> Self {
        Self::new(ErrorKind::Failed(error), 0, false)
    }

    /// What became of the last attempt.
    pub fn kind(&self) -> &ErrorKind<E> {
        &self.kind
    }

    /// What became of the last attempt.
    pub fn into_kind(self) -> ErrorKind<E> {
        self.kind
    }

    /// The same, with another error of the operation.
    pub fn map<F>(self, f: impl FnOnce(E) -> F) -> Error<F> {
        let kind = match self.kind {
            ErrorKind::Rejected(rejection) => ErrorKind::Rejected(rejection),
            ErrorKind::BulkheadFull(full) => ErrorKind::BulkheadFull(full),
            ErrorKind::DeadlineExceeded => ErrorKind::DeadlineExceeded,
            ErrorKind::TimedOut { limit, inherited } => ErrorKind::TimedOut { limit, inherited },
            ErrorKind::Failed(error) => ErrorKind::Failed(f(error)),
        };
        Error { kind, attempts: self.attempts, sent: self.sent }
    }

    /// In a box, whatever the operation's own error is. For most that is what `?` and `into` do, but
    /// not for one that is boxed itself, as those of `tower` are: it is no [`std::error::Error`]. In
    /// the box is an `Error<AnyError>`.
    pub fn boxed(self) -> Boxed
    where
        E: Into<Boxed>,
    {
        self.map(|error| AnyError(error.into())).into()
    }

    /// How often the operation was tried; zero when something came before it.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Whether any attempt may have had an effect. False is a promise: nothing was tried, or each
    /// failure was [without effect](crate::retry::Advice::without_effect).
    pub fn may_have_had_effect(&self) -> bool {
        self.sent
    }
}

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl<E: std::error::Error> std::error::Error for Error<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            // Its text is the text of this one already.
            ErrorKind::Failed(error) => error.source(),
            _ => None,
        }
    }
}

impl<E: fmt::Display> fmt::Display for ErrorKind<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(rejection) => rejection.fmt(f),
            Self::BulkheadFull(full) => full.fmt(f),
            Self::DeadlineExceeded => f.write_str("no time is left"),
            Self::TimedOut { limit, inherited: true } => {
                write!(f, "no answer within the {} ms left", limit.as_millis())
            }
            Self::TimedOut { limit, inherited: false } => NoAnswer(*limit).fmt(f),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

/// The text for an answer that didn't come in time.
pub(crate) struct NoAnswer(pub(crate) Duration);

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no answer within {} ms", self.0.as_millis())
    }
}
