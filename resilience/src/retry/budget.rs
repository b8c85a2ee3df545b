//! How many retries there may be, all callers taken together.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::{Clock, SystemClock};

/// The parts of the window that drop out of it one by one.
const SLICES: usize = 16;

/// A slice of it is then wide enough for 32 bits to number them for eight years.
const LEAST_WINDOW: Duration = Duration::from_secs(1);

/// Bounds what retries add to a dependency's traffic: a share of the successes of late.
///
/// Attempts are a bound per call: with three of them, an outage triples the traffic, and three
/// layers of callers make it 27 times as much. A budget is a bound for all calls together: a
/// healthy dependency's rare failures are repeated, and one that fails everybody gets no retries at
/// all, as there are no successes to pay for them.
///
/// ```
/// use resilience::RetryBudget;
///
/// let budget = RetryBudget::builder("billing").ratio(0.05).floor(0.0).build();
/// for _ in 0..20 {
///     budget.deposit();
/// }
/// assert!(budget.withdraw(), "20 successes pay for one retry");
/// assert!(!budget.withdraw());
/// ```
///
/// One per dependency, shared by all who call it: clones are cheap and share everything.
#[derive(Clone)]
pub struct RetryBudget {
    inner: Arc<Inner>,
}

struct Inner {
    name: Arc<str>,
    /// None: everything is granted.
    limits: Option<Limits>,
    clock: Box<dyn Clock>,
    origin: Instant,
    /// The width of a slice in nanoseconds.
    width: u64,
    /// In each the number of its slice (upper half) and the successes in it: one word, so that a
    /// success takes no lock.
    successes: [AtomicU64; SLICES],
    /// Under a lock: only what has failed comes here, and what is granted must not exceed the
    /// budget by a race.
    spent: Mutex<Spent>,
}

#[derive(Clone, Copy)]
struct Limits {
    ratio: f64,
    /// Retries per window, while there are successes.
    floor: f64,
}

#[derive(Default)]
struct Spent {
    /// The numbers of slices, and the retries in each.
    slices: [(u64, u64); SLICES],
    retries: u64,
    denied: u64,
}

const COUNT_BITS: u32 = 32;
const COUNT: u64 = (1 << COUNT_BITS) - 1;

impl RetryBudget {
    /// Starts building a budget. The name is the dependency's.
    pub fn builder(name: impl Into<String>) -> RetryBudgetBuilder {
        RetryBudgetBuilder {
            name: name.into(),
            ratio: 0.05,
            floor: 1.0,
            window: Duration::from_secs(10),
            clock: Box::new(SystemClock),
        }
    }

    /// A budget that grants everything, and only counts: for retries that can't multiply, such as
    /// those of a single background task.
    pub fn unlimited(name: impl Into<String>) -> Self {
        Self::builder(name).build_with(|_| None)
    }

    /// The name that it was built with.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// A call succeeded.
    pub fn deposit(&self) {
        let slice = self.inner.slice();
        let cell = &self.inner.successes[index(slice)];
        let mut seen = cell.load(Ordering::Relaxed);
        loop {
            let found = seen >> COUNT_BITS;
            if found == slice {
                cell.fetch_add(1, Ordering::Relaxed);
                return;
            }
            if found > slice {
                // Held up for a whole window: it isn't of late any more.
                return;
            }
            let first = slice << COUNT_BITS | 1;
            match cell.compare_exchange_weak(seen, first, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(changed) => seen = changed,
            }
        }
    }

    /// Asks for one retry. It is spent when this is true.
    #[must_use]
    pub fn withdraw(&self) -> bool {
        let slice = self.inner.slice();
        let mut spent = self.inner.spent.lock().unwrap_or_else(PoisonError::into_inner);
        if self.inner.available(&spent, slice) == 0 {
            spent.denied += 1;
            return false;
        }
        spent.retries += 1;
        let place = &mut spent.slices[index(slice)];
        if place.0 < slice {
            *place = (slice, 0);
        }
        place.1 += 1;
        true
    }

    /// Whether one built afresh would be the same to everybody: nobody else has it, and its window
    /// is empty.
    pub(crate) fn is_dispensable(&self) -> bool {
        let seen = self.snapshot();
        Arc::strong_count(&self.inner) == 1 && seen.recent_successes + seen.recent_retries == 0
    }

    /// All that there is to know about it at this moment.
    pub fn snapshot(&self) -> RetryBudgetSnapshot {
        let slice = self.inner.slice();
        let spent = self.inner.spent.lock().unwrap_or_else(PoisonError::into_inner);
        RetryBudgetSnapshot {
            name: Arc::clone(&self.inner.name),
            recent_successes: self.inner.recent_successes(slice),
            recent_retries: spent.recent(slice),
            available: self.inner.available(&spent, slice),
            retries: spent.retries,
            denied: spent.denied,
        }
    }
}

impl Inner {
    /// The number of the present slice. The first is past a whole window: zero stands for slices
    /// that were never used.
    fn slice(&self) -> u64 {
        let passed = self.clock.now().saturating_duration_since(self.origin);
        let nanos = u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX);
        SLICES as u64 + nanos / self.width
    }

    fn recent_successes(&self, slice: u64) -> u64 {
        let words = self.successes.iter().map(|cell| cell.load(Ordering::Relaxed));
        words.filter(|word| is_recent(word >> COUNT_BITS, slice)).map(|word| word & COUNT).sum()
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counts of seconds, far below 2⁵³, and never negative"
    )]
    fn available(&self, spent: &Spent, slice: u64) -> u64 {
        let Some(Limits { ratio, floor }) = self.limits else {
            return u64::MAX;
        };
        let successes = self.recent_successes(slice);
        if successes == 0 {
            return 0;
        }
        // Hundredths that a double can't hold exactly must not cost a retry.
        let granted = (successes as f64).mul_add(ratio, floor) + 1e-9;
        (granted as u64).saturating_sub(spent.recent(slice))
    }
}

impl Spent {
    fn recent(&self, slice: u64) -> u64 {
        let recent = self.slices.iter().filter(|(number, _)| is_recent(*number, slice));
        recent.map(|(_, retries)| retries).sum()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "it is less than the number of slices")]
fn index(slice: u64) -> usize {
    (slice % SLICES as u64) as usize
}

fn is_recent(number: u64, present: u64) -> bool {
    number + SLICES as u64 > present
}

impl fmt::Debug for RetryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let snapshot = self.snapshot();
        f.debug_struct("RetryBudget")
            .field("name", &snapshot.name)
            .field("available", &snapshot.available)
            .finish_non_exhaustive()
    }
}

/// Settings of a [`RetryBudget`]; made by [`RetryBudget::builder`].
#[must_use]
pub struct RetryBudgetBuilder {
    name: String,
    ratio: f64,
    floor: f64,
    window: Duration,
    clock: Box<dyn Clock>,
}

impl RetryBudgetBuilder {
    /// How many retries a success pays for: at least 0. The default is 0.05, which bounds three
    /// layers of callers to 1.05³, some 16 % more traffic. (Google's is 10 % of the requests: Site
    /// Reliability Engineering, chapter 21.)
    pub fn ratio(mut self, retries_per_success: f64) -> Self {
        self.ratio = sensible(retries_per_success);
        self
    }

    /// How many retries per second, averaged over the window, come on top, so that those who call
    /// seldom have some as well: at least 0. The default is 1. There are none while the window holds
    /// no success.
    pub fn floor(mut self, retries_per_second: f64) -> Self {
        self.floor = sensible(retries_per_second);
        self
    }

    /// Which successes and retries count as of late. The default is 10 seconds, and the least one
    /// second.
    pub fn window(mut self, window: Duration) -> Self {
        self.window = window.max(LEAST_WINDOW);
        self
    }

    /// Where the time comes from. The default is the [`SystemClock`].
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Box::new(clock);
        self
    }

    /// The budget, without successes yet, and so without retries.
    pub fn build(self) -> RetryBudget {
        self.build_with(Some)
    }

    fn build_with(self, limits: impl FnOnce(Limits) -> Option<Limits>) -> RetryBudget {
        let Self { name, ratio, floor, window, clock } = self;
        let width = window.as_nanos() / SLICES as u128;
        let inner = Inner {
            name: name.into(),
            limits: limits(Limits { ratio, floor: floor * window.as_secs_f64() }),
            origin: clock.now(),
            clock,
            width: u64::try_from(width).unwrap_or(u64::MAX),
            successes: Default::default(),
            spent: Mutex::default(),
        };
        RetryBudget { inner: Arc::new(inner) }
    }
}

impl fmt::Debug for RetryBudgetBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryBudgetBuilder")
            .field("name", &self.name)
            .field("ratio", &self.ratio)
            .field("floor", &self.floor)
            .field("window", &self.window)
            .finish_non_exhaustive()
    }
}

fn sensible(rate: f64) -> f64 {
    if rate.is_finite() { rate.max(0.0) } else { 0.0 }
}

/// A [`RetryBudget`] at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RetryBudgetSnapshot {
    /// The budget's name.
    pub name: Arc<str>,
    /// The successes in the window.
    pub recent_successes: u64,
    /// The retries in the window.
    pub recent_retries: u64,
    /// How many retries there could be now; the greatest number where there is no limit.
    pub available: u64,
    /// The retries that were granted since it was built.
    pub retries: u64,
    /// Those that were not.
    pub denied: u64,
}
