//! The seam for failure policies. The only module that knows `failsafe`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use failsafe::failure_policy::{self, ConsecutiveFailures};

use crate::random::Random;

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
/// Mind that `failsafe`'s growing waits know whole seconds only, and panic below one; and that its
/// windowed policy looks at the system's clock, whatever the breaker's is.
pub trait FailurePolicy {
    /// A call succeeded while the breaker was closed.
    fn on_success(&mut self);

    /// A call failed, while closed or as a probe. `Some` opens the breaker for that long; a
    /// failed probe opens it in any case, with `None` for as long as the breaker's own settings say.
    fn on_failure(&mut self) -> Option<Duration>;

    /// The breaker is closed anew, after a successful probe or a reset: start afresh.
    fn on_closed(&mut self);

    /// Whether a success would change nothing now. It is not reported then, and costs no lock. The
    /// default is false: every success counts.
    fn is_settled(&self) -> bool {
        false
    }
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

/// `failsafe`'s failures in a row, which knows when a success would change nothing.
pub(super) struct Consecutive {
    policy: ConsecutiveFailures<Waits>,
    row: u32,
}

impl Consecutive {
    /// Of a row that may have begun under another limit.
    pub(super) fn new(failures: u32, waits: &Waits, row: u32) -> Self {
        let failures = failures.max(1);
        let mut policy = failure_policy::consecutive_failures(failures, waits.clone());
        // One less than the limit: it opens with the next failure, not with the reconfiguration.
        for _ in 0..row.min(failures - 1) {
            let _below_the_limit = failsafe::FailurePolicy::mark_dead_on_failure(&mut policy);
        }
        Self { policy, row }
    }
}

impl FailurePolicy for Consecutive {
    fn on_success(&mut self) {
        self.row = 0;
        FailurePolicy::on_success(&mut self.policy);
    }

    fn on_failure(&mut self) -> Option<Duration> {
        self.row = self.row.saturating_add(1);
        FailurePolicy::on_failure(&mut self.policy)
    }

    fn on_closed(&mut self) {
        self.row = 0;
        FailurePolicy::on_closed(&mut self.policy);
    }

    fn is_settled(&self) -> bool {
        self.row == 0
    }
}

/// Where no result by itself opens the breaker: rates are judged by the machine, which has the
/// window.
pub(super) struct Nothing;

impl FailurePolicy for Nothing {
    fn on_success(&mut self) {}

    fn on_failure(&mut self) -> Option<Duration> {
        None
    }

    fn on_closed(&mut self) {}

    fn is_settled(&self) -> bool {
        true
    }
}

/// For how long the breaker opens: the first time for the first wait, then, while probes go on
/// failing, for a random time between that and twice as long each time, up to a cap.
///
/// Endless, and clones go on where the others are. Not `failsafe::backoff`: that cuts to whole
/// seconds, panics below one, and takes its jitter from a global source.
#[derive(Clone)]
pub(super) struct Waits {
    first: Duration,
    longest: Duration,
    grown: Arc<AtomicU32>,
    random: Arc<Random>,
}

impl Waits {
    pub(super) fn new(first: Duration, longest: Duration, random: Arc<Random>) -> Self {
        Self { first, longest: longest.max(first), grown: Arc::default(), random }
    }

    /// The same place in the row of waits, of other lengths.
    pub(super) fn with_lengths(&self, first: Duration, longest: Duration) -> Self {
        Self { first, longest: longest.max(first), ..self.clone() }
    }

    pub(super) fn first(&self) -> Duration {
        self.first
    }

    /// Begins with the first wait again.
    pub(super) fn restart(&self) {
        self.grown.store(0, Ordering::Relaxed);
    }
}

impl Iterator for Waits {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let times = self.grown.fetch_add(1, Ordering::Relaxed).min(31);
        let bound = self.first.saturating_mul(1 << times).min(self.longest);
        Some(self.first + self.random.up_to(bound.saturating_sub(self.first)))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_with_jitter_to_their_cap_and_begin_anew() {
        let (first, longest) = (Duration::from_millis(1500), Duration::from_secs(20));
        let mut waits = Waits::new(first, longest, Arc::new(Random::seeded(1)));
        for _ in 0..3 {
            assert_eq!(waits.next(), Some(first), "to the millisecond: no cut to whole seconds");
            let mut grown = Duration::ZERO;
            for times in 1..100_u32 {
                let wait = waits.next().expect("endless");
                let bound = first.saturating_mul(1 << times.min(31)).min(longest);
                assert!(first <= wait && wait <= bound, "{times}: {wait:?}");
                grown = grown.max(wait);
            }
            assert!(grown > longest / 2, "{grown:?}");
            waits.restart();
        }
    }

    #[test]
    fn waits_below_a_second_do_not_panic() {
        let half = Duration::from_millis(500);
        let waits = Waits::new(half, Duration::ZERO, Arc::default());
        assert!(waits.take(100).all(|wait| wait == half));
    }
}
