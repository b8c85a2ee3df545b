//! How many calls have been in flight for how long, without a list of them.
//!
//! Time is cut into slices. A lane counts, per slice in which calls *started*, how many started
//! less how many ended; a call that ends on another thread counts there, with the slice of its
//! start, and the sum over all lanes is right. A call that started five slices ago is hung: a slice
//! is a quarter of the slow threshold, so it is so at the earliest when it has taken longer than
//! the threshold, and at the latest a quarter of it later.
//!
//! When the breaker closes, a new slice begins, so that calls from before are told from those after.
//! The one that it cuts short lets calls from before seem up to a quarter of the threshold older
//! than they are. They are shown, and open nothing.

use crate::sync::{AtomicI64, AtomicU64, Ordering, add_signed, fence};

/// A call is hung from the fifth slice after its own on: four whole ones are in between.
const AGE: u64 = 5;

/// A slice is a quarter of the threshold.
pub(super) const PER_THRESHOLD: u64 = 4;

/// More than [`AGE`]: what makes room for a new slice is hung already.
const SLOTS: usize = 8;

const EMPTY: u64 = u64::MAX;

/// What slices mean, for the whole breaker.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    /// Raised when slices get another width: what was counted before means nothing then.
    pub(super) number: u64,
    /// The first slice whose calls can open the breaker: those before began under an earlier
    /// generation.
    pub(super) era: u64,
}

/// One lane's part. Written by the lane's thread alone.
pub(super) struct Watch {
    plan: AtomicU64,
    era: AtomicU64,
    slots: [Slot; SLOTS],
    /// Of slices that have made room, of this era and of earlier ones.
    older: AtomicI64,
    ancient: AtomicI64,
}

struct Slot {
    slice: AtomicU64,
    net: AtomicI64,
}

/// Calls in flight for longer than the threshold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Hung {
    /// All of them.
    pub(super) all: i64,
    /// Those that count for opening.
    pub(super) recent: i64,
}

impl Default for Watch {
    fn default() -> Self {
        let slot = |_| Slot { slice: AtomicU64::new(EMPTY), net: AtomicI64::new(0) };
        Self {
            plan: AtomicU64::new(0),
            era: AtomicU64::new(0),
            slots: std::array::from_fn(slot),
            older: AtomicI64::new(0),
            ancient: AtomicI64::new(0),
        }
    }
}

impl Watch {
    /// Counts a call that starts now (`1`) or ends now (`-1`) and started in this slice.
    #[inline(always)]
    pub(super) fn add(&self, plan: Plan, slice: u64, n: i64) {
        if self.plan.load(Ordering::Relaxed) != plan.number
            || self.era.load(Ordering::Relaxed) != plan.era
        {
            self.follow(plan);
        }
        let slot = self.slot(slice);
        let present = slot.slice.load(Ordering::Relaxed);
        if present == slice {
            add_signed(&slot.net, n, Ordering::Relaxed);
        } else {
            self.add_beyond(plan, slice, n);
        }
    }

    #[cold]
    fn add_beyond(&self, plan: Plan, slice: u64, n: i64) {
        let slot = self.slot(slice);
        let present = slot.slice.load(Ordering::Relaxed);
        if present == EMPTY || present < slice {
            let net = slot.net.load(Ordering::Relaxed);
            // Marked while it changes: a reader misses what is on its way, and never counts it
            // twice, nor for another slice.
            slot.slice.store(EMPTY, Ordering::Relaxed);
            fence(Ordering::Release);
            slot.net.store(n, Ordering::Relaxed);
            if present != EMPTY {
                // After the fence: whoever sees it there sees that it isn't here any more.
                add_signed(self.beyond(plan, present), net, Ordering::Relaxed);
            }
            slot.slice.store(slice, Ordering::Release);
        } else {
            add_signed(self.beyond(plan, slice), n, Ordering::Relaxed);
        }
    }

    #[inline]
    fn slot(&self, slice: u64) -> &Slot {
        &self.slots[usize::try_from(slice % SLOTS as u64).unwrap_or_default()]
    }

    fn beyond(&self, plan: Plan, slice: u64) -> &AtomicI64 {
        if slice >= plan.era { &self.older } else { &self.ancient }
    }

    #[cold]
    fn follow(&self, plan: Plan) {
        if self.plan.load(Ordering::Relaxed) != plan.number {
            for slot in &self.slots {
                slot.net.store(0, Ordering::Relaxed);
                slot.slice.store(EMPTY, Ordering::Relaxed);
            }
            self.older.store(0, Ordering::Relaxed);
            self.ancient.store(0, Ordering::Relaxed);
            self.plan.store(plan.number, Ordering::Release);
        }
        if self.era.load(Ordering::Relaxed) != plan.era {
            let older = self.older.load(Ordering::Relaxed);
            self.older.store(0, Ordering::Relaxed);
            add_signed(&self.ancient, older, Ordering::Release);
            self.era.store(plan.era, Ordering::Release);
        }
    }

    /// This lane's part of the calls that are hung in the present slice.
    pub(super) fn hung(&self, plan: Plan, present: u64) -> Hung {
        if self.plan.load(Ordering::Acquire) != plan.number {
            return Hung::default();
        }
        // Before the slots, see `add_beyond`.
        let same_era = self.era.load(Ordering::Acquire) == plan.era;
        let ancient = self.ancient.load(Ordering::Acquire);
        let older = self.older.load(Ordering::Acquire);
        let mut hung = Hung { all: ancient + older, recent: if same_era { older } else { 0 } };
        for slot in &self.slots {
            let slice = slot.slice.load(Ordering::Acquire);
            if slice == EMPTY || slice + AGE > present {
                continue;
            }
            let net = slot.net.load(Ordering::Relaxed);
            fence(Ordering::Acquire);
            if slot.slice.load(Ordering::Relaxed) != slice {
                continue;
            }
            hung.all += net;
            if slice >= plan.era {
                hung.recent += net;
            }
        }
        hung
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const PLAN: Plan = Plan { number: 1, era: 0 };

    #[test]
    fn a_call_is_hung_from_the_fifth_slice_after_its_own() {
        let watch = Watch::default();
        watch.add(PLAN, 7, 1);
        for slice in 7..12 {
            assert_eq!(watch.hung(PLAN, slice), Hung::default(), "{slice}");
        }
        for slice in [12, 13, 100] {
            assert_eq!(watch.hung(PLAN, slice), Hung { all: 1, recent: 1 }, "{slice}");
        }
        watch.add(PLAN, 7, -1);
        assert_eq!(watch.hung(PLAN, 12), Hung::default());
    }

    #[test]
    fn what_made_room_is_still_counted_and_leaves_when_it_ends() {
        let watch = Watch::default();
        watch.add(PLAN, 0, 1);
        watch.add(PLAN, 8, 1);
        assert_eq!(watch.hung(PLAN, 8).all, 1);
        watch.add(PLAN, 0, -1);
        assert_eq!(watch.hung(PLAN, 8).all, 0);
        assert_eq!(watch.hung(PLAN, 13).all, 1);
    }

    #[test]
    fn a_call_may_end_on_another_lane() {
        let (one, other) = (Watch::default(), Watch::default());
        one.add(PLAN, 0, 1);
        other.add(PLAN, 0, -1);
        let sum = one.hung(PLAN, 9).all + other.hung(PLAN, 9).all;
        assert_eq!(sum, 0);
        // Also when one of them has forgotten the slice by then.
        one.add(PLAN, 8, 1);
        assert_eq!(one.hung(PLAN, 9).all + other.hung(PLAN, 9).all, 0);
    }

    #[test]
    fn calls_of_an_earlier_era_are_shown_and_open_nothing() {
        let watch = Watch::default();
        watch.add(PLAN, 0, 1);
        watch.add(PLAN, 3, 1);
        watch.add(PLAN, 9, 1);
        let next = Plan { era: 4, ..PLAN };
        assert_eq!(watch.hung(next, 14), Hung { all: 3, recent: 1 });
        watch.add(next, 9, -1);
        assert_eq!(watch.hung(next, 14), Hung { all: 2, recent: 0 });
        watch.add(next, 0, -1);
        watch.add(next, 3, -1);
        assert_eq!(watch.hung(next, 14), Hung::default());
    }

    #[test]
    fn another_width_begins_anew() {
        let watch = Watch::default();
        watch.add(PLAN, 0, 1);
        let next = Plan { number: 2, era: 0 };
        assert_eq!(watch.hung(next, 100), Hung::default());
        watch.add(next, 50, 1);
        assert_eq!(watch.hung(next, 100).all, 1);
    }
}
