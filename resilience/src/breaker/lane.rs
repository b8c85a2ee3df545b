//! Counters without contention: each thread has a lane of its own, in which it alone writes.
//!
//! A lane belongs to the thread whose index it has, so its counters are loaded and stored, not
//! added to: there is no locked instruction and no cache line that two threads write. Threads
//! beyond the lanes that there are share a few more under a lock. Whoever wants the sum reads
//! all of them.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::{Mutex as StdMutex, OnceLock, PoisonError};
use std::thread::available_parallelism;

use super::cursor::Cursor;
use super::watch::Watch;
use super::window::Window;
use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering, add};

/// Lanes for this many threads at least, two per core where that is more, and never more than the
/// other bound.
const LEAST_OWN: usize = 16;
const MOST_OWN: usize = 128;
const SHARED: usize = 4;

/// What is counted.
#[derive(Clone, Copy)]
pub(super) enum Count {
    Started,
    Succeeded,
    Failed,
    Ignored,
    Abandoned,
    Stale,
    Rejected,
}

const COUNTS: usize = 7;

/// On cache lines of its own.
#[repr(align(128))]
pub(super) struct Lane {
    counts: [AtomicU64; COUNTS],
    /// Where the watch is.
    pub(super) cursor: Cursor,
    pub(super) watch: Watch,
    window: OnceLock<Box<Window>>,
    /// Taken by those who share the lane.
    shared: Mutex<()>,
}

impl Lane {
    fn new() -> Self {
        Self {
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            cursor: Cursor::default(),
            watch: Watch::default(),
            window: OnceLock::new(),
            shared: Mutex::new(()),
        }
    }

    #[inline]
    pub(super) fn bump(&self, count: Count) {
        add(&self.counts[count as usize], 1, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn window(&self) -> &Window {
        self.window.get_or_init(Box::default)
    }
}

pub(super) struct Lanes {
    own: Box<[Lane]>,
    shared: [Lane; SHARED],
}

impl Lanes {
    pub(super) fn new() -> Self {
        static OWN: OnceLock<usize> = OnceLock::new();
        let own = *OWN.get_or_init(|| {
            let cores = available_parallelism().map_or(1, usize::from);
            (cores * 2).clamp(LEAST_OWN, MOST_OWN)
        });
        // Loom runs all of its threads on one.
        let own = if cfg!(loom) { 0 } else { own };
        let shared = std::array::from_fn(|_| Lane::new());
        Self { own: (0..own).map(|_| Lane::new()).collect(), shared }
    }

    /// Hands out the calling thread's lane, which nobody else writes meanwhile.
    ///
    /// Written in one place for both kinds of lanes: a closure that is handed on keeps what it
    /// captures in memory, and that costs more than the rest.
    #[inline(always)]
    pub(super) fn with<R>(&self, write: impl FnOnce(&Lane) -> R) -> R {
        let (lane, _writing) = match self.own.get(INDEX.get()) {
            Some(lane) => (lane, None),
            None => self.any(),
        };
        write(lane)
    }

    #[cold]
    #[inline(never)]
    fn any(&self) -> (&Lane, Option<MutexGuard<'_, ()>>) {
        let index = assigned();
        if let Some(lane) = self.own.get(index) {
            return (lane, None);
        }
        let lane = &self.shared[index % SHARED];
        (lane, Some(lane.shared.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    #[inline]
    pub(super) fn bump(&self, count: Count) {
        self.with(|lane| lane.bump(count));
    }

    pub(super) fn sum(&self, count: Count) -> u64 {
        self.all().map(|lane| lane.counts[count as usize].load(Ordering::Relaxed)).sum()
    }

    pub(super) fn watches(&self) -> impl Iterator<Item = &Watch> {
        self.all().map(|lane| &lane.watch)
    }

    pub(super) fn windows(&self) -> impl Iterator<Item = &Window> {
        self.all().filter_map(|lane| lane.window.get()).map(|window| &**window)
    }

    fn all(&self) -> impl Iterator<Item = &Lane> {
        self.own.iter().chain(&self.shared)
    }
}

/// No index yet.
const NONE: usize = usize::MAX;
/// The thread is ending and has given its index back: it shares from here on.
const GONE: usize = usize::MAX - 1;

thread_local! {
    /// The thread's index. Without a destructor, so that reading it is reading memory.
    static INDEX: Cell<usize> = const { Cell::new(NONE) };
    /// Gives the index back when the thread ends.
    static LEASE: Lease = Lease::take();
}

struct Lease(usize);

/// Indices that are free below the first that was never used. The lock orders what an index's
/// former thread wrote before what its next one reads.
static FREE: StdMutex<(BTreeSet<usize>, usize)> = StdMutex::new((BTreeSet::new(), 0));

impl Lease {
    fn take() -> Self {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        // The lowest one: it has a lane of its own as long as there is one.
        let index = free.0.pop_first().unwrap_or_else(|| {
            free.1 += 1;
            free.1 - 1
        });
        Self(index)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        INDEX.set(GONE);
        FREE.lock().unwrap_or_else(PoisonError::into_inner).0.insert(self.0);
    }
}

fn assigned() -> usize {
    if INDEX.get() == NONE {
        // Fails when the thread is ending already.
        let index = LEASE.try_with(|lease| lease.0).unwrap_or(GONE);
        INDEX.set(index);
    }
    INDEX.get()
}
