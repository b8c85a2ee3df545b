use std::time::{Instant, SystemTime};

use crate::clock::{Clock, SystemClock};

/// The breaker's time: nanoseconds since it was built.
pub(super) struct Time {
    /// Nothing for the system's clock, which is asked without a detour.
    own: Option<Box<dyn Clock>>,
    origin: Instant,
}

impl Time {
    pub(super) fn new(own: Option<Box<dyn Clock>>) -> Self {
        let origin = own.as_ref().map_or_else(|| SystemClock.now(), |clock| clock.now());
        Self { own, origin }
    }

    #[inline(always)]
    pub(super) fn now(&self) -> u64 {
        let now = match &self.own {
            None => SystemClock.now(),
            Some(clock) => clock.now(),
        };
        let passed = now.saturating_duration_since(self.origin);
        // It ends after 584 years.
        u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX)
    }

    pub(super) fn wall(&self) -> SystemTime {
        self.own.as_ref().map_or_else(|| SystemClock.wall(), |clock| clock.wall())
    }
}
