use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::http::StatusCode;

use super::exchange::Fault;
use crate::breaker::Rejection;
use crate::bulkhead::BulkheadFull;
use crate::pipeline::{self, Error, NoAnswer};
use crate::retry::Advice;

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

/// Whether a failed call has changed something.
///
/// Ordered by how much there is to undo: of several attempts at one call the greatest counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// Certainly not: it was never sent, or refused.
    None,
    /// It may have, or may still: undo it, or ask again under the same id.
    Unknown,
    /// It has: the answer began as a success does, and only the rest of it couldn't be read.
    Done,
}

/// What went wrong.
#[derive(Clone, Debug)]
pub enum ErrorKind {
    /// The request couldn't be built (a header value, a body): a defect of the caller's. Nothing
    /// was sent.
    Invalid(String),
    /// The breaker let nothing through.
    Rejected(Rejection),
    /// As many calls are in flight as there may be, so nothing was sent.
    BulkheadFull(BulkheadFull),
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
    /// The service that was called is fine: one further down failed it, or it says so by one of the
    /// client's [working codes](super::ClientBuilder::working_codes).
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
    pub(super) fn new(called: &Arc<str>, kind: ErrorKind, effect: Effect) -> Self {
        Self { inner: Box::new(Inner { called: Arc::clone(called), kind, effect }) }
    }

    /// What went wrong.
    pub fn kind(&self) -> &ErrorKind {
        &self.inner.kind
    }

    /// Whether the call has changed something.
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
        self.kind().refusal()
    }
}

impl ErrorKind {
    pub(super) fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal)
            | Self::Busy(refusal)
            | Self::Downstream(refusal)
            | Self::Unavailable(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// Names it for whoever looks at spans.
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid",
            Self::Rejected(_) => "rejected",
            Self::BulkheadFull(_) => "bulkhead_full",
            Self::Connect(_) => "connect",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::TimedOut { .. } => "timed_out",
            Self::Lost(_) => "lost",
            Self::Unreadable(_) => "unreadable",
            Self::Refused(_) => "refused",
            Self::Busy(_) => "busy",
            Self::Downstream(_) => "downstream",
            Self::Unavailable(_) => "unavailable",
        }
    }

    /// What an attempt that ended like this has changed. `accepted` says that its answer had begun
    /// as a success does.
    pub(super) fn effect(&self, accepted: bool, no_effect_codes: &[&str]) -> Effect {
        match self {
            Self::TimedOut { .. } | Self::Lost(_) | Self::Unreadable(_) if accepted => Effect::Done,
            Self::TimedOut { .. } | Self::Lost(_) | Self::Unreadable(_) => Effect::Unknown,
            // The earlier request that still runs may have its effect.
            Self::Busy(refusal) if refusal.status == StatusCode::CONFLICT => Effect::Unknown,
            // In the service's own words, it was turned away at the door: RFC 9110 (15.5.2) and
            // RFC 6585 (4). Something in between may have passed on what it then sent again.
            Self::Busy(refusal) if refusal.code.is_none() => Effect::Unknown,
            Self::Busy(_)
            | Self::Invalid(_)
            | Self::Rejected(_)
            | Self::BulkheadFull(_)
            | Self::Connect(_)
            | Self::DeadlineExceeded
            | Self::Refused(_) => Effect::None,
            Self::Downstream(refusal) | Self::Unavailable(refusal) => {
                match refusal.code.as_deref() {
                    Some(code) if no_effect_codes.contains(&code) => Effect::None,
                    _ => Effect::Unknown,
                }
            }
        }
    }
}

impl ErrorKind {
    /// Whether another attempt may end better.
    pub(super) fn advice(&self) -> Advice {
        let after = |advice: Advice, refusal: &Refusal| match refusal.retry_after {
            Some(wait) => advice.after(wait),
            None => advice,
        };
        match self {
            Self::Connect(_) | Self::Lost(_) | Self::Unreadable(_) | Self::TimedOut { .. } => {
                Advice::retry()
            }
            // Whatever the status: the one further down has been asked often enough.
            Self::Busy(refusal) | Self::Unavailable(refusal) if refusal.dependency.is_some() => {
                Advice::downstream()
            }
            // The same credentials would be refused again.
            Self::Busy(refusal) if refusal.status == StatusCode::UNAUTHORIZED => Advice::never(),
            Self::Busy(refusal) => after(Advice::retry(), refusal),
            Self::Unavailable(refusal) if is_passing(refusal) => after(Advice::retry(), refusal),
            Self::Downstream(_) => Advice::downstream(),
            Self::Invalid(_)
            | Self::Rejected(_)
            | Self::BulkheadFull(_)
            | Self::DeadlineExceeded
            | Self::Refused(_)
            | Self::Unavailable(_) => Advice::never(),
        }
    }
}

/// Whether a 5xx may be another answer next time: not one that says what it can't do at all, and
/// not one that wants more time than there is.
fn is_passing(refusal: &Refusal) -> bool {
    let passing = [
        StatusCode::INTERNAL_SERVER_ERROR,
        StatusCode::BAD_GATEWAY,
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::GATEWAY_TIMEOUT,
    ];
    passing.contains(&refusal.status) && !ran_out_of_time(refusal)
}

const DEADLINE_EXCEEDED: &str = "deadline_exceeded";

/// The service refused what it couldn't have finished in time.
pub(super) fn ran_out_of_time(refusal: &Refusal) -> bool {
    refusal.status == StatusCode::SERVICE_UNAVAILABLE
        && refusal.code.as_deref() == Some(DEADLINE_EXCEEDED)
}

impl From<Error<Fault>> for ErrorKind {
    fn from(error: Error<Fault>) -> Self {
        match error.into_kind() {
            pipeline::ErrorKind::Rejected(rejection) => Self::Rejected(rejection),
            pipeline::ErrorKind::BulkheadFull(full) => Self::BulkheadFull(full),
            pipeline::ErrorKind::DeadlineExceeded => Self::DeadlineExceeded,
            pipeline::ErrorKind::TimedOut { limit, inherited } => {
                Self::TimedOut { limit, inherited }
            }
            pipeline::ErrorKind::Failed(fault) => fault.kind,
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let called = &self.inner.called;
        match self.kind() {
            ErrorKind::Invalid(what) => write!(f, "the request to {called} is invalid: {what}"),
            ErrorKind::Rejected(rejection) => rejection.explain(called, f),
            ErrorKind::BulkheadFull(full) => {
                let limit = full.limit();
                write!(f, "{called} is busy: {limit} calls are in flight, as many as there may be")
            }
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
            ErrorKind::Unavailable(refusal) if ran_out_of_time(refusal) => {
                write!(f, "{called} was given too little time")
            }
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
