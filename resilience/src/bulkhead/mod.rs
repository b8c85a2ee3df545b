//! A bounded number of calls in flight.
#![doc = include_str!("../../docs/bulkhead.md")]

mod queue;
#[cfg(test)]
mod tests;

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use queue::{Entry, Queue, Waiter};

use crate::clock::{Clock, SystemClock};
use crate::deadline::Deadline;
use crate::timer;

/// Bounds the calls in flight to one dependency, so that one that hangs can't hold everybody's
/// threads, connections and memory. Clones are cheap and share everything.
///
/// Those who wait for a place are bounded as well, in number and in time, and get theirs in the
/// order in which they came.
///
/// ```
/// use resilience::Bulkhead;
///
/// let bulkhead = Bulkhead::builder("billing", 2).build();
/// let (one, _two) = (bulkhead.try_acquire()?, bulkhead.try_acquire()?);
/// assert_eq!(
///     bulkhead.try_acquire().unwrap_err().to_string(),
///     "billing is busy: the limit on calls in flight (2) is reached",
/// );
/// drop(one);
/// assert!(bulkhead.try_acquire().is_ok());
/// # Ok::<(), resilience::bulkhead::BulkheadFull>(())
/// ```
#[derive(Clone)]
pub struct Bulkhead {
    inner: Arc<Inner>,
}

struct Inner {
    name: Arc<str>,
    longest_wait: Duration,
    standing: Option<Standing>,
    clock: Box<dyn Clock>,
    queue: Queue,
}

/// See [`BulkheadBuilder::standing_queue`].
#[derive(Clone, Copy, Debug)]
struct Standing {
    after: Duration,
    wait: Duration,
}

impl Standing {
    /// After how long somebody who has waited for so long looks again whether the queue stands: as soon as
    /// he mustn't wait for longer if it does, and when he is the one who tells. In between it is late by no
    /// more than what he has waited anyway.
    fn next_look(self, waited: Duration) -> Duration {
        let next = self.wait.max(waited.saturating_mul(2));
        if waited < self.after { next.min(self.after.max(self.wait)) } else { next }
    }
}

impl Bulkhead {
    /// Starts building a bulkhead for this many calls at a time; 0 counts as 1. The name is the
    /// dependency's, as users may read it.
    pub fn builder(name: impl Into<String>, limit: usize) -> BulkheadBuilder {
        BulkheadBuilder {
            name: name.into(),
            limit,
            queue: 0,
            longest_wait: Duration::ZERO,
            standing: None,
            clock: Box::new(SystemClock),
        }
    }

    /// The name that it was built with.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Asks for a place, and waits for one: as long as the builder and the deadline allow, and if
    /// the queue has room. Dropping the future leaves the queue.
    ///
    /// # Errors
    ///
    /// When no place became free.
    pub async fn acquire(&self, deadline: Option<Deadline>) -> Result<Place<'_>, BulkheadFull> {
        let entered = self.enter(deadline).await;
        entered.map(|()| Place { bulkhead: Handle::Borrowed(&self.inner) })
    }

    /// [`acquire`](Self::acquire), for a place that can be sent anywhere.
    ///
    /// # Errors
    ///
    /// As for [`acquire`](Self::acquire).
    pub async fn acquire_owned(
        &self,
        deadline: Option<Deadline>,
    ) -> Result<Place<'static>, BulkheadFull> {
        let entered = self.enter(deadline).await;
        entered.map(|()| Place { bulkhead: Handle::Owned(Arc::clone(&self.inner)) })
    }

    /// Asks for a place, and doesn't wait.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn try_acquire(&self) -> Result<Place<'_>, BulkheadFull> {
        self.place().ok_or_else(|| {
            self.inner.queue.reject();
            self.full(Duration::ZERO)
        })
    }

    /// A place, where one is free.
    pub(crate) fn place(&self) -> Option<Place<'_>> {
        self.inner.queue.enter().then(|| Place { bulkhead: Handle::Borrowed(&self.inner) })
    }

    /// Takes another limit over at once; 0 counts as 1. Calls in flight go on: when there are more
    /// than the new limit, nobody gets a place until enough of them have ended.
    pub fn resize(&self, limit: usize) {
        self.inner.queue.resize(limit);
    }

    /// Whether nobody else has it, so that no call is under way or waiting, and its limit is still
    /// the first one.
    pub(crate) fn is_dispensable(&self) -> bool {
        Arc::strong_count(&self.inner) == 1 && !self.inner.queue.is_resized()
    }

    /// All that there is to know about it at this moment.
    pub fn snapshot(&self) -> BulkheadSnapshot {
        self.inner.queue.snapshot(&self.inner.name)
    }

    /// Takes up a place that is given back by [`Queue::leave`].
    async fn enter(&self, deadline: Option<Deadline>) -> Result<(), BulkheadFull> {
        let inner = &*self.inner;
        if inner.queue.enter() {
            return Ok(());
        }
        let started = inner.clock.now();
        let until = Deadline::since(started, inner.longest_wait);
        let until = deadline.map_or(until, |deadline| deadline.min(until));
        let no_time = until.remaining_at(started).is_zero();
        let waiter = match inner.queue.line_up(no_time, started) {
            Entry::Free => return Ok(()),
            Entry::Full => return Err(self.full(Duration::ZERO)),
            Entry::Waiting(waiter) => waiter,
        };
        let has_place = inner.wait(&waiter, started, until.moment()).await;
        let time = inner.clock.now().saturating_duration_since(started);
        if has_place {
            waiter.enter(time);
            #[cfg(feature = "metrics")]
            crate::metrics::pipeline::waited(&inner.name, time);
            Ok(())
        } else {
            waiter.give_up();
            Err(self.full(time))
        }
    }

    fn full(&self, waited: Duration) -> BulkheadFull {
        let limit = self.inner.queue.limit();
        BulkheadFull { bulkhead: Arc::clone(&self.inner.name), limit, waited }
    }
}

impl Inner {
    /// Whether the waiter has got a place, before that moment and before the queue is one that stands.
    async fn wait(&self, waiter: &Waiter<'_>, started: Instant, until: Instant) -> bool {
        let mut waited = Duration::ZERO;
        loop {
            waited = self.standing.map_or(Duration::MAX, |standing| standing.next_look(waited));
            let step = started.checked_add(waited).map_or(until, |step| step.min(until));
            if timer::until(&*self.clock, step, pin!(waiter.turn())).await.is_some() {
                return true;
            }
            // Also of who leaves anyway: it may be he who tells.
            let stands = |standing| self.queue.stands(self.clock.now(), standing);
            if self.standing.is_some_and(stands) || step >= until {
                return false;
            }
        }
    }
}

impl fmt::Debug for Bulkhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let snapshot = self.snapshot();
        f.debug_struct("Bulkhead")
            .field("name", &snapshot.name)
            .field("limit", &snapshot.limit)
            .field("in_flight", &snapshot.in_flight)
            .finish_non_exhaustive()
    }
}

/// A call's place among those in flight. Dropping it gives it to whoever waits the longest.
#[must_use = "dropping a place gives it back"]
pub struct Place<'a> {
    bulkhead: Handle<'a>,
}

enum Handle<'a> {
    Borrowed(&'a Inner),
    Owned(Arc<Inner>),
}

impl Place<'_> {
    fn inner(&self) -> &Inner {
        match &self.bulkhead {
            Handle::Borrowed(inner) => inner,
            Handle::Owned(inner) => inner,
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.inner().queue.leave();
    }
}

impl fmt::Debug for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("bulkhead", &self.inner().name).finish_non_exhaustive()
    }
}

/// A call that got no place. Its text is fit for users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BulkheadFull {
    bulkhead: Arc<str>,
    limit: usize,
    waited: Duration,
}

impl BulkheadFull {
    /// The bulkhead's name.
    pub fn bulkhead(&self) -> &str {
        &self.bulkhead
    }

    /// How many calls there may be at a time.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// How long it has waited; zero when there was no room in the queue either, or no time.
    pub fn waited(&self) -> Duration {
        self.waited
    }
}

impl fmt::Display for BulkheadFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bulkhead, limit, waited } = self;
        write!(f, "{bulkhead} is busy: the limit on calls in flight ({limit}) is reached")?;
        if waited.is_zero() {
            return Ok(());
        }
        write!(f, ", and no place became free within {} ms", waited.as_millis())
    }
}

impl std::error::Error for BulkheadFull {}

/// Settings of a [`Bulkhead`]; made by [`Bulkhead::builder`].
#[must_use]
pub struct BulkheadBuilder {
    name: String,
    limit: usize,
    queue: usize,
    longest_wait: Duration,
    standing: Option<Standing>,
    clock: Box<dyn Clock>,
}

impl BulkheadBuilder {
    /// How many may wait for a place at a time, and how long each. The default is nobody. Keep it
    /// short: who waits holds resources of his own, and his caller's patience runs out.
    pub fn queue(mut self, length: usize, longest_wait: Duration) -> Self {
        self.queue = length;
        self.longest_wait = longest_wait;
        self
    }

    /// Tells a burst from an overload. A queue that moves is doing its work, however long it is; one in
    /// which somebody has waited for `after` (or for as long as [`queue`](Self::queue) lets him, where
    /// that is less) only makes everybody late. From then on, until it is empty, nobody who comes waits
    /// for longer than `wait` (at least 1 ms), and those who already have are told that there is no place
    /// before they have waited twice as long. A queue that fills within another `after` stands as soon as
    /// somebody has waited for four times `wait`: it is the same overload. The default is to let each wait
    /// as long as [`queue`](Self::queue) says.
    ///
    /// Where callers' deadlines are shorter than `after`, nobody waits for so long, and it never stands.
    /// And an overload seems to go on in a load that could be carried, where chance alone has somebody
    /// wait for four times `wait` within each `after`: keep `after` below some fifty times `wait`.
    pub fn standing_queue(mut self, after: Duration, wait: Duration) -> Self {
        self.standing = Some(Standing { after, wait: wait.max(Duration::from_millis(1)) });
        self
    }

    /// Where the time comes from. The default is the [`SystemClock`].
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Box::new(clock);
        self
    }

    /// The bulkhead, with all places free.
    pub fn build(self) -> Bulkhead {
        // Nobody waits for longer, so that nobody would tell.
        let after = |standing: Standing| standing.after.min(self.longest_wait);
        let standing = self.standing.map(|told| Standing { after: after(told), ..told });
        Bulkhead {
            inner: Arc::new(Inner {
                name: self.name.into(),
                longest_wait: self.longest_wait,
                standing,
                clock: self.clock,
                queue: Queue::new(self.limit, self.queue),
            }),
        }
    }
}

impl fmt::Debug for BulkheadBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BulkheadBuilder")
            .field("name", &self.name)
            .field("limit", &self.limit)
            .field("queue", &self.queue)
            .field("longest_wait", &self.longest_wait)
            .field("standing", &self.standing)
            .finish_non_exhaustive()
    }
}

/// A [`Bulkhead`] at one moment. Counts are since it was built.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct BulkheadSnapshot {
    /// The bulkhead's name.
    pub name: Arc<str>,
    /// How many calls there may be at a time.
    pub limit: usize,
    /// How many there are.
    pub in_flight: usize,
    /// How many wait for a place.
    pub waiting: usize,
    /// Calls that got a place.
    pub admitted: u64,
    /// Those of them that had to wait for it.
    pub queued: u64,
    /// The time that they have waited, all together.
    pub waited: Duration,
    /// Calls that got no place: no room in the queue, or no place in time.
    pub rejected: u64,
}
