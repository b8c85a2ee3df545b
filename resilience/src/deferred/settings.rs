//! How the calls of a kind are carried out.

use std::time::Duration;

use super::ledger::LONGEST;
use crate::breaker::Breaker;
use crate::retry::Backoff;

/// How the calls of one kind are carried out.
///
/// ```
/// use resilience::Backoff;
/// use resilience::deferred::Settings;
/// use std::time::Duration;
///
/// let settings = Settings::new()
///     .attempts(5)
///     .backoff(Backoff::new().initial(Duration::from_secs(2)))
///     .concurrency(4)
///     .timeout(Duration::from_secs(5));
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Settings {
    pub(super) attempts: u32,
    pub(super) backoff: Backoff,
    pub(super) longest_retry_after: Duration,
    pub(super) concurrency: u32,
    pub(super) timeout: Duration,
    pub(super) lease: Duration,
    pub(super) breaker: Option<Breaker>,
}

impl Settings {
    /// 10 attempts that count, waits from 1 s to a minute between them, 16 calls at a time, each of
    /// 10 s at the most, under a lease of 15 s, behind a breaker of its own with the default
    /// settings.
    pub fn new() -> Self {
        Self {
            attempts: 10,
            backoff: Backoff::new()
                .initial(Duration::from_secs(1))
                .max_interval(Duration::from_mins(1)),
            longest_retry_after: Duration::from_mins(1),
            concurrency: 16,
            timeout: Duration::from_secs(10),
            lease: Duration::from_secs(15),
            breaker: None,
        }
    }

    /// How many attempts may fail before the call is parked; 0 counts as 1. An attempt that ended
    /// with [`Unavailable`](super::HandlerError::Unavailable) or
    /// [`NotYet`](super::HandlerError::NotYet) isn't counted. The default is 10.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// The waits between attempts. The default is 1 s at first, doubled up to a minute.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// What is heeded at the most when a handler asks for a pause (`retry_after`). The default is a
    /// minute.
    pub fn longest_retry_after(mut self, longest: Duration) -> Self {
        self.longest_retry_after = longest;
        self
    }

    /// How many calls of this kind one process makes at a time; 0 counts as 1. The default is 16.
    pub fn concurrency(mut self, calls: u32) -> Self {
        self.concurrency = calls.max(1);
        self
    }

    /// How long one attempt may take. It is cut off then, and has failed. More than nothing; the
    /// default is 10 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long whoever carries a call out may stay silent until somebody else takes over: after a
    /// crash the call is idle for that long. A live one extends it every third of it. At least a
    /// second; the default is 15 s.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease.max(Duration::from_secs(1));
        self
    }

    /// What stops this kind while its dependency is away: nothing is carried out while it is open,
    /// but one call at a time that probes. Give its probes a longer lease than
    /// [`timeout`](Self::timeout). The default is a breaker with the default settings, named as the
    /// kind is.
    pub fn breaker(mut self, breaker: Breaker) -> Self {
        self.breaker = Some(breaker);
        self
    }

    /// The first of its times that can't be one.
    pub(super) fn impossible(&self) -> Option<&'static str> {
        let possible = |time: Duration| !time.is_zero() && time <= LONGEST;
        [("timeout", self.timeout), ("lease", self.lease)]
            .into_iter()
            .find_map(|(name, time)| (!possible(time)).then_some(name))
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::new()
    }
}
