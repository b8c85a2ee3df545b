use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::http::StatusCode;

use crate::breaker::Rejection;

/// A call that didn't bring what was asked for. Its text is fit for users: no addresses.
#[derive(Clone)]
pub struct CallError {
    // Boxed: results are passed up through many hands, and most of them are fine.
    inner: Box<Inner>,
}

#[derive(Clone)]
struct Inner {
    /// The system that was called.
    called: Arc<str>,
    kind: ErrorKind,
    effect: Effect,
}

/// Whether a failed call may have changed something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Certainly not: it was never sent, or refused.
    None,
    /// It may have, or may still: undo it, or ask again under the same id.
    Unknown,
}

/// What went wrong.
#[derive(Clone, Debug)]
pub enum ErrorKind {
    /// The request couldn't be built (a header value, a body): a defect of the caller's. Nothing
    /// was sent.
    Invalid(String),
    /// The breaker let nothing through.
    Rejected(Rejection),
    /// There was no connection, so nothing was sent.
    Connect(String),
    /// Less than a millisecond was left, so nothing was sent.
    DeadlineExceeded,
    /// No complete answer in time.
    TimedOut {
        /// The time that it was given.
        limit: Duration,
        /// Whether that was the request's deadline, shorter than the call's own timeout.
        inherited: bool,
    },
    /// The connection was reset or closed after sending.
    Lost(String),
    /// An answer that this service wouldn't give: rubbish, or something in between.
    Unreadable(String),
    /// No, and for good: a 4xx with one of the client's final codes.
    Refused(Refusal),
    /// Not now: 401, 429, or an earlier request with the same idempotency key is still running.
    Busy(Refusal),
    /// The service that was called is fine, but one further down failed it.
    Downstream(Refusal),
    /// The service that was called failed: a 5xx.
    Unavailable(Refusal),
}

/// What a service said when it didn't do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status of the answer.
    pub status: StatusCode,
    /// The code of the error body, for programs.
    pub code: Option<String>,
    /// The message of the error body, for people.
    pub message: Option<String>,
    /// The system further down that is at fault: `X-Failed-Dependency`.
    pub dependency: Option<String>,
    /// When to come back: `Retry-After`, where it is in seconds.
    pub retry_after: Option<Duration>,
}

impl CallError {
    pub(super) fn new(called: &Arc<str>, kind: ErrorKind, no_effect_codes: &[&str]) -> Self {
        let effect = effect(&kind, no_effect_codes);
        Self { inner: Box::new(Inner { called: Arc::clone(called), kind, effect }) }
    }

    /// What went wrong.
    pub fn kind(&self) -> &ErrorKind {
        &self.inner.kind
    }

    /// Whether the call may have changed something.
    pub fn effect(&self) -> Effect {
        self.inner.effect
    }

    /// The system at fault: the one further down that the answer names, else the one called.
    pub fn dependency(&self) -> &str {
        let named = self.refusal().and_then(|refusal| refusal.dependency.as_deref());
        named.unwrap_or(&self.inner.called)
    }

    /// The time after which it is worth trying again, where somebody said so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self.kind() {
            ErrorKind::Rejected(rejection) => Some(rejection.retry_after()),
            _ => self.refusal()?.retry_after,
        }
    }

    /// The code of the error body.
    pub fn code(&self) -> Option<&str> {
        self.refusal()?.code.as_deref()
    }

    /// Whether this is a business answer: the service works, and says no.
    pub fn is_refused(&self) -> bool {
        matches!(self.kind(), ErrorKind::Refused(_))
    }

    /// What the service said, where it said something: a business answer or another.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self.kind() {
            ErrorKind::Refused(refusal)
            | ErrorKind::Busy(refusal)
            | ErrorKind::Downstream(refusal)
            | ErrorKind::Unavailable(refusal) => Some(refusal),
            _ => None,
        }
    }
}

fn effect(kind: &ErrorKind, no_effect_codes: &[&str]) -> Effect {
    match kind {
        ErrorKind::Invalid(_)
        | ErrorKind::Rejected(_)
        | ErrorKind::Connect(_)
        | ErrorKind::DeadlineExceeded
        | ErrorKind::Refused(_) => Effect::None,
        ErrorKind::Downstream(refusal) | ErrorKind::Unavailable(refusal) => {
            match refusal.code.as_deref() {
                Some(code) if no_effect_codes.contains(&code) => Effect::None,
                _ => Effect::Unknown,
            }
        }
        ErrorKind::TimedOut { .. }
        | ErrorKind::Lost(_)
        | ErrorKind::Unreadable(_)
        | ErrorKind::Busy(_) => Effect::Unknown,
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let called = &self.inner.called;
        match self.kind() {
            ErrorKind::Invalid(what) => write!(f, "the request to {called} is invalid: {what}"),
            ErrorKind::Rejected(rejection) => rejection.explain(called, f),
            ErrorKind::DeadlineExceeded => write!(f, "no time is left to ask {called}"),
            ErrorKind::TimedOut { limit, inherited: true } => {
                write!(f, "{called} gave no answer within the {} ms left", limit.as_millis())
            }
            ErrorKind::TimedOut { limit, inherited: false } => {
                write!(f, "{called} is unavailable: {}", NoAnswer(*limit))
            }
            ErrorKind::Connect(reason)
            | ErrorKind::Lost(reason)
            | ErrorKind::Unreadable(reason) => {
                write!(f, "{called} is unavailable: {reason}")
            }
            // It explains its own answer, and its own dependency, better than we could.
            ErrorKind::Refused(Refusal { message: Some(message), .. })
            | ErrorKind::Downstream(Refusal { message: Some(message), .. }) => f.write_str(message),
            ErrorKind::Refused(refusal) => {
                write!(f, "{called} refused: answered {}", refusal.status.as_u16())
            }
            ErrorKind::Busy(refusal) => {
                write!(f, "{called} is busy: answered {}", refusal.status.as_u16())
            }
            ErrorKind::Downstream(_) => write!(f, "{} is unavailable", self.dependency()),
            ErrorKind::Unavailable(refusal) => {
                write!(f, "{called} is unavailable: answered {}", refusal.status.as_u16())
            }
        }
    }
}

impl fmt::Debug for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallError")
            .field("called", &self.inner.called)
            .field("kind", &self.inner.kind)
            .field("effect", &self.inner.effect)
            .finish()
    }
}

impl std::error::Error for CallError {}

/// The text for an answer that didn't come in time.
pub(super) struct NoAnswer(pub(super) Duration);

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no answer within {} ms", self.0.as_millis())
    }
}
