//! The seam for failure policies. The only module that knows `failsafe`.

use std::iter;
use std::time::Duration;

use failsafe::failure_policy::{self, ConsecutiveFailures};

/// Decides when a breaker opens, and for how long.
///
/// Called under the breaker's lock: quick, and without calling the breaker. Every policy of
/// `failsafe` is one already:
///
/// ```
/// use failsafe::{backoff, failure_policy};
/// use resilience::Breaker;
/// use std::time::Duration;
///
/// let waits = backoff::equal_jittered(Duration::from_secs(6), Duration::from_secs(60));
/// let breaker = Breaker::builder("billing")
///     .policy(failure_policy::consecutive_failures(3, waits))
///     .build();
/// ```
///
/// Mind that `failsafe`'s growing waits know whole seconds only, and panic below one.
pub trait FailurePolicy {
    /// A call succeeded while the breaker was closed.
    fn on_success(&mut self);

    /// A call failed, while closed or as a probe. `Some` opens the breaker for that long; a
    /// failed probe opens it in any case, with `None` for as long as the last time.
    fn on_failure(&mut self) -> Option<Duration>;

    /// The breaker has closed after a successful probe: start afresh.
    fn on_closed(&mut self);
}

impl<P: failsafe::FailurePolicy> FailurePolicy for P {
    fn on_success(&mut self) {
        self.record_success();
    }

    fn on_failure(&mut self) -> Option<Duration> {
        self.mark_dead_on_failure()
    }

    fn on_closed(&mut self) {
        self.revived();
    }
}

pub(super) fn consecutive_failures(
    failures: u32,
    open_for: Duration,
) -> ConsecutiveFailures<iter::Repeat<Duration>> {
    // Not `backoff::exponential` and the like: they cut to whole seconds, and panic below one.
    failure_policy::consecutive_failures(failures, iter::repeat(open_for))
}
