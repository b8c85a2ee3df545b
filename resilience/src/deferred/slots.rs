//! How many calls of a kind run at a time: fewer at first when its dependency has just come back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The places for the calls of one kind in this process.
#[derive(Debug)]
pub(super) struct Slots {
    /// The most that there ever are.
    most: usize,
    state: Mutex<Counts>,
    freed: Notify,
}

#[derive(Debug)]
struct Counts {
    /// How many there are now.
    limit: usize,
    taken: usize,
}

/// A place for one call. Dropped, it is free again.
#[derive(Debug)]
pub(super) struct Slot(Arc<Slots>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.lock().taken -= 1;
        self.0.freed.notify_one();
    }
}

impl Slots {
    pub(super) fn new(most: u32) -> Self {
        let most = usize::try_from(most).unwrap_or(usize::MAX).max(1);
        Self { most, state: Mutex::new(Counts { limit: most, taken: 0 }), freed: Notify::new() }
    }

    /// All that are free, at most so many; waits until there is one. For one waiter at a time.
    pub(super) async fn take(self: &Arc<Self>, at_most: usize) -> Vec<Slot> {
        loop {
            let slots = self.try_take(at_most);
            if !slots.is_empty() {
                return slots;
            }
            self.freed.notified().await;
        }
    }

    /// All that are free, at most so many.
    pub(super) fn try_take(self: &Arc<Self>, at_most: usize) -> Vec<Slot> {
        let mut state = self.lock();
        let free = state.limit.saturating_sub(state.taken).min(at_most);
        state.taken += free;
        drop(state);
        (0..free).map(|_| Slot(Arc::clone(self))).collect()
    }

    /// The most that there ever are.
    #[cfg(feature = "rabbitmq")]
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// A call succeeded: up to twice as many.
    pub(super) fn grow(&self) {
        let mut state = self.lock();
        if state.limit < self.most {
            state.limit = (state.limit * 2).min(self.most);
            drop(state);
            self.freed.notify_one();
        }
    }

    /// A call failed: half as many.
    pub(super) fn shrink(&self) {
        let mut state = self.lock();
        state.limit = (state.limit / 2).max(1);
    }

    /// The dependency is away: one at a time, when it is back.
    pub(super) fn narrow(&self) {
        self.lock().limit = 1;
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_an_outage_the_places_come_back_doubling() {
        let slots = Arc::new(Slots::new(10));
        assert_eq!(slots.try_take(100).len(), 10);
        slots.narrow();
        for expected in [1, 2, 4, 8, 10, 10] {
            assert_eq!(slots.try_take(100).len(), expected);
            slots.grow();
        }
        slots.shrink();
        assert_eq!(slots.try_take(100).len(), 5);
    }

    #[test]
    fn those_that_run_when_the_places_become_fewer_count() {
        let slots = Arc::new(Slots::new(4));
        let mut running = slots.try_take(3);
        slots.narrow();
        assert!(slots.try_take(1).is_empty());
        running.truncate(1);
        assert!(slots.try_take(1).is_empty());
        running.clear();
        assert_eq!(slots.try_take(2).len(), 1);
    }
}
