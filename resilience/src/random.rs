//! Where the library gets its random numbers from, so that a run can be repeated.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Random numbers for spreading things in time: not for secrets.
///
/// Shared by reference; each call takes the next number. The generator is `SplitMix64`
/// (Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014).
///
/// ```
/// use resilience::Random;
///
/// let (one, other) = (Random::seeded(7), Random::seeded(7));
/// assert_eq!(one.next_u64(), other.next_u64());
/// ```
#[derive(Debug)]
pub struct Random {
    state: AtomicU64,
}

/// 2⁶⁴ over the golden ratio: the step of `SplitMix64`.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Random {
    /// Different in each process and for each generator, by the operating system's randomness.
    pub fn new() -> Self {
        Self::seeded(RandomState::new().hash_one(STEP))
    }

    /// The same numbers for the same seed.
    pub const fn seeded(seed: u64) -> Self {
        Self { state: AtomicU64::new(seed) }
    }

    /// The next number.
    pub fn next_u64(&self) -> u64 {
        let mut mixed = self.state.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to 1, without 1.
    pub fn fraction(&self) -> f64 {
        // 53 bits are what a double holds exactly.
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
        let part = |bits: u64| bits as f64;
        part(self.next_u64() >> 11) / part(1 << 53)
    }

    /// A random part of this duration.
    pub fn up_to(&self, longest: Duration) -> Duration {
        longest.mul_f64(self.fraction())
    }
}

impl Default for Random {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_published_generator() {
        // The first numbers for the seed 1234567, as in the reference implementation.
        let random = Random::seeded(1_234_567);
        let first = [random.next_u64(), random.next_u64(), random.next_u64()];
        assert_eq!(
            first,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn parts_are_spread_over_the_whole() {
        let random = Random::seeded(1);
        let parts: Vec<_> = (0..1000).map(|_| random.up_to(Duration::from_secs(1))).collect();
        assert!(parts.iter().all(|part| *part < Duration::from_secs(1)));
        assert!(parts.iter().any(|part| *part < Duration::from_millis(20)));
        assert!(parts.iter().any(|part| *part > Duration::from_millis(980)));
    }
}
