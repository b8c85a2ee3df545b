//! Delays between attempts. The only module that knows `backoff`.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff;

/// The least first interval: with zero, growing would lead nowhere and a loop would spin.
const MIN_INITIAL: Duration = Duration::from_millis(1);

/// How the waits between attempts grow: exponentially, with full jitter.
///
/// The n-th wait is anything between zero and `initial × multiplierⁿ`, or `max_interval` where
/// that is less. Full jitter spreads those who failed together over the whole interval.
///
/// ```
/// use resilience::RetryPolicy;
/// use std::time::Duration;
///
/// let policy = RetryPolicy::new()
///     .initial(Duration::from_millis(50))
///     .multiplier(2.0)
///     .max_interval(Duration::from_secs(1));
/// assert!(policy.delays().take(100).all(|delay| delay <= Duration::from_secs(1)));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    initial: Duration,
    multiplier: f64,
    max_interval: Duration,
}

impl RetryPolicy {
    /// First interval 100 ms, doubled each time, up to 5 s.
    pub fn new() -> Self {
        Self {
            initial: Duration::from_millis(100),
            multiplier: 2.0,
            max_interval: Duration::from_secs(5),
        }
    }

    /// The bound of the first wait; less than a millisecond counts as one.
    #[must_use]
    pub fn initial(mut self, initial: Duration) -> Self {
        self.initial = initial.max(MIN_INITIAL);
        self
    }

    /// What the bound is multiplied with each time; less than 1, or no number, counts as 1.
    #[must_use]
    pub fn multiplier(mut self, multiplier: f64) -> Self {
        self.multiplier = if multiplier.is_finite() { multiplier.max(1.0) } else { 1.0 };
        self
    }

    /// What no wait ever exceeds; less than a millisecond counts as one.
    #[must_use]
    pub fn max_interval(mut self, max_interval: Duration) -> Self {
        self.max_interval = max_interval.max(MIN_INITIAL);
        self
    }

    /// The waits of one run of attempts. Endless: whoever retries bounds the attempts.
    pub fn delays(&self) -> Delays {
        let initial = self.initial.min(self.max_interval);
        // `backoff` jitters *around* its interval. With a factor of 1 that is 0 to twice the
        // interval, so half of ours makes its jitter the full one.
        let backoff = ExponentialBackoff {
            current_interval: initial / 2,
            initial_interval: initial / 2,
            randomization_factor: 1.0,
            multiplier: self.multiplier,
            max_interval: self.max_interval / 2,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        Delays { backoff, max_interval: self.max_interval }
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self::new()
    }
}

/// An endless iterator over the waits of a [`RetryPolicy`].
#[derive(Debug)]
pub struct Delays {
    backoff: ExponentialBackoff,
    max_interval: Duration,
}

impl Iterator for Delays {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        // It ends with a limit of elapsed time only, and there is none. Its rounding can exceed
        // the bound by a nanosecond.
        let delay = self.backoff.next_backoff().unwrap_or(self.max_interval);
        Some(delay.min(self.max_interval))
    }
}

/// A random part of this duration, for spreading what would happen at the same moment.
pub(crate) fn jitter(up_to: Duration) -> Duration {
    RetryPolicy::new().initial(up_to).max_interval(up_to).delays().next().unwrap_or(up_to)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn jitter_never_exceeds_the_max_interval() {
        let policy = RetryPolicy::new().initial(ms(10)).multiplier(3.0).max_interval(ms(70));
        for _ in 0..200 {
            assert!(policy.delays().take(20).all(|delay| delay <= ms(70)));
        }
    }

    #[test]
    fn jitter_is_full_and_the_bound_grows() {
        let policy = RetryPolicy::new().initial(ms(100)).multiplier(2.0).max_interval(ms(400));
        let runs: Vec<Vec<Duration>> =
            (0..2000).map(|_| policy.delays().take(4).collect()).collect();
        for (attempt, bound) in [100_u32, 200, 400, 400].into_iter().enumerate() {
            let bound = Duration::from_millis(bound.into());
            let least = runs.iter().map(|run| run[attempt]).min().expect("runs");
            let most = runs.iter().map(|run| run[attempt]).max().expect("runs");
            assert!(least < bound / 10, "attempt {attempt}: at least {least:?} of {bound:?}");
            // A nanosecond more is `backoff`'s rounding.
            let limit = bound + Duration::from_nanos(2);
            assert!(most > bound * 9 / 10 && most <= limit, "attempt {attempt}: up to {most:?}");
        }
    }

    #[test]
    fn senseless_settings_are_bent_into_sense() {
        let policy = RetryPolicy::new()
            .initial(Duration::ZERO)
            .multiplier(f64::NAN)
            .max_interval(Duration::ZERO);
        assert!(policy.delays().take(100).all(|delay| delay <= ms(1)));
        assert!(policy.delays().take(100).any(|delay| delay > Duration::ZERO));
        // A first interval above the maximum is cut to it.
        let policy = RetryPolicy::new().initial(ms(900)).max_interval(ms(10));
        assert!(policy.delays().take(100).all(|delay| delay <= ms(10)));
    }
}
