//! A sliding window over time: a ring of slices per lane, without locks.

use super::cursor::Cursor;
use crate::sync::{AtomicU64, Ordering, add, fence};

/// The window slides in steps of a sixteenth of its length.
pub(super) const SLICES: u64 = SLOTS as u64;

const SLOTS: usize = 16;

const EMPTY: u64 = u64::MAX;
const SLICE_BITS: u32 = 44;

/// A slice of the breaker's time, of one filling of the window.
#[derive(Clone, Copy)]
pub(super) struct Slice {
    pub(super) number: u64,
    /// Raised when the window is emptied, or cut into slices of another width.
    pub(super) epoch: u64,
}

impl Slice {
    fn tag(self) -> u64 {
        self.epoch << SLICE_BITS | self.number & ((1 << SLICE_BITS) - 1)
    }
}

/// One lane's part. Written by the lane's thread alone.
pub(super) struct Window {
    pub(super) cursor: Cursor,
    slots: [Slot; SLOTS],
}

struct Slot {
    tag: AtomicU64,
    calls: AtomicU64,
    failures: AtomicU64,
    slow: AtomicU64,
}

/// What the window holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct WindowCounts {
    /// Calls that ended with a success or a failure.
    pub calls: u64,
    /// Those that failed.
    pub failures: u64,
    /// Those that took longer than the slow threshold.
    pub slow: u64,
}

impl WindowCounts {
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            calls: self.calls + other.calls,
            failures: self.failures + other.failures,
            slow: self.slow + other.slow,
        }
    }
}

impl Default for Window {
    fn default() -> Self {
        let slot = |_| Slot {
            tag: AtomicU64::new(EMPTY),
            calls: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            slow: AtomicU64::new(0),
        };
        Self { cursor: Cursor::default(), slots: std::array::from_fn(slot) }
    }
}

impl Slot {
    #[cold]
    fn recycle(&self, tag: u64) {
        // Marked while its numbers change, so that no reader takes some of the old ones.
        self.tag.store(EMPTY, Ordering::Relaxed);
        fence(Ordering::Release);
        for counter in [&self.calls, &self.failures, &self.slow] {
            counter.store(0, Ordering::Relaxed);
        }
        self.tag.store(tag, Ordering::Release);
    }
}

impl Window {
    #[inline]
    fn slot(&self, slice: u64) -> &Slot {
        &self.slots[usize::try_from(slice % SLICES).unwrap_or_default()]
    }

    #[inline(always)]
    pub(super) fn record(&self, slice: Slice, failed: bool, slow: bool) {
        let slot = self.slot(slice.number);
        if slot.tag.load(Ordering::Relaxed) != slice.tag() {
            slot.recycle(slice.tag());
        }
        // In this order: whoever sees a failure sees its call.
        add(&slot.calls, 1, Ordering::Release);
        if failed {
            add(&slot.failures, 1, Ordering::Release);
        }
        if slow {
            add(&slot.slow, 1, Ordering::Release);
        }
    }

    /// This lane's part of the window that ends with the present slice.
    pub(super) fn counts(&self, present: Slice) -> WindowCounts {
        let first = present.number.saturating_sub(SLICES - 1);
        (first..=present.number).fold(WindowCounts::default(), |sum, number| {
            let slot = self.slot(number);
            let tag = Slice { number, ..present }.tag();
            if slot.tag.load(Ordering::Acquire) != tag {
                return sum;
            }
            let slow = slot.slow.load(Ordering::Acquire);
            let failures = slot.failures.load(Ordering::Acquire);
            let calls = slot.calls.load(Ordering::Acquire);
            fence(Ordering::Acquire);
            if slot.tag.load(Ordering::Relaxed) != tag {
                return sum;
            }
            sum.plus(WindowCounts { calls, failures, slow })
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn at(number: u64) -> Slice {
        Slice { number, epoch: 1 }
    }

    #[test]
    fn it_slides_slice_by_slice() {
        let window = Window::default();
        for number in 0..40 {
            window.record(at(number), number % 2 == 0, number % 4 == 0);
            let held = (number + 1).min(SLICES);
            assert_eq!(window.counts(at(number)).calls, held);
        }
        for gone in 0..SLICES {
            assert_eq!(window.counts(at(39 + gone)).calls, SLICES - gone);
        }
        assert_eq!(window.counts(at(39 + SLICES)), WindowCounts::default());
        let counts = window.counts(at(39));
        assert_eq!((counts.failures, counts.slow), (SLICES / 2, SLICES / 4));
    }

    #[test]
    fn another_epoch_is_another_window() {
        let window = Window::default();
        window.record(at(3), true, false);
        let next = Slice { epoch: 2, ..at(3) };
        assert_eq!(window.counts(next), WindowCounts::default());
        window.record(next, false, false);
        assert_eq!(window.counts(next).calls, 1);
        assert_eq!(window.counts(at(3)), WindowCounts::default());
    }
}
