//! Places, and who waits for one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::{BulkheadSnapshot, Standing};

/// A queue that stands again soon does so after this many times the wait of one that stands. In an
/// overload too it is empty now and then, by chance: were that the end of it, it would fill up as in a burst
/// once in every `after`, with people who are all turned away late. (RFC 8289, section 5.5, goes on at the
/// rate that it had as well, though not before another whole interval.)
const AGAIN: u32 = 4;

pub(super) struct Queue {
    state: Mutex<State>,
}

/// While a place is free, nobody waits.
struct State {
    limit: usize,
    resized: bool,
    /// The most that may wait.
    length: usize,
    in_flight: usize,
    /// By ticket, the oldest first. Whoever is taken out has a place from then on: that is done
    /// under the lock, so that no place is lost when somebody gives up at the same moment.
    waiting: BTreeMap<u64, Waiting>,
    /// Since when it isn't empty.
    since: Instant,
    /// Whether somebody has waited for too long since then.
    stands: bool,
    /// When it last did.
    stood: Option<Instant>,
    next_ticket: u64,
    admitted: u64,
    queued: u64,
    waited: Duration,
    rejected: u64,
}

struct Waiting {
    since: Instant,
    called: Arc<Notify>,
}

pub(super) enum Entry<'a> {
    Free,
    Waiting(Waiter<'a>),
    Full,
}

impl Queue {
    pub(super) fn new(limit: usize, length: usize) -> Self {
        let state = State {
            limit: limit.max(1),
            resized: false,
            length,
            in_flight: 0,
            waiting: BTreeMap::new(),
            since: Instant::now(),
            stands: false,
            stood: None,
            next_ticket: 0,
            admitted: 0,
            queued: 0,
            waited: Duration::ZERO,
            rejected: 0,
        };
        Self { state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a free place.
    pub(super) fn enter(&self) -> bool {
        self.lock().enter()
    }

    /// Takes a free place, or else one in the queue.
    pub(super) fn line_up(&self, no_time: bool, now: Instant) -> Entry<'_> {
        let mut state = self.lock();
        if state.enter() {
            return Entry::Free;
        }
        if no_time || state.waiting.len() >= state.length {
            state.rejected += 1;
            return Entry::Full;
        }
        if state.waiting.is_empty() {
            (state.since, state.stands) = (now, false);
        }
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        let called = Arc::new(Notify::new());
        state.waiting.insert(ticket, Waiting { since: now, called: Arc::clone(&called) });
        Entry::Waiting(Waiter { queue: self, ticket, called, settled: false })
    }

    /// Whether somebody has waited for too long since it was last empty: it stays so until it is.
    pub(super) fn stands(&self, now: Instant, standing: Standing) -> bool {
        let mut state = self.lock();
        let Some(oldest) = state.waiting.values().next().map(|oldest| oldest.since) else {
            return false;
        };
        let filled = state.since;
        let soon = |stood| filled.saturating_duration_since(stood) < standing.after;
        let again = standing.wait.saturating_mul(AGAIN).min(standing.after);
        let longest = if state.stood.is_some_and(soon) { again } else { standing.after };
        state.stands |= now.saturating_duration_since(oldest) >= longest;
        if state.stands {
            state.stood = Some(now);
        }
        state.stands
    }

    pub(super) fn reject(&self) {
        self.lock().rejected += 1;
    }

    /// Gives a place back, to the next who waits.
    pub(super) fn leave(&self) {
        self.change(|state| state.in_flight -= 1);
    }

    pub(super) fn resize(&self, limit: usize) {
        self.change(|state| (state.limit, state.resized) = (limit.max(1), true));
    }

    pub(super) fn is_resized(&self) -> bool {
        self.lock().resized
    }

    /// Gives the places that this makes free to those who wait.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut called = Vec::new();
        let mut state = self.lock();
        change(&mut state);
        while state.in_flight < state.limit
            && let Some((_, next)) = state.waiting.pop_first()
        {
            state.in_flight += 1;
            called.push(next.called);
        }
        drop(state);
        // Not under the lock: waking somebody may run anybody's code.
        for next in called {
            next.notify_one();
        }
    }

    pub(super) fn limit(&self) -> usize {
        self.lock().limit
    }

    pub(super) fn snapshot(&self, name: &Arc<str>) -> BulkheadSnapshot {
        let state = self.lock();
        BulkheadSnapshot {
            name: Arc::clone(name),
            limit: state.limit,
            in_flight: state.in_flight,
            waiting: state.waiting.len(),
            admitted: state.admitted,
            queued: state.queued,
            waited: state.waited,
            rejected: state.rejected,
        }
    }
}

impl State {
    fn enter(&mut self) -> bool {
        let free = self.in_flight < self.limit;
        if free {
            self.in_flight += 1;
            self.admitted += 1;
        }
        free
    }
}

/// Somebody who waits. Dropped, he leaves the queue, or the place that he has been given.
pub(super) struct Waiter<'a> {
    queue: &'a Queue,
    ticket: u64,
    called: Arc<Notify>,
    settled: bool,
}

impl Waiter<'_> {
    /// Ends when there is a place.
    pub(super) async fn turn(&self) {
        self.called.notified().await;
    }

    /// Takes the place, after waiting for so long.
    pub(super) fn enter(mut self, waited: Duration) {
        self.settled = true;
        let mut state = self.queue.lock();
        state.admitted += 1;
        state.queued += 1;
        state.waited += waited;
    }

    /// Waits no longer.
    pub(super) fn give_up(self) {
        self.queue.reject();
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let has_place = self.queue.lock().waiting.remove(&self.ticket).is_none();
        if has_place {
            self.queue.leave();
        }
    }
}
