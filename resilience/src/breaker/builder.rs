use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::machine::Machine;
use super::policy::{self, FailurePolicy};
use super::{Breaker, Inner};
use crate::clock::{Clock, SystemClock};

/// Settings of a [`Breaker`]; made by [`Breaker::builder`].
#[must_use]
pub struct BreakerBuilder {
    name: String,
    policy: Box<dyn FailurePolicy + Send>,
    probe_lease: Duration,
    slow_call: Duration,
    clock: Box<dyn Clock>,
}

impl BreakerBuilder {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            policy: Box::new(policy::consecutive_failures(3, Duration::from_secs(6))),
            probe_lease: Duration::from_secs(10),
            slow_call: Duration::from_secs(2),
            clock: Box::new(SystemClock),
        }
    }

    /// Opens after this many failures in a row (0 counts as 1), for this long each time.
    /// The default is 3 failures and 6 seconds. Replaces an earlier [`policy`](Self::policy).
    pub fn consecutive_failures(self, failures: u32, open_for: Duration) -> Self {
        self.policy(policy::consecutive_failures(failures, open_for))
    }

    /// Decides when to open, and for how long: one of `failsafe`'s, or your own.
    pub fn policy(mut self, policy: impl FailurePolicy + Send + 'static) -> Self {
        self.policy = Box::new(policy);
        self
    }

    /// How long a probe may take before another call is let through in its place. Make it longer
    /// than a call's timeout. The default is 10 seconds.
    pub fn probe_lease(mut self, lease: Duration) -> Self {
        self.probe_lease = lease;
        self
    }

    /// A permit that is dropped without a result after more than this counts as a failure: somebody
    /// waited, and gave up. The default is 2 seconds.
    pub fn slow_call(mut self, threshold: Duration) -> Self {
        self.slow_call = threshold;
        self
    }

    /// Where the time comes from. The default is the [`SystemClock`]. Policies of `failsafe` that
    /// look at a clock (rates over a window) look at their own.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Box::new(clock);
        self
    }

    /// The breaker, closed.
    pub fn build(self) -> Breaker {
        Breaker {
            inner: Arc::new(Inner {
                name: self.name.into(),
                probe_lease: self.probe_lease,
                slow_call: self.slow_call,
                clock: self.clock,
                machine: Mutex::new(Machine::new(self.policy)),
                rejected: AtomicU64::new(0),
            }),
        }
    }
}

impl fmt::Debug for BreakerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BreakerBuilder")
            .field("name", &self.name)
            .field("probe_lease", &self.probe_lease)
            .field("slow_call", &self.slow_call)
            .finish_non_exhaustive()
    }
}
