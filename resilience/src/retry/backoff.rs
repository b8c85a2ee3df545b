//! Waits between attempts. The only module that knows `backoff`.

use std::sync::Arc;
use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;

use crate::random::Random;

/// The least first interval: with zero, growing would lead nowhere and a loop would spin.
const MIN_INITIAL: Duration = Duration::from_millis(1);

/// How the waits between attempts grow: exponentially, with full jitter.
///
/// The n-th wait is anything between zero and `initial × multiplierⁿ⁻¹`, or `max_interval` where
/// that is less. Full jitter spreads those who failed together over the whole interval (Brooker:
/// Exponential Backoff And Jitter, AWS Architecture Blog, 2015).
///
/// ```
/// use resilience::{Backoff, Random};
/// use std::time::Duration;
///
/// let backoff = Backoff::new()
///     .initial(Duration::from_millis(50))
///     .multiplier(2.0)
///     .max_interval(Duration::from_secs(1))
///     .random(Random::seeded(7));
/// assert!(backoff.delays().take(100).all(|delay| delay <= Duration::from_secs(1)));
/// ```
#[derive(Clone, Debug)]
pub struct Backoff {
    initial: Duration,
    multiplier: f64,
    max_interval: Duration,
    random: Arc<Random>,
}

impl Backoff {
    /// First interval 100 ms, doubled each time, up to 5 s; a generator of its own.
    pub fn new() -> Self {
        Self {
            initial: Duration::from_millis(100),
            multiplier: 2.0,
            max_interval: Duration::from_secs(5),
            random: Arc::default(),
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

    /// Where the jitter comes from. Clones share it.
    #[must_use]
    pub fn random(mut self, random: impl Into<Arc<Random>>) -> Self {
        self.random = random.into();
        self
    }

    /// The waits of one run of attempts. Endless: whoever repeats bounds the attempts.
    pub fn delays(&self) -> Delays {
        let initial = self.initial.min(self.max_interval);
        let growth = ExponentialBackoff {
            current_interval: initial,
            initial_interval: initial,
            // Its jitter is around the interval, beyond the maximum too, and of a generator that
            // can't be chosen. So it only grows here.
            randomization_factor: 0.0,
            multiplier: self.multiplier,
            max_interval: self.max_interval,
            // Its clock serves this limit alone, and so decides nothing.
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        Delays { growth, max_interval: self.max_interval, random: Arc::clone(&self.random) }
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}

/// An endless iterator over the waits of a [`Backoff`].
#[derive(Debug)]
pub struct Delays {
    growth: ExponentialBackoff,
    max_interval: Duration,
    random: Arc<Random>,
}

impl Iterator for Delays {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        // It ends with a limit of elapsed time only, and there is none.
        let bound = self.growth.next_backoff().unwrap_or(self.max_interval);
        Some(self.random.up_to(bound.min(self.max_interval)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// The bound of each wait, found by the largest of many.
    fn bounds(backoff: &Backoff, waits: usize) -> Vec<Duration> {
        let runs: Vec<Vec<_>> = (0..4000).map(|_| backoff.delays().take(waits).collect()).collect();
        let largest = |n: usize| runs.iter().map(|run| run[n]).max().expect("runs");
        (0..waits).map(largest).collect()
    }

    #[test]
    fn jitter_never_exceeds_the_max_interval() {
        let backoff = Backoff::new().initial(ms(10)).multiplier(3.0).max_interval(ms(70));
        for _ in 0..200 {
            assert!(backoff.delays().take(20).all(|delay| delay <= ms(70)));
        }
    }

    #[test]
    fn jitter_is_full_and_the_bound_grows() {
        let backoff = Backoff::new().initial(ms(100)).max_interval(ms(400));
        let backoff = backoff.random(Random::seeded(1));
        for (bound, expected) in bounds(&backoff, 4).into_iter().zip([100, 200, 400, 400]) {
            assert!(bound <= ms(expected) && bound > ms(expected) * 99 / 100, "{bound:?}");
        }
        let smallest = (0..1000).filter_map(|_| backoff.delays().next()).min();
        assert!(smallest.is_some_and(|least| least < ms(1)), "{smallest:?}");
    }

    #[test]
    fn waits_of_half_a_second_and_of_one_and_a_half_are_not_cut_to_whole_seconds() {
        let backoff = Backoff::new().initial(ms(500)).multiplier(3.0).random(Random::seeded(1));
        let [half, more] = bounds(&backoff, 2).try_into().expect("two");
        assert!(half > ms(490) && half <= ms(500), "{half:?}");
        assert!(more > ms(1480) && more <= ms(1500), "{more:?}");
    }

    #[test]
    fn the_same_seed_gives_the_same_waits() {
        let waits = |seed| {
            let backoff = Backoff::new().random(Random::seeded(seed));
            backoff.delays().take(20).collect::<Vec<_>>()
        };
        assert_eq!(waits(7), waits(7));
        assert_ne!(waits(7), waits(8));
    }

    #[test]
    fn senseless_settings_are_bent_into_sense() {
        let backoff = Backoff::new()
            .initial(Duration::ZERO)
            .multiplier(f64::NAN)
            .max_interval(Duration::ZERO);
        assert!(backoff.delays().take(100).all(|delay| delay <= ms(1)));
        assert!(backoff.delays().take(100).any(|delay| delay > Duration::ZERO));
        // A first interval above the maximum is cut to it.
        let backoff = Backoff::new().initial(ms(900)).max_interval(ms(10));
        assert!(backoff.delays().take(100).all(|delay| delay <= ms(10)));
    }
}
