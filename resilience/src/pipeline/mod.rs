//! All that stands between a caller and a dependency, in one fixed order.
#![doc = include_str!("../../docs/pipeline.md")]

mod builder;
mod counts;
mod error;
#[cfg(test)]
mod tests;

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use builder::PipelineBuilder;
pub use counts::PipelineSnapshot;
pub use error::{AnyError, Error, ErrorKind};

use counts::Counts;
pub(crate) use error::NoAnswer;

use crate::breaker::{Breaker, Permit};
use crate::bulkhead::Bulkhead;
use crate::call::{Attempt, Call};
use crate::classify::{Classify, Verdict};
use crate::clock::Clock;
use crate::deadline::{Deadline, LEAST};
use crate::retry::{Advice, Advise, Retry, Retryable, by_error};
use crate::timer;

/// The stages round the calls to one dependency; see the [module](self) for their order. Clones are
/// cheap and share everything.
#[derive(Clone)]
pub struct Pipeline {
    inner: Arc<Inner>,
}

struct Inner {
    name: Arc<str>,
    longest: Option<Duration>,
    bulkhead: Option<Bulkhead>,
    retry: Option<Retry>,
    breaker: Option<Breaker>,
    timeout: Option<Duration>,
    clock: Box<dyn Clock>,
    counts: Counts,
}

/// The end of an attempt's time.
#[derive(Clone, Copy)]
struct Limit {
    end: Instant,
    time: Duration,
    /// Less than the attempt's own timeout.
    inherited: bool,
    /// The attempt has no timeout of its own at all.
    outer: bool,
}

impl Limit {
    fn own(time: Duration, now: Instant) -> Self {
        Self { end: Deadline::since(now, time).moment(), time, inherited: false, outer: false }
    }
}

impl Pipeline {
    /// Starts building a pipeline. The name is the dependency's.
    pub fn builder(name: impl Into<String>) -> PipelineBuilder {
        PipelineBuilder::new(name.into())
    }

    /// The name that it was built with.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Its bulkhead, if it has one.
    pub fn bulkhead(&self) -> Option<&Bulkhead> {
        self.inner.bulkhead.as_ref()
    }

    /// Its retry, if it has one.
    pub fn retry(&self) -> Option<&Retry> {
        self.inner.retry.as_ref()
    }

    /// Its breaker, if it has one.
    pub fn breaker(&self) -> Option<&Breaker> {
        self.inner.breaker.as_ref()
    }

    /// Makes a call. The operation is called once per attempt, and knows from the [`Attempt`] how
    /// long it may take.
    ///
    /// `Ok` is a success for the breaker, and `Err` a failure whose text is the reason, unless the
    /// error names a [system further down](Advice::downstream): then the one that was called has
    /// answered, and is fine.
    ///
    /// Dropping the future abandons the call.
    ///
    /// # Errors
    ///
    /// What became of the last attempt, and whether any may have had an effect.
    pub async fn call<T, E, F>(
        &self,
        call: Call,
        op: impl FnMut(Attempt) -> F,
    ) -> Result<T, Error<E>>
    where
        E: Retryable + fmt::Display,
        F: Future<Output = Result<T, E>>,
    {
        self.call_with(&classify, &by_error, call, op).await
    }

    /// [`call`](Self::call), with your own view of what a result says about the dependency, and of
    /// what is worth another attempt ([`Never`](crate::retry::Never) for nothing).
    ///
    /// An attempt that times out is a failure and worth another one; under an inherited limit it is
    /// the last, and ignored, or where there is no timeout that the limit could be shorter than,
    /// [abandoned](Permit): a failure after the breaker's slow threshold. One that the breaker
    /// rejects is the last as well.
    ///
    /// # Errors
    ///
    /// What became of the last attempt, and whether any may have had an effect.
    pub async fn call_with<T, E, F>(
        &self,
        classify: &impl Classify<Result<T, E>>,
        advise: &impl Advise<Result<T, E>>,
        call: Call,
        mut op: impl FnMut(Attempt) -> F,
    ) -> Result<T, Error<E>>
    where
        F: Future<Output = Result<T, E>>,
    {
        let inner = &*self.inner;
        let mut now = inner.clock.now();
        let call = inner.narrow(call, now);
        if let Err(kind) = inner.limit(&call, now) {
            inner.counts.exceeded(&inner.name);
            return Err(Error::new(kind, 0, false));
        }
        let mut run = inner.retry.as_ref().map(|retry| retry.begin(&call, now));
        let _place = match &inner.bulkhead {
            None => None,
            Some(bulkhead) => Some(if let Some(place) = bulkhead.place() {
                place
            } else {
                let place = bulkhead.acquire(call.deadline).await;
                now = inner.clock.now();
                place.map_err(|full| Error::new(ErrorKind::BulkheadFull(full), 0, false))?
            }),
        };
        let (mut attempts, mut acted) = (0, false);
        let mut last = None;
        loop {
            let limit = match inner.limit(&call, now) {
                Ok(limit) => limit,
                Err(kind) => {
                    // A wait took longer than it should. The failure before it says more.
                    inner.counts.exceeded(&inner.name);
                    return Err(Error::new(last.unwrap_or(kind), attempts, acted));
                }
            };
            let permit = match inner.breaker.as_ref().map(Breaker::acquire).transpose() {
                Ok(permit) => permit,
                Err(no) => return Err(Error::new(ErrorKind::Rejected(no), attempts, acted)),
            };
            attempts += 1;
            let outcome = {
                let future = pin!(op(Attempt::new(attempts, limit)));
                match &limit {
                    None => Ok(future.await),
                    Some(limit) => {
                        let ended = timer::until(&*inner.clock, limit.end, future).await;
                        ended.ok_or(limit)
                    }
                }
            };
            let (result, advice) = match outcome {
                Ok(result) => {
                    let advice = inner.judge(permit, classify, advise, &result);
                    (result.map_err(ErrorKind::Failed), advice)
                }
                Err(limit) => {
                    let advice = inner.time_out(permit, advise, limit);
                    let &Limit { time: limit, inherited, .. } = limit;
                    (Err(ErrorKind::TimedOut { limit, inherited }), advice)
                }
            };
            acted |= !advice.is_without_effect();
            let next = match &mut run {
                Some(run) if advice.is_retry() => run.next(advice, inner.clock.now()),
                _ => None,
            };
            let Some(moment) = next else {
                return result.map_err(|kind| Error::new(kind, attempts, acted));
            };
            // An answer isn't kept meanwhile: it may hold a connection.
            last = result.err();
            inner.clock.sleep_until(moment).await;
            now = inner.clock.now();
        }
    }

    /// What it has counted since it was built; its stages count for themselves.
    pub fn snapshot(&self) -> PipelineSnapshot {
        self.inner.counts.snapshot(&self.inner.name)
    }
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline")
            .field("name", &self.inner.name)
            .field("bulkhead", &self.inner.bulkhead)
            .field("retry", &self.inner.retry)
            .field("breaker", &self.inner.breaker)
            .field("timeout", &self.inner.timeout)
            .finish_non_exhaustive()
    }
}

impl Inner {
    /// With the deadline that this pipeline sets.
    fn narrow(&self, call: Call, now: Instant) -> Call {
        let Some(longest) = self.longest else {
            return call;
        };
        let own = Deadline::since(now, longest);
        call.deadline(call.deadline.map_or(own, |deadline| deadline.min(own)))
    }

    /// The time for an attempt that begins now, where there is a limit.
    fn limit<E>(&self, call: &Call, now: Instant) -> Result<Option<Limit>, ErrorKind<E>> {
        let timeout = call.timeout.or(self.timeout);
        let own = timeout.or(self.longest);
        let Some(deadline) = call.deadline else {
            return Ok(own.map(|time| Limit::own(time, now)));
        };
        let left = deadline.remaining_at(now);
        if left < LEAST {
            return Err(ErrorKind::DeadlineExceeded);
        }
        Ok(Some(match own {
            Some(time) if time <= left => Limit::own(time, now),
            _ => Limit {
                end: deadline.moment(),
                time: left,
                inherited: true,
                outer: timeout.is_none(),
            },
        }))
    }

    /// Takes an attempt's result into account, and says what to do about it.
    #[inline]
    fn judge<R>(
        &self,
        permit: Option<Permit<'_>>,
        classify: &impl Classify<R>,
        advise: &impl Advise<R>,
        result: &R,
    ) -> Advice {
        let verdict = classify.classify(result);
        let advice = advise.advise(result);
        if let Some(retry) = &self.retry
            && verdict == Verdict::Success
            && !(advice.is_retry() || advice.is_downstream())
        {
            retry.budget().deposit();
        }
        if let Some(permit) = permit {
            permit.settle(verdict);
        }
        advice
    }

    /// [`judge`](Self::judge), for an attempt that has no result.
    fn time_out<R>(
        &self,
        permit: Option<Permit<'_>>,
        advise: &impl Advise<R>,
        limit: &Limit,
    ) -> Advice {
        let &Limit { time, inherited, outer, .. } = limit;
        self.counts.timeout(&self.name, time, inherited);
        if outer {
            // Nobody has said how long it may take. It is given up like any call that is cut from
            // outside, or one that hangs for as long as every deadline would never open the breaker.
            drop(permit);
            return Advice::never();
        }
        let (verdict, advice) = if inherited {
            // It wasn't given the time that it may take.
            (Verdict::Ignored, Advice::never())
        } else {
            (Verdict::Failure(NoAnswer(time).to_string().into()), advise.advise_on_timeout())
        };
        if let Some(permit) = permit {
            permit.settle(verdict);
        }
        advice
    }
}

impl Attempt {
    fn new(number: u32, limit: Option<Limit>) -> Self {
        Self {
            number,
            deadline: limit.map(|limit| Deadline::at(limit.end)),
            limit: limit.map(|limit| limit.time),
        }
    }
}

/// What `Ok` and `Err` say, unless something else is said.
fn classify<T, E: Retryable + fmt::Display>(result: &Result<T, E>) -> Verdict {
    match result {
        Err(error) if !error.advice().is_downstream() => Verdict::Failure(error.to_string().into()),
        _ => Verdict::Success,
    }
}
