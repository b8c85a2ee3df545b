//! How sagas are carried out.

use std::time::Duration;

use crate::retry::Backoff;

/// How the sagas of a runtime are carried out.
#[derive(Clone, Debug)]
#[must_use]
pub struct Settings {
    pub(super) lease: Duration,
    pub(super) timeout: Duration,
    pub(super) attempts: u32,
    pub(super) backoff: Backoff,
    pub(super) concurrency: u32,
}

impl Settings {
    /// A lease of 3 s; 10 s for each action and each undo at the most; 20 attempts that count, with
    /// waits from 100 ms to a second between them, at what could not be ended at once, 16 of those at
    /// a time.
    pub fn new() -> Self {
        Self {
            lease: Duration::from_secs(3),
            timeout: Duration::from_secs(10),
            attempts: 20,
            backoff: Backoff::new()
                .initial(Duration::from_millis(100))
                .max_interval(Duration::from_secs(1)),
            concurrency: 16,
        }
    }

    /// How long whoever runs a saga may stay silent until somebody else takes over: after a crash the
    /// saga is idle for that long. A live one extends it every third of it. At least 100 ms, and at
    /// most an hour; the default is 3 s.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease.clamp(Duration::from_millis(100), Duration::from_hours(1));
        self
    }

    /// How long one action or one undo may take. It is cut off then, and its effect is unknown. A
    /// runtime isn't built with one of nothing, or of more than a thousand years. The default is 10 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How often an undo, or an action behind the pivot, may fail before the saga is stuck; 0 counts
    /// as 1. An attempt that ended with [`Unavailable`](crate::deferred::HandlerError::Unavailable) or
    /// [`NotYet`](crate::deferred::HandlerError::NotYet) isn't counted. The default is 20.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// The waits between these attempts. The default is 100 ms at first, doubled up to a second.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// How many undos, and how many interrupted sagas, one process carries out at a time in the
    /// background; 0 counts as 1. The default is 16.
    pub fn concurrency(mut self, concurrency: u32) -> Self {
        self.concurrency = concurrency.max(1);
        self
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::new()
    }
}
