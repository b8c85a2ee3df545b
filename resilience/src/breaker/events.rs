//! Changes of state, told to whoever wants to know.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Poll, Waker};
use std::time::{Duration, SystemTime};

use super::report::State;

/// Something that happened to a breaker.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Event {
    /// The breaker's name.
    pub breaker: Arc<str>,
    /// When.
    pub at: SystemTime,
    /// Counts the breaker's events from 1: with several threads they can arrive in another order
    /// than they happened in.
    pub sequence: u64,
    /// What.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum EventKind {
    /// It opened.
    Opened {
        /// [`State::Closed`], or [`State::HalfOpen`] when a probe failed.
        from: State,
        /// What the last failure was.
        reason: Option<Arc<str>>,
        /// How long it stays open.
        open_for: Duration,
    },
    /// The wait is over: a call probes.
    HalfOpened,
    /// A probe's lease ended without a result: another call probes in its place.
    ProbeReplaced,
    /// A probe succeeded.
    Closed,
    /// An operator forced it open.
    ForcedOpen,
    /// An operator forced it closed.
    ForcedClosed,
    /// An operator closed it and had it forget everything.
    Reset,
    /// Its settings were changed.
    Reconfigured,
}

/// What happens to a breaker from now on; from [`Breaker::subscribe`](super::Breaker::subscribe).
///
/// It holds as many events as it was made for. What comes while it is full is dropped, and counted:
/// a slow subscriber slows nobody else.
#[derive(Debug)]
pub struct Events {
    queue: Arc<Queue>,
}

#[derive(Debug)]
struct Queue {
    capacity: usize,
    state: Mutex<Waiting>,
    arrived: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<Event>,
    waker: Option<Waker>,
    /// The breaker is gone: nothing more comes.
    ended: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Events {
    /// The next event, if one is there.
    pub fn try_recv(&self) -> Option<Event> {
        self.queue.lock().events.pop_front()
    }

    /// The next event. Blocks the thread for it, at most this long, and not once the breaker is
    /// gone.
    pub fn recv_timeout(&self, limit: Duration) -> Option<Event> {
        let waiting = self.queue.lock();
        let empty = |waiting: &mut Waiting| waiting.events.is_empty() && !waiting.ended;
        let waited = self.queue.arrived.wait_timeout_while(waiting, limit, empty);
        waited.unwrap_or_else(PoisonError::into_inner).0.events.pop_front()
    }

    /// The next event, whenever it comes; none once the breaker is gone. Nothing is lost when the
    /// future is dropped.
    pub async fn recv(&mut self) -> Option<Event> {
        poll_fn(|cx| {
            let mut waiting = self.queue.lock();
            if let Some(event) = waiting.events.pop_front() {
                return Poll::Ready(Some(event));
            }
            if waiting.ended {
                return Poll::Ready(None);
            }
            waiting.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// How many events it was too slow for.
    pub fn dropped(&self) -> u64 {
        self.queue.dropped.load(Ordering::Relaxed)
    }
}

/// The breaker's side.
#[derive(Default)]
pub(super) struct Subscribers {
    queues: Mutex<Vec<Weak<Queue>>>,
    dropped: AtomicU64,
}

impl Subscribers {
    pub(super) fn add(&self, capacity: usize) -> Events {
        let queue = Arc::new(Queue {
            capacity: capacity.max(1),
            state: Mutex::default(),
            arrived: Condvar::new(),
            dropped: AtomicU64::new(0),
        });
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.retain(|queue| queue.strong_count() > 0);
        queues.push(Arc::downgrade(&queue));
        Events { queue }
    }

    /// Never called under the breaker's lock: a woken subscriber may ask the breaker.
    pub(super) fn tell(&self, event: &Event) {
        let queues: Vec<_> = {
            let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
            queues.iter().filter_map(Weak::upgrade).collect()
        };
        for queue in queues {
            let mut waiting = queue.lock();
            if waiting.events.len() >= queue.capacity {
                queue.dropped.fetch_add(1, Ordering::Relaxed);
                self.dropped.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            waiting.events.push_back(event.clone());
            let waker = waiting.waker.take();
            drop(waiting);
            queue.arrived.notify_one();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// Whether anybody listens.
    pub(super) fn is_any(&self) -> bool {
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.iter().any(|queue| queue.strong_count() > 0)
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for Subscribers {
    fn drop(&mut self) {
        let queues = self.queues.get_mut().unwrap_or_else(PoisonError::into_inner);
        for queue in queues.iter().filter_map(Weak::upgrade) {
            let mut waiting = queue.lock();
            waiting.ended = true;
            let waker = waiting.waker.take();
            drop(waiting);
            queue.arrived.notify_all();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn subscribers_that_are_gone_leave_nothing_behind() {
        let subscribers = Subscribers::default();
        let _stays = subscribers.add(1);
        for _ in 0..100 {
            drop(subscribers.add(1));
        }
        // The last one goes when another one comes.
        assert_eq!(subscribers.queues.lock().unwrap().len(), 2);
    }
}
