use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Counts, Inner, Pipeline};
use crate::breaker::Breaker;
use crate::bulkhead::Bulkhead;
use crate::clock::{Clock, SystemClock};
use crate::retry::Retry;

/// The stages of a [`Pipeline`]; made by [`Pipeline::builder`]. Each that isn't given is left out;
/// the order in which they are given doesn't matter.
#[must_use]
pub struct PipelineBuilder {
    name: String,
    longest: Option<Duration>,
    bulkhead: Option<Bulkhead>,
    retry: Option<Retry>,
    breaker: Option<Breaker>,
    timeout: Option<Duration>,
    clock: Box<dyn Clock>,
}

impl PipelineBuilder {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            longest: None,
            bulkhead: None,
            retry: None,
            breaker: None,
            timeout: None,
            clock: Box::new(SystemClock),
        }
    }

    /// How long a call may take, waits and repetitions included: narrows its own
    /// [deadline](crate::call::Call::deadline), and is one for calls that have none.
    pub fn longest(mut self, longest: Duration) -> Self {
        self.longest = Some(longest);
        self
    }

    /// Bounds the calls in flight. It can be shared by several pipelines, as can all stages.
    pub fn bulkhead(mut self, bulkhead: Bulkhead) -> Self {
        self.bulkhead = Some(bulkhead);
        self
    }

    /// Repeats what is worth it.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = Some(retry);
        self
    }

    /// Rejects while the dependency is down.
    pub fn breaker(mut self, breaker: Breaker) -> Self {
        self.breaker = Some(breaker);
        self
    }

    /// How long an attempt may take; a call can have its
    /// [own](crate::call::Call::timeout).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Where the time comes from for deadlines, timeouts and the waits between attempts. The default
    /// is the [`SystemClock`]. Breaker, bulkhead and retry budget have clocks of their own.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Box::new(clock);
        self
    }

    /// The pipeline.
    pub fn build(self) -> Pipeline {
        let Self { name, longest, bulkhead, retry, breaker, timeout, clock } = self;
        Pipeline {
            inner: Arc::new(Inner {
                name: name.into(),
                longest,
                bulkhead,
                retry,
                breaker,
                timeout,
                clock,
                counts: Counts::default(),
            }),
        }
    }
}

impl fmt::Debug for PipelineBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipelineBuilder")
            .field("name", &self.name)
            .field("longest", &self.longest)
            .field("bulkhead", &self.bulkhead)
            .field("retry", &self.retry)
            .field("breaker", &self.breaker)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
