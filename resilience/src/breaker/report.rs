//! What a breaker says about itself.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::window::WindowCounts;
use crate::sync::{Present, keep};

/// The state of a [`Breaker`](super::Breaker).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum State {
    /// Calls go through.
    Closed,
    /// Calls are rejected.
    Open,
    /// Some calls go through, one at a time unless it is set otherwise, to see whether the
    /// dependency is back.
    HalfOpen,
    /// An operator wants calls to be rejected.
    ForcedOpen,
    /// An operator wants calls to go through, whatever they come to.
    ForcedClosed,
}

impl State {
    /// `closed`, `open`, `half_open`, `forced_open` or `forced_closed`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::ForcedOpen => "forced_open",
            Self::ForcedClosed => "forced_closed",
        }
    }

    pub(super) const fn admits(self) -> bool {
        matches!(self, Self::Closed | Self::ForcedClosed)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why calls are rejected: made when the state changes, so that a rejection has only to point to it.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) name: Arc<str>,
    pub(super) state: State,
    pub(super) reason: Option<Arc<str>>,
    /// Until when calls are rejected without a look at anything else; nanoseconds since the
    /// breaker was built.
    pub(super) until: u64,
    /// The wait in nanoseconds, where its end is nobody's to know.
    pub(super) hint: u64,
}

/// While a probe is under way, how soon it is worth asking again, in nanoseconds. Not the probe's
/// lease: that is for probes that hang, and a healed dependency answers long before.
const PROBE_HINT: u64 = 500_000_000;

impl Facts {
    /// How long a call that came now has to wait, in nanoseconds.
    pub(super) fn wait(&self, now: u64) -> u64 {
        let left = self.until.saturating_sub(now);
        match self.state {
            State::Closed | State::ForcedClosed => 0,
            State::Open => left,
            State::HalfOpen => left.min(PROBE_HINT),
            State::ForcedOpen => self.hint,
        }
    }
}

/// A call that the breaker didn't let through. Its text is fit for users.
pub struct Rejection {
    facts: Present<Facts>,
    /// Nanoseconds: whole words only, so that a permit in the same place of a result stays in
    /// registers.
    retry_after: u64,
}

impl Clone for Rejection {
    fn clone(&self) -> Self {
        Self { facts: keep(&self.facts), retry_after: self.retry_after }
    }
}

impl Rejection {
    pub(super) fn new(facts: Present<Facts>, now: u64) -> Self {
        let retry_after = facts.wait(now);
        Self { facts, retry_after }
    }

    /// The breaker's name.
    pub fn breaker(&self) -> &str {
        &self.facts.name
    }

    /// [`State::Open`], [`State::HalfOpen`] or [`State::ForcedOpen`].
    pub fn state(&self) -> State {
        self.facts.state
    }

    /// What the last failure was.
    pub fn reason(&self) -> Option<&str> {
        self.facts.reason.as_deref()
    }

    /// The time until a call has a chance. While half-open nobody knows when the probe will
    /// return: it is then half a second, or less where the probe's lease ends before. While forced
    /// open nobody knows at all: it is then as long as the breaker opens for at first.
    pub fn retry_after(&self) -> Duration {
        Duration::from_nanos(self.retry_after)
    }

    /// The text, with another name for what is unavailable.
    pub(crate) fn explain(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{name} is unavailable")?;
        if let Some(reason) = self.reason() {
            write!(f, ": {reason}")?;
        }
        match self.state() {
            State::HalfOpen => {
                f.write_str(" (circuit breaker half-open, a trial call is under way)")
            }
            State::ForcedOpen => f.write_str(" (circuit breaker forced open by an operator)"),
            State::Open | State::Closed | State::ForcedClosed => {
                let seconds = self.retry_after.div_ceil(1_000_000_000).max(1);
                write!(f, " (circuit breaker open, next attempt in {seconds} s)")
            }
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.explain(self.breaker(), f)
    }
}

impl fmt::Debug for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejection")
            .field("breaker", &self.breaker())
            .field("state", &self.state())
            .field("reason", &self.reason())
            .field("retry_after", &self.retry_after())
            .finish_non_exhaustive()
    }
}

impl std::error::Error for Rejection {}

/// A [`Breaker`](super::Breaker) at one moment. Counts are since it was built; each call that was
/// let through ends in exactly one of `successes`, `failures`, `ignored`, `abandoned` and `stale`.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Snapshot {
    /// The breaker's name.
    pub name: Arc<str>,
    /// Its state.
    pub state: State,
    /// When this state began.
    pub since: SystemTime,
    /// What the last failure was; nothing once the breaker has closed after it.
    pub reason: Option<Arc<str>>,
    /// While it is open or half-open: the time until a call has a chance, see
    /// [`Rejection::retry_after`]. Zero when the next call will be let through as a probe.
    pub retry_after: Option<Duration>,
    /// Calls that were let through.
    pub calls: u64,
    /// Calls that are under way.
    pub in_flight: u64,
    /// Those that have been for longer than the slow threshold.
    pub hung: u64,
    /// Probes that are under way.
    pub probes: u32,
    /// Results that were successes.
    pub successes: u64,
    /// Results that were failures.
    pub failures: u64,
    /// Results that say nothing.
    pub ignored: u64,
    /// Permits that were dropped without a result.
    pub abandoned: u64,
    /// Results that came too late, from before a change of state, and decided nothing.
    pub stale: u64,
    /// Calls that were not let through.
    pub rejected: u64,
    /// How often it has opened.
    pub opened: u64,
    /// What the window holds, where a rate is watched.
    pub window: Option<WindowCounts>,
    /// Events that a subscriber was too slow for.
    pub dropped_events: u64,
}
