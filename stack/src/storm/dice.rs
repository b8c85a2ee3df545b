//! Chance that can be had again: a seed repeats its choices.

use std::time::Duration;

/// `SplitMix64`.
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    /// Those of one actor: what the others do doesn't change its choices.
    pub(super) fn of(seed: u64, actor: &str) -> Self {
        Self(actor.bytes().fold(seed, |state, byte| Self(state ^ u64::from(byte)).roll()))
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Less than `count`.
    pub(super) fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.roll() % count as u64).unwrap_or_default()
    }

    /// Any of them.
    pub(super) fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// One time of so many.
    pub(super) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// So many milliseconds.
    pub(super) fn millis(&mut self, (least, most): (usize, usize)) -> Duration {
        Duration::from_millis((least + self.below(most - least + 1)) as u64)
    }

    /// All of them, in any order.
    pub(super) fn shuffled<T: Copy>(&mut self, all: &[T]) -> Vec<T> {
        let mut deck = all.to_vec();
        for last in (1..deck.len()).rev() {
            deck.swap(last, self.below(last + 1));
        }
        deck
    }
}
