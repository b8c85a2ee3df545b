//! A call's way through the breaker: in, and out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::events::{Event, EventKind, Subscribers};
use super::hot::{Hot, Timing};
use super::lane::Count;
use super::machine::{Admission, Announced, Machine};
use super::permit::{End, Handle, Permit, Ticket};
use super::policy::Waits;
use super::report::{Facts, Rejection, Snapshot, State};
use super::settings::Settings;
use super::time::Time;
use super::word::{DIRTY, WATCH, WINDOW, Word};
use crate::random::Random;
use crate::sync::{Mutex, MutexGuard, Present};

/// What the clones of a breaker share.
pub(super) struct Inner {
    pub(super) hot: Hot,
    machine: Mutex<Machine>,
    pub(super) subscribers: Subscribers,
    /// Its settings aren't those any more that it was built with.
    pub(super) reconfigured: AtomicBool,
}

#[inline]
pub(super) fn acquire(breaker: Handle<'_>) -> Result<Permit<'_>, Rejection> {
    let hot = &breaker.inner().hot;
    let word = hot.word();
    if !word.admits_all() {
        return acquire_with_care(breaker, word);
    }
    let timing = hot.begin(word);
    Ok(Permit::new(breaker, word, timing, 0))
}

fn acquire_with_care(breaker: Handle<'_>, word: Word) -> Result<Permit<'_>, Rejection> {
    let inner = breaker.inner();
    let now = inner.hot.now();
    if word.state().admits() && !inner.hangs(word, now) {
        let timing = inner.hot.start(now);
        return Ok(Permit::new(breaker, word, timing, 0));
    }
    if let Some(rejection) = inner.refuse(now) {
        return Err(rejection);
    }
    let (admission, announced, word, facts) = {
        let mut machine = inner.lock();
        let (admission, announced) = machine.admit(now, &inner.hot);
        // Under the lock: they belong together.
        (admission, announced, inner.hot.word(), inner.hot.facts.load())
    };
    inner.announce(announced);
    let probe = match admission {
        Admission::Call => 0,
        Admission::Probe(id) => id,
        Admission::Refused => return Err(inner.reject(facts, now)),
    };
    let timing = if word.has(WATCH) {
        inner.hot.start(now)
    } else {
        inner.hot.lanes.bump(Count::Started);
        Timing::NONE
    };
    Ok(Permit::new(breaker, word, timing, probe))
}

impl Inner {
    pub(super) fn new(name: &str, settings: Settings, time: Time, random: Arc<Random>) -> Self {
        let name: Arc<str> = name.into();
        let since = time.wall();
        let facts = Facts {
            name: Arc::clone(&name),
            state: State::Closed,
            reason: None,
            until: 0,
            hint: 0,
        };
        let hot = Hot::new(name, facts, time);
        let waits = Waits::new(settings.open_for, settings.longest_open, random);
        let machine = Machine::new(settings, waits, since, &hot);
        Self {
            hot,
            machine: Mutex::new(machine),
            subscribers: Subscribers::default(),
            reconfigured: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Machine> {
        // Only a policy can panic in there, and the machine is consistent before each call to it.
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reject(&self, facts: Present<Facts>, now: u64) -> Rejection {
        self.hot.lanes.bump(Count::Rejected);
        Rejection::new(facts, now)
    }

    /// A rejection, where it takes no lock to know that a call is rejected.
    fn refuse(&self, now: u64) -> Option<Rejection> {
        let facts = self.hot.facts.load();
        let refuses = !facts.state.admits() && now < facts.until;
        refuses.then(|| self.reject(facts, now))
    }

    /// [`refuse`](Self::refuse), unless every call is let through. Not inlined: what comes back is
    /// smaller than a permit.
    #[inline(never)]
    pub(super) fn refuse_now(&self) -> Option<Rejection> {
        if self.hot.word().state().admits() { None } else { self.refuse(self.hot.now()) }
    }

    /// Opens when too many calls hang; true when it did.
    fn hangs(&self, word: Word, now: u64) -> bool {
        let Some(hung) = self.hot.judge_hung(now) else {
            return false;
        };
        let announced = {
            let mut machine = self.lock();
            if machine.generation() != word.generation() || !machine.is_closed() {
                return false;
            }
            machine.hang(hung, now, &self.hot)
        };
        self.announce(Some(announced));
        true
    }

    pub(super) fn check(&self) -> Result<(), Rejection> {
        if self.hot.word().state().admits() {
            return Ok(());
        }
        let (facts, now) = (self.hot.facts.load(), self.hot.now());
        if facts.state.admits() || now >= facts.until {
            return Ok(());
        }
        Err(Rejection::new(facts, now))
    }

    pub(super) fn force(&self, state: State) {
        let announced = self.lock().force(state, &self.hot);
        self.announce(announced);
    }

    pub(super) fn reset(&self) {
        let now = self.hot.now();
        let announced = self.lock().reset(now, &self.hot);
        self.announce(Some(announced));
    }

    pub(super) fn reconfigure(&self, settings: Settings) {
        let now = self.hot.now();
        self.reconfigured.store(true, Ordering::Relaxed);
        let announced = self.lock().reconfigure(settings, now, &self.hot);
        self.announce(Some(announced));
    }

    /// Takes a permit's end into account, where it could change something.
    pub(super) fn end(&self, ticket: Ticket, end: End) {
        let (end, count) = match end {
            End::Abandoned => {
                let end = match self.given_up(ticket.timing) {
                    Some(reason) => End::Failure(reason.into()),
                    None => End::Abandoned,
                };
                (end, Count::Abandoned)
            }
            End::Success => (End::Success, Count::Succeeded),
            End::Failure(reason) => (End::Failure(reason), Count::Failed),
            End::Ignored => (End::Ignored, Count::Ignored),
        };
        if ticket.probe != 0 {
            return self.end_probe(ticket, end, count);
        }
        match end {
            End::Ignored | End::Abandoned => {
                self.count(ticket, count, self.hot.word().generation());
            }
            End::Success => self.succeed(ticket.word, ticket.timing),
            End::Failure(reason) => self.fail(ticket, reason.into(), count),
        }
    }

    /// Why a permit that is dropped without a result is a failure, if it is one.
    fn given_up(&self, timing: Timing) -> Option<String> {
        if timing.is_none() {
            return None;
        }
        let now = self.hot.now();
        let held = Duration::from_nanos(timing.held(now));
        self.hot.is_slow(timing, now).then(|| format!("given up after {} ms", held.as_millis()))
    }

    /// A result from an earlier generation is stale, whatever it is. True when it isn't.
    fn count(&self, ticket: Ticket, count: Count, present: u64) -> bool {
        let current = present == ticket.word.generation();
        let is_result = !matches!(count, Count::Abandoned);
        self.hot.end(ticket.timing, if is_result && !current { Count::Stale } else { count });
        current
    }

    /// An ordinary call succeeded.
    #[inline]
    pub(super) fn settle_success(&self, word: Word, timing: Timing) {
        if word.has(WINDOW | DIRTY) || self.hot.word() != word {
            self.succeed(word, timing);
        } else if timing.is_none() {
            // The same all the while, nothing to reset, nothing to time.
            self.hot.lanes.bump(Count::Succeeded);
        } else {
            self.hot.end_success(timing);
        }
    }

    #[inline(never)]
    fn succeed(&self, word: Word, timing: Timing) {
        let present = self.hot.word();
        let current = present.generation() == word.generation();
        let mut slow_at = None;
        // Only a closed breaker has these two.
        if current && present.has(WINDOW) {
            let now = self.hot.now();
            let slow = self.hot.is_slow(timing, now);
            self.hot.end_in_window(timing, now, slow);
            slow_at = slow.then_some(now);
        } else {
            self.hot.end(timing, if current { Count::Succeeded } else { Count::Stale });
        }
        if current && (slow_at.is_some() || present.has(DIRTY)) {
            self.note_success(present, slow_at);
        }
    }

    /// A success that may change something.
    #[cold]
    fn note_success(&self, present: Word, slow_at: Option<u64>) {
        let hot = &self.hot;
        let announced = {
            let mut machine = self.lock();
            if machine.generation() != present.generation() {
                return;
            }
            if present.has(DIRTY) {
                machine.succeed(hot);
            }
            slow_at.and_then(|now| machine.be_slow(now, hot))
        };
        self.announce(announced);
    }

    fn fail(&self, ticket: Ticket, reason: Arc<str>, count: Count) {
        let hot = &self.hot;
        let now = hot.now();
        let announced = {
            let mut machine = self.lock();
            // Under the lock, so that it is of this generation still when it is judged.
            if !self.count(ticket, count, machine.generation()) || !machine.is_closed() {
                return;
            }
            let slow = hot.is_slow(ticket.timing, now);
            if machine.has_window() {
                hot.record(now, true, slow);
            }
            machine.fail(reason, slow, now, hot)
        };
        self.announce(announced);
    }

    fn end_probe(&self, ticket: Ticket, end: End, count: Count) {
        let hot = &self.hot;
        let now = hot.now();
        let announced = {
            let mut machine = self.lock();
            let same = machine.generation() == ticket.word.generation();
            if !(same && machine.end_probe(ticket.probe)) {
                let abandoned = matches!(count, Count::Abandoned);
                hot.end(ticket.timing, if abandoned { count } else { Count::Stale });
                return;
            }
            hot.end(ticket.timing, count);
            match end {
                End::Success => Some(machine.probe_succeeded(now, hot)),
                End::Failure(reason) => Some(machine.probe_failed(reason.into(), now, hot)),
                End::Ignored | End::Abandoned => {
                    machine.free_place(hot);
                    None
                }
            }
        };
        self.announce(announced);
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let hot = &self.hot;
        let now = hot.now();
        let machine = self.lock();
        let [successes, failures, ignored, abandoned, stale] =
            [Count::Succeeded, Count::Failed, Count::Ignored, Count::Abandoned, Count::Stale]
                .map(|count| hot.lanes.sum(count));
        // After those that ended: a call that has ended has started.
        let calls = hot.lanes.sum(Count::Started);
        let facts = hot.facts.load();
        let waiting = matches!(machine.state(), State::Open | State::HalfOpen);
        let hung = if hot.word().has(WATCH) { hot.hung(now).all } else { 0 };
        Snapshot {
            name: Arc::clone(&self.hot.name),
            state: machine.state(),
            since: machine.since(),
            reason: machine.reason(),
            retry_after: waiting.then(|| Duration::from_nanos(facts.wait(now))),
            calls,
            in_flight: calls.saturating_sub(successes + failures + ignored + abandoned + stale),
            hung: u64::try_from(hung).unwrap_or_default(),
            probes: hot.word().probes(),
            successes,
            failures,
            ignored,
            abandoned,
            stale,
            rejected: hot.lanes.sum(Count::Rejected),
            opened: machine.opened,
            window: machine.has_window().then(|| machine.window_counts(now, hot)),
            dropped_events: self.subscribers.dropped(),
        }
    }

    /// Tells the world. Never called under the lock: a subscriber may ask the breaker.
    fn announce(&self, announced: Option<Announced>) {
        let Some(Announced { sequence, kind }) = announced else {
            return;
        };
        let breaker = &*self.hot.name;
        match &kind {
            EventKind::Opened { from, reason, open_for } => tracing::warn!(
                breaker,
                %from,
                to = %State::Open,
                reason = reason.as_deref(),
                open_for_ms = u64::try_from(open_for.as_millis()).unwrap_or(u64::MAX),
                "circuit breaker opened"
            ),
            EventKind::HalfOpened => tracing::info!(
                breaker,
                from = %State::Open,
                to = %State::HalfOpen,
                "circuit breaker half-open: a call probes"
            ),
            EventKind::ProbeReplaced => tracing::warn!(
                breaker,
                "the probe's lease ended without a result: another call probes"
            ),
            EventKind::Closed => tracing::info!(
                breaker,
                from = %State::HalfOpen,
                to = %State::Closed,
                "circuit breaker closed"
            ),
            EventKind::ForcedOpen => tracing::warn!(breaker, "circuit breaker forced open"),
            EventKind::ForcedClosed => tracing::warn!(breaker, "circuit breaker forced closed"),
            EventKind::Reset => tracing::warn!(breaker, "circuit breaker reset"),
            EventKind::Reconfigured => tracing::info!(breaker, "circuit breaker reconfigured"),
        }
        let event =
            Event { breaker: Arc::clone(&self.hot.name), at: self.hot.time.wall(), sequence, kind };
        self.subscribers.tell(&event);
    }
}
