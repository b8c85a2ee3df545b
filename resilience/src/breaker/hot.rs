//! What calls read and count without taking the lock.

use std::sync::Arc;

use super::cursor::Cut;
use super::lane::{Count, Lanes};
use super::report::Facts;
use super::time::Time;
use super::watch::{Hung, Plan};
use super::window::Slice;
use super::word::{WATCH, Word};
use crate::sync::{ArcSwap, AtomicU64, Ordering};

/// Read by all, written under the breaker's lock alone (the lanes apart).
pub(super) struct Hot {
    pub(super) name: Arc<str>,
    pub(super) word: Line,
    pub(super) lanes: Lanes,
    pub(super) facts: ArcSwap<Facts>,
    /// The slow threshold in nanoseconds.
    pub(super) slow: AtomicU64,
    /// See [`Plan`], and how it cuts time: the era's first slice begins when the era does.
    pub(super) watch_plan: AtomicU64,
    pub(super) watch_era: AtomicU64,
    pub(super) watch_from: AtomicU64,
    pub(super) watch_width: AtomicU64,
    /// See [`Slice`], and its width in nanoseconds.
    pub(super) window_epoch: AtomicU64,
    pub(super) window_width: AtomicU64,
    /// How many hung calls open the breaker; zero for never.
    pub(super) hung_limit: AtomicU64,
    /// One more than the last slice in which they were counted.
    pub(super) hung_judged: AtomicU64,
    pub(super) time: Time,
}

/// On a cache line of its own: what is written beside it must not slow those who read it.
#[repr(align(128))]
pub(super) struct Line(AtomicU64);

impl Line {
    pub(super) fn store(&self, word: u64, order: Ordering) {
        self.0.store(word, order);
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
    pub(super) fn new(name: Arc<str>, facts: Facts, time: Time) -> Self {
        Self {
            name,
            word: Line(AtomicU64::new(0)),
            lanes: Lanes::new(),
            facts: ArcSwap::from_pointee(facts),
            slow: AtomicU64::new(0),
            watch_plan: AtomicU64::new(0),
            watch_era: AtomicU64::new(0),
            watch_from: AtomicU64::new(0),
            watch_width: AtomicU64::new(1),
            window_epoch: AtomicU64::new(0),
            window_width: AtomicU64::new(1),
            hung_limit: AtomicU64::new(0),
            hung_judged: AtomicU64::new(0),
            time,
        }
    }

    #[inline]
    pub(super) fn word(&self) -> Word {
        Word(self.word.0.load(Ordering::Acquire))
    }

    /// Nanoseconds since the breaker was built.
    #[inline(always)]
    pub(super) fn now(&self) -> u64 {
        self.time.now()
    }

    /// The window's slice of this moment.
    pub(super) fn slice(&self, now: u64) -> Slice {
        Slice {
            number: now / self.window_width.load(Ordering::Relaxed),
            epoch: self.window_epoch.load(Ordering::Relaxed),
        }
    }

    /// The slice of this moment, as calls in flight are watched.
    pub(super) fn watch_slice(&self, now: u64) -> u64 {
        self.watch_cut(self.plan()).slice(now)
    }

    #[inline(always)]
    fn watch_cut(&self, plan: Plan) -> Cut {
        Cut {
            width: self.watch_width.load(Ordering::Relaxed),
            base: plan.era,
            from: self.watch_from.load(Ordering::Relaxed),
        }
    }

    /// Counts a result in the window.
    #[inline(always)]
    pub(super) fn record(&self, now: u64, failed: bool, slow: bool) {
        let epoch = self.window_epoch.load(Ordering::Relaxed);
        let width = self.window_width.load(Ordering::Relaxed);
        self.lanes.with(|lane| {
            let window = lane.window();
            let number = window.cursor.slice(now, Cut::new(width));
            window.record(Slice { number, epoch }, failed, slow);
        });
    }

    #[inline(always)]
    fn plan(&self) -> Plan {
        Plan {
            number: self.watch_plan.load(Ordering::Relaxed),
            era: self.watch_era.load(Ordering::Relaxed),
        }
    }

    /// Counts a call that starts under this word, which lets it through.
    #[inline]
    pub(super) fn begin(&self, word: Word) -> Timing {
        if word.has(WATCH) {
            return self.start_now();
        }
        self.lanes.bump(Count::Started);
        Timing::NONE
    }

    /// Counts a call that starts, and watches it.
    #[inline(always)]
    pub(super) fn start(&self, now: u64) -> Timing {
        let plan = self.plan();
        let cut = self.watch_cut(plan);
        let slice = self.lanes.with(|lane| {
            lane.bump(Count::Started);
            let slice = lane.cursor.slice(now, cut);
            lane.watch.add(plan, slice, 1);
            slice
        });
        Timing::new(now, plan, slice)
    }

    /// [`start`](Self::start), now. Not inlined: what comes back fits into two registers.
    #[inline(never)]
    fn start_now(&self) -> Timing {
        self.start(self.now())
    }

    /// Counts how a call ended. It is watched no longer.
    #[inline(always)]
    pub(super) fn end(&self, timing: Timing, count: Count) {
        if timing.is_none() {
            return self.lanes.bump(count);
        }
        let plan = self.plan();
        self.lanes.with(|lane| {
            lane.bump(count);
            if let Some(slice) = timing.slice(plan) {
                lane.watch.add(plan, slice, -1);
            }
        });
    }

    /// [`end`](Self::end), with a success. Not inlined: it is small, and so its callers stay.
    #[inline(never)]
    pub(super) fn end_success(&self, timing: Timing) {
        self.end(timing, Count::Succeeded);
    }

    /// [`end`](Self::end) and [`record`](Self::record) in one, for a success.
    #[inline(always)]
    pub(super) fn end_in_window(&self, timing: Timing, now: u64, slow: bool) {
        let plan = self.plan();
        let epoch = self.window_epoch.load(Ordering::Relaxed);
        let width = self.window_width.load(Ordering::Relaxed);
        self.lanes.with(|lane| {
            lane.bump(Count::Succeeded);
            if let Some(slice) = timing.slice(plan).filter(|_| !timing.is_none()) {
                lane.watch.add(plan, slice, -1);
            }
            let window = lane.window();
            let number = window.cursor.slice(now, Cut::new(width));
            window.record(Slice { number, epoch }, false, slow);
        });
    }

    pub(super) fn is_slow(&self, timing: Timing, now: u64) -> bool {
        timing.held(now) > self.slow.load(Ordering::Relaxed)
    }

    /// The calls in flight for longer than the slow threshold.
    pub(super) fn hung(&self, now: u64) -> Hung {
        let (plan, slice) = (self.plan(), self.watch_slice(now));
        self.lanes.watches().fold(Hung::default(), |sum, watch| {
            let Hung { all, recent } = watch.hung(plan, slice);
            Hung { all: sum.all + all, recent: sum.recent + recent }
        })
    }

    /// How many hung calls are to open the breaker now: counted by the first call of each slice.
    pub(super) fn judge_hung(&self, now: u64) -> Option<i64> {
        let slice = self.watch_slice(now);
        if self.hung_judged.load(Ordering::Relaxed) == slice + 1 {
            return None;
        }
        self.hung_judged.store(slice + 1, Ordering::Relaxed);
        let hung = self.hung(now).recent;
        let limit = i64::try_from(self.hung_limit.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        (limit > 0 && hung >= limit).then_some(hung)
    }
}
