//! Where the library gets its time from, so that tests can turn it by hand.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// The time, as the library sees it: nothing in it asks the system itself.
///
/// Tests turn `testkit::ManualClock` by hand.
pub trait Clock: Send + Sync + 'static {
    /// The present moment of a monotonic clock. Never goes back.
    fn now(&self) -> Instant;

    /// The time of day, for people: shown, and never reckoned with.
    fn wall(&self) -> SystemTime;

    /// Ends when [`now`](Self::now) has reached this moment. The default is Tokio's timer, which
    /// fits any clock that runs as the system's does.
    #[cfg(feature = "pipeline")]
    fn sleep_until(&self, moment: Instant) -> futures_util::future::BoxFuture<'static, ()> {
        // Unconstrained: a timer that yields to Tokio's budget never fires beside work that uses
        // the budget up, and it is there to end just such work.
        Box::pin(tokio::task::unconstrained(tokio::time::sleep_until(moment.into())))
    }
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Instant {
        (**self).now()
    }

    fn wall(&self) -> SystemTime {
        (**self).wall()
    }

    #[cfg(feature = "pipeline")]
    fn sleep_until(&self, moment: Instant) -> futures_util::future::BoxFuture<'static, ()> {
        (**self).sleep_until(moment)
    }
}

/// The system's clocks. With the feature `pipeline`, the monotonic one follows Tokio's paused time.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[cfg(feature = "pipeline")]
    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    #[cfg(not(feature = "pipeline"))]
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }
}
