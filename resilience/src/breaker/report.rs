//! What a breaker says about itself.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The state of a [`Breaker`](super::Breaker).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum State {
    /// Calls go through.
    Closed,
    /// Calls are rejected.
    Open,
    /// One call at a time goes through, to see whether the dependency is back.
    HalfOpen,
}

impl State {
    /// `closed`, `open` or `half_open`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A call that the breaker didn't let through. Its text is fit for users.
#[derive(Clone, Debug)]
pub struct Rejection {
    /// The breaker's name.
    pub breaker: Arc<str>,
    /// [`State::Open`] or [`State::HalfOpen`].
    pub state: State,
    /// What the last failure was.
    pub reason: Option<Arc<str>>,
    /// The time until a call has a chance. While half-open nobody knows when the probe will
    /// return: it is then half a second, or less where the probe's lease ends before.
    pub retry_after: Duration,
}

impl Rejection {
    /// The text, with another name for what is unavailable.
    pub(crate) fn explain(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{name} is unavailable")?;
        if let Some(reason) = &self.reason {
            write!(f, ": {reason}")?;
        }
        match self.state {
            State::HalfOpen => {
                f.write_str(" (circuit breaker half-open, a trial call is under way)")
            }
            State::Open | State::Closed => {
                let rounded_up = u64::from(self.retry_after.subsec_nanos() > 0);
                let seconds = self.retry_after.as_secs().saturating_add(rounded_up).max(1);
                write!(f, " (circuit breaker open, next attempt in {seconds} s)")
            }
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.explain(&self.breaker, f)
    }
}

impl std::error::Error for Rejection {}

/// A [`Breaker`](super::Breaker) at one moment.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Snapshot {
    /// The breaker's name.
    pub name: Arc<str>,
    /// Its state.
    pub state: State,
    /// When this state began.
    pub since: SystemTime,
    /// What the last failure was; nothing once the breaker has closed after it.
    pub reason: Option<Arc<str>>,
    /// While it isn't closed: the time until a call has a chance, see [`Rejection::retry_after`].
    /// Zero when the next call will be let through as a probe.
    pub retry_after: Option<Duration>,
    /// Results that came too late, from before a change of state, and decided nothing.
    pub stale: u64,
    /// Calls that were not let through.
    pub rejected: u64,
    /// Permits that were dropped without a result.
    pub abandoned: u64,
}
