use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::clock::Clock;

/// A clock that stands still until it is told to move. Clones share the time.
///
/// ```
/// use resilience::Clock;
/// use resilience::testkit::ManualClock;
/// use std::time::Duration;
///
/// let clock = ManualClock::new();
/// let start = clock.now();
/// clock.clone().advance(Duration::from_secs(6));
/// assert_eq!(clock.now() - start, Duration::from_secs(6));
/// ```
#[derive(Clone, Debug)]
pub struct ManualClock {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    now: Instant,
    wall: SystemTime,
    #[cfg(feature = "pipeline")]
    sleepers: Vec<(Instant, std::task::Waker)>,
}

/// The first second of the year 2000: 30 years, 7 of them leap years.
const WALL: Duration = Duration::from_hours((30 * 365 + 7) * 24);

impl ManualClock {
    /// A clock whose time of day is the beginning of the year 2000.
    pub fn new() -> Self {
        let shared = Shared {
            now: Instant::now(),
            wall: SystemTime::UNIX_EPOCH + WALL,
            #[cfg(feature = "pipeline")]
            sleepers: Vec::new(),
        };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }

    /// Moves the time of this clock and of all its clones forward, and wakes who has slept for
    /// long enough.
    ///
    /// # Panics
    ///
    /// When the platform can't represent the resulting time.
    pub fn advance(&self, by: Duration) {
        let mut shared = self.lock();
        shared.now += by;
        shared.wall += by;
        #[cfg(feature = "pipeline")]
        {
            let now = shared.now;
            let due: Vec<_> = shared.sleepers.extract_if(.., |(until, _)| *until <= now).collect();
            drop(shared);
            for (_, waker) in due {
                waker.wake();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        self.lock().now
    }

    fn wall(&self) -> SystemTime {
        self.lock().wall
    }

    #[cfg(feature = "pipeline")]
    fn sleep_until(&self, moment: Instant) -> futures_util::future::BoxFuture<'static, ()> {
        let clock = self.clone();
        Box::pin(std::future::poll_fn(move |cx| {
            let mut shared = clock.lock();
            if moment <= shared.now {
                return std::task::Poll::Ready(());
            }
            shared.sleepers.push((moment, cx.waker().clone()));
            std::task::Poll::Pending
        }))
    }
}
