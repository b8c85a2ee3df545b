use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::Inner;
use super::machine::Outcome;

/// Leave to make one call. Hold it for as long as the call takes, and end it with its result.
///
/// Dropping it (a timeout from outside, a client gone, a panic) gives its place back and is never
/// a success; after more than [`slow_call`](super::BreakerBuilder::slow_call) it is a failure.
/// So put the call's own timeout *inside*: a timeout around the permit says nothing in time.
#[must_use = "dropping a permit abandons the call"]
pub struct Permit {
    breaker: Arc<Inner>,
    generation: u64,
    started: Instant,
    ended: bool,
}

impl Permit {
    pub(super) fn new(breaker: Arc<Inner>, generation: u64, started: Instant) -> Self {
        Self { breaker, generation, started, ended: false }
    }

    /// The dependency did what it was asked, or said no as it should.
    pub fn success(mut self) {
        self.end(Outcome::Success);
    }

    /// The dependency failed. The reason is shown to users while the breaker is open: no
    /// addresses, no internals.
    pub fn failure(mut self, reason: impl Into<String>) {
        self.end(Outcome::Failure(reason.into().into()));
    }

    /// The call says nothing about the dependency: changes no state, a probe's place is given back.
    pub fn ignored(mut self) {
        self.end(Outcome::Ignored);
    }

    fn end(&mut self, outcome: Outcome) {
        self.ended = true;
        let now = self.breaker.clock.now();
        let event = self.breaker.lock().settle(self.generation, outcome, now);
        self.breaker.announce(event);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let held = self.breaker.clock.now().saturating_duration_since(self.started);
        let slow = held > self.breaker.slow_call;
        self.end(Outcome::Abandoned { slow: slow.then_some(held) });
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("breaker", &self.breaker.name)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}
