//! What calls read and count without taking the lock.

use std::sync::Arc;
use std::time::Instant;

use super::lane::{Count, Lanes};
use super::report::Facts;
use super::watch::{Hung, Plan};
use super::window::Slice;
use super::word::Word;
use crate::clock::Clock;
use crate::sync::{ArcSwap, AtomicU64, Ordering};

/// Read by all, written under the breaker's lock alone (the lanes apart).
pub(super) struct Hot {
    pub(super) name: Arc<str>,
    pub(super) word: Line,
    pub(super) lanes: Lanes,
    pub(super) facts: ArcSwap<Facts>,
    /// The slow threshold in nanoseconds.
    pub(super) slow: AtomicU64,
    /// See [`Plan`], and its slices.
    pub(super) watch_plan: AtomicU64,
    pub(super) watch_era: AtomicU64,
    pub(super) watch_slicer: Slicer,
    /// See [`Slice`].
    pub(super) window_epoch: AtomicU64,
    pub(super) window_slicer: Slicer,
    /// How many hung calls open the breaker; zero for never.
    pub(super) hung_limit: AtomicU64,
    /// One more than the last slice in which they were counted.
    pub(super) hung_judged: AtomicU64,
    pub(super) clock: Box<dyn Clock>,
    origin: Instant,
}

/// On a cache line of its own: what is written beside it must not slow those who read it.
#[repr(align(128))]
pub(super) struct Line(AtomicU64);

impl Line {
    pub(super) fn store(&self, word: u64, order: Ordering) {
        self.0.store(word, order);
    }
}

/// Cuts time into slices of a width that seldom changes: a multiplication instead of a division,
/// which takes longer than all the rest.
pub(super) struct Slicer {
    width: AtomicU64,
    /// Two to the 64th over the width, rounded up.
    reciprocal: AtomicU64,
}

impl Slicer {
    fn new() -> Self {
        let slicer = Self { width: AtomicU64::new(0), reciprocal: AtomicU64::new(0) };
        slicer.set(0);
        slicer
    }

    /// Slices of this width in nanoseconds; the least are two.
    pub(super) fn set(&self, width: u64) {
        let width = width.max(2);
        self.width.store(width, Ordering::Relaxed);
        self.reciprocal.store(u64::MAX / width + 1, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn slice(&self, now: u64) -> u64 {
        let width = self.width.load(Ordering::Relaxed);
        let product = u128::from(now) * u128::from(self.reciprocal.load(Ordering::Relaxed));
        // The upper half. Rounding can make it one too many, never too few.
        let slice = (product >> 64) as u64;
        slice - u64::from(slice.saturating_mul(width) > now)
    }
}

/// When a call started, where that is of interest.
#[derive(Clone, Copy)]
pub(super) struct Timing {
    started: u64,
    /// Its slice, and in the upper bits the plan by which it is one: two words are what a function
    /// returns without memory.
    mark: u64,
}

const SLICE_BITS: u32 = 48;
const SLICE: u64 = (1 << SLICE_BITS) - 1;

impl Timing {
    pub(super) const NONE: Self = Self { started: u64::MAX, mark: 0 };

    #[inline]
    pub(super) fn is_none(self) -> bool {
        self.started == u64::MAX
    }

    #[inline]
    fn new(started: u64, plan: Plan, slice: u64) -> Self {
        Self { started, mark: plan.number << SLICE_BITS | slice & SLICE }
    }

    /// The slice, where it is one by this plan.
    #[inline]
    fn slice(self, plan: Plan) -> Option<u64> {
        let same = self.mark & !SLICE == plan.number << SLICE_BITS;
        same.then_some(self.mark & SLICE)
    }

    /// For how long, in nanoseconds; zero where it isn't known.
    pub(super) fn held(self, now: u64) -> u64 {
        now.saturating_sub(self.started)
    }
}

impl Hot {
    pub(super) fn new(name: Arc<str>, facts: Facts, clock: Box<dyn Clock>) -> Self {
        Self {
            name,
            word: Line(AtomicU64::new(0)),
            lanes: Lanes::new(),
            facts: ArcSwap::from_pointee(facts),
            slow: AtomicU64::new(0),
            watch_plan: AtomicU64::new(0),
            watch_era: AtomicU64::new(0),
            watch_slicer: Slicer::new(),
            window_epoch: AtomicU64::new(0),
            window_slicer: Slicer::new(),
            hung_limit: AtomicU64::new(0),
            hung_judged: AtomicU64::new(0),
            origin: clock.now(),
            clock,
        }
    }

    #[inline]
    pub(super) fn word(&self) -> Word {
        Word(self.word.0.load(Ordering::Acquire))
    }

    /// Nanoseconds since the breaker was built.
    #[inline]
    pub(super) fn now(&self) -> u64 {
        let passed = self.clock.now().saturating_duration_since(self.origin);
        // For 584 years.
        passed.as_secs() * 1_000_000_000 + u64::from(passed.subsec_nanos())
    }

    /// The window's slice of this moment.
    #[inline]
    pub(super) fn slice(&self, now: u64) -> Slice {
        Slice {
            number: self.window_slicer.slice(now),
            epoch: self.window_epoch.load(Ordering::Relaxed),
        }
    }

    #[inline]
    fn plan(&self) -> Plan {
        Plan {
            number: self.watch_plan.load(Ordering::Relaxed),
            era: self.watch_era.load(Ordering::Relaxed),
        }
    }

    /// Counts a call that starts, and watches it.
    #[inline]
    pub(super) fn start(&self, now: u64) -> Timing {
        let plan = self.plan();
        let slice = self.watch_slicer.slice(now);
        self.lanes.with(|lane| {
            lane.bump(Count::Started);
            lane.watch().add(plan, slice, 1);
        });
        Timing::new(now, plan, slice)
    }

    /// [`start`](Self::start), now. Not inlined: what comes back fits into two registers.
    #[inline(never)]
    pub(super) fn start_now(&self) -> Timing {
        self.start(self.now())
    }

    /// Counts how a call ended. It is watched no longer.
    #[inline]
    pub(super) fn end(&self, timing: Timing, count: Count) {
        if timing.is_none() {
            return self.lanes.bump(count);
        }
        let plan = self.plan();
        self.lanes.with(|lane| {
            lane.bump(count);
            if let Some(slice) = timing.slice(plan) {
                lane.watch().add(plan, slice, -1);
            }
        });
    }

    pub(super) fn is_slow(&self, timing: Timing, now: u64) -> bool {
        timing.held(now) > self.slow.load(Ordering::Relaxed)
    }

    /// The calls in flight for longer than the slow threshold.
    pub(super) fn hung(&self, now: u64) -> Hung {
        let (plan, slice) = (self.plan(), self.watch_slicer.slice(now));
        self.lanes.watches().fold(Hung::default(), |sum, watch| {
            let Hung { all, recent } = watch.hung(plan, slice);
            Hung { all: sum.all + all, recent: sum.recent + recent }
        })
    }

    /// How many hung calls are to open the breaker now: counted by the first call of each slice.
    pub(super) fn judge_hung(&self, now: u64) -> Option<i64> {
        let slice = self.watch_slicer.slice(now);
        if self.hung_judged.load(Ordering::Relaxed) == slice + 1 {
            return None;
        }
        self.hung_judged.store(slice + 1, Ordering::Relaxed);
        let hung = self.hung(now).recent;
        let limit = i64::try_from(self.hung_limit.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        (limit > 0 && hung >= limit).then_some(hung)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn a_slice_is_what_a_division_gives() {
        let (slicer, random) = (Slicer::new(), Random::seeded(1));
        for _ in 0..1000 {
            let width = (random.next_u64() >> (random.next_u64() % 60)).max(2);
            slicer.set(width);
            for _ in 0..100 {
                let now = random.next_u64() >> (1 + random.next_u64() % 62);
                let border = now / width * width;
                for now in [now, border, border.saturating_sub(1), border.saturating_add(1)] {
                    assert_eq!(slicer.slice(now), now / width, "{now} / {width}");
                }
            }
        }
    }
}
