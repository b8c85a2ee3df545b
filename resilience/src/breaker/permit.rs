use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::hot::Timing;
use super::inner::Inner;
use super::lane::Count;
use super::word::Word;
use crate::classify::Verdict;

/// Leave to make one call. Hold it for as long as the call takes, and end it with its result.
///
/// Dropping it (a timeout from outside, a client gone, a panic) gives its place back and is never
/// a success; after more than [`slow_call`](super::Settings::slow_call) it is a failure.
/// So put the call's own timeout *inside*: a timeout around the permit says nothing in time.
///
/// A permit of [`Breaker::acquire`](super::Breaker::acquire) borrows the breaker, which costs
/// nothing; one of [`Breaker::acquire_owned`](super::Breaker::acquire_owned) can go anywhere.
#[must_use = "dropping a permit abandons the call"]
pub struct Permit<'a> {
    breaker: Handle<'a>,
    ticket: Ticket,
}

pub(super) enum Handle<'a> {
    Borrowed(&'a Inner),
    Owned(Arc<Inner>),
}

impl Handle<'_> {
    #[inline]
    pub(super) fn inner(&self) -> &Inner {
        match self {
            Self::Borrowed(inner) => inner,
            Self::Owned(inner) => inner,
        }
    }
}

/// What a permit knows of its beginning. Whole words only: they stay in registers.
#[derive(Clone, Copy)]
pub(super) struct Ticket {
    /// What the breaker's word was: it holds the generation.
    pub(super) word: Word,
    pub(super) timing: Timing,
    /// Which probe this is; zero for an ordinary call.
    pub(super) probe: u64,
}

/// In the place of a probe: the result is in.
const ENDED: u64 = u64::MAX;

/// How a call ended.
pub(super) enum End {
    Success,
    Failure(Cow<'static, str>),
    Ignored,
    Abandoned,
}

/// A permit for the most frequent case: closed, nothing to reset, nothing to time.
pub(super) struct Plain<'a> {
    inner: &'a Inner,
    word: Word,
}

impl<'a> Plain<'a> {
    #[inline]
    pub(super) fn acquire(inner: &'a Inner) -> Option<Self> {
        let word = inner.hot.word();
        word.is_plain().then(|| {
            inner.hot.lanes.bump(Count::Started);
            Self { inner, word }
        })
    }

    #[inline]
    pub(super) fn settle(self, verdict: Verdict) {
        let Self { inner, word } = self;
        std::mem::forget(self);
        if verdict == Verdict::Success && inner.hot.word() == word {
            inner.hot.lanes.bump(Count::Succeeded);
        } else {
            Permit::new(Handle::Borrowed(inner), word, Timing::NONE, 0).settle(verdict);
        }
    }
}

impl Drop for Plain<'_> {
    #[cold]
    fn drop(&mut self) {
        drop(Permit::new(Handle::Borrowed(self.inner), self.word, Timing::NONE, 0));
    }
}

/// A permit of a breaker that lets everything through, made without a result: unlike a [`Permit`]
/// that comes out of one it stays in registers.
pub(super) struct Quick<'a> {
    inner: &'a Inner,
    word: Word,
    timing: Timing,
}

impl<'a> Quick<'a> {
    #[inline]
    pub(super) fn acquire(inner: &'a Inner) -> Option<Self> {
        let word = inner.hot.word();
        word.admits_all().then(|| Self { inner, word, timing: inner.hot.begin(word) })
    }

    #[inline]
    pub(super) fn settle(self, verdict: Verdict) {
        let Self { inner, word, timing } = self;
        std::mem::forget(self);
        if verdict == Verdict::Success {
            inner.settle_success(word, timing);
        } else {
            Permit::new(Handle::Borrowed(inner), word, timing, 0).settle(verdict);
        }
    }
}

impl Drop for Quick<'_> {
    fn drop(&mut self) {
        drop(Permit::new(Handle::Borrowed(self.inner), self.word, self.timing, 0));
    }
}

impl<'a> Permit<'a> {
    #[inline]
    pub(super) fn new(breaker: Handle<'a>, word: Word, timing: Timing, probe: u64) -> Self {
        Self { breaker, ticket: Ticket { word, timing, probe } }
    }

    /// The dependency did what it was asked, or said no as it should.
    #[inline]
    pub fn success(mut self) {
        let Ticket { word, timing, probe } = self.ticket;
        self.ticket.probe = ENDED;
        let inner = self.breaker.inner();
        if probe == 0 {
            inner.settle_success(word, timing);
        } else {
            inner.end(Ticket { word, timing, probe }, End::Success);
        }
    }

    /// The dependency failed. The reason is shown to users while the breaker is open: no
    /// addresses, no internals.
    pub fn failure(mut self, reason: impl Into<Cow<'static, str>>) {
        self.end(End::Failure(reason.into()));
    }

    /// The call says nothing about the dependency: changes no state, a probe's place is given back.
    pub fn ignored(mut self) {
        self.end(End::Ignored);
    }

    /// Ends with what a [`Classify`](crate::classify::Classify) made of the result.
    #[inline]
    pub fn settle(self, verdict: Verdict) {
        match verdict {
            Verdict::Success => self.success(),
            Verdict::Failure(reason) => self.failure(reason),
            Verdict::Ignored => self.ignored(),
        }
    }

    fn end(&mut self, end: End) {
        let ticket = self.ticket;
        self.ticket.probe = ENDED;
        self.breaker.inner().end(ticket, end);
    }
}

impl Drop for Permit<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.ticket.probe != ENDED {
            self.end(End::Abandoned);
        }
    }
}

impl fmt::Debug for Permit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("breaker", &self.breaker.inner().hot.name)
            .field("generation", &self.ticket.word.generation())
            .field("probe", &(self.ticket.probe != 0))
            .finish_non_exhaustive()
    }
}
