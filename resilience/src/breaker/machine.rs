//! The state machine: everything that happens under the breaker's lock.
//!
//! It is given the time, and returns what is to be announced: whoever holds the lock announces
//! after giving it back. Its last act is always to [publish](Machine::publish) the word that the
//! calls read.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::events::EventKind;
use super::hot::Hot;
use super::policy::{Consecutive, FailurePolicy, Nothing, Waits};
use super::probes::Probes;
use super::report::{Facts, State};
use super::settings::{Policy, Settings};
use super::watch::PER_THRESHOLD;
use super::window::{SLICES, WindowCounts};
use super::word::{DIRTY, HUNG, WATCH, WINDOW, Word};
use crate::sync::Ordering;

/// What a policy asks for beyond this is cut, so that adding it to a moment can't overflow.
const LONGEST_OPEN: Duration = Duration::from_hours(24 * 365);

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.min(LONGEST_OPEN).as_nanos()).unwrap_or(u64::MAX)
}

pub(super) struct Machine {
    state: State,
    /// Raised with each change of state. Permits carry the one that they were given under; a result
    /// from an earlier one decides nothing.
    generation: u64,
    since: SystemTime,
    reason: Option<Arc<str>>,
    policy: Box<dyn FailurePolicy + Send>,
    /// Failures in a row, where the policy is the one that counts them.
    row: u32,
    counts_row: bool,
    failure_rate: Option<f64>,
    waits: Waits,
    slow_rate: Option<f64>,
    minimum_calls: u32,
    probes: Probes,
    watched: bool,
    /// When the wait ends, and how long it was.
    open_until: u64,
    open_for: Duration,
    /// What was in the window when it got another length, and when that was.
    carried: Option<(WindowCounts, u64)>,
    window: u64,
    pub(super) opened: u64,
    sequence: u64,
}

/// What is to be told, in its place among the breaker's events.
pub(super) struct Announced {
    pub(super) sequence: u64,
    pub(super) kind: EventKind,
}

pub(super) enum Admission {
    Call,
    Probe(u64),
    Refused,
}

impl Machine {
    pub(super) fn new(settings: Settings, waits: Waits, since: SystemTime, hot: &Hot) -> Self {
        let mut machine = Self {
            state: State::Closed,
            generation: 0,
            since,
            reason: None,
            policy: Box::new(Nothing),
            row: 0,
            counts_row: false,
            failure_rate: None,
            open_for: waits.first(),
            waits,
            slow_rate: None,
            minimum_calls: 0,
            probes: Probes::new(),
            watched: false,
            open_until: 0,
            carried: None,
            window: 0,
            opened: 0,
            sequence: 0,
        };
        machine.configure(settings, 0, hot);
        machine.publish(hot);
        machine
    }

    /// Takes settings over; state, row of failures and window survive.
    pub(super) fn reconfigure(&mut self, settings: Settings, now: u64, hot: &Hot) -> Announced {
        self.configure(settings, now, hot);
        self.publish(hot);
        self.announce(EventKind::Reconfigured)
    }

    fn configure(&mut self, settings: Settings, now: u64, hot: &Hot) {
        let Settings { policy, slow_rate, window, minimum_calls, .. } = settings;
        let Settings { hung_calls, open_for, longest_open, probes, probe_lease, slow_call, .. } =
            settings;
        let had_window = self.has_window();
        self.waits = self.waits.with_lengths(open_for, longest_open);
        let row = if self.counts_row { self.row } else { 0 };
        (self.row, self.counts_row, self.failure_rate) = (0, false, None);
        self.policy = match policy {
            Policy::Consecutive(failures) => {
                (self.row, self.counts_row) = (row, true);
                Box::new(Consecutive::new(failures, &self.waits, row))
            }
            Policy::FailureRate(share) => {
                self.failure_rate = Some(share);
                Box::new(Nothing)
            }
            Policy::Own(policy) => policy,
        };
        self.slow_rate = slow_rate;
        self.minimum_calls = minimum_calls;
        self.probes.places = usize::try_from(probes).unwrap_or(usize::MAX);
        self.probes.lease = nanos(probe_lease);
        self.watched = slow_call.is_some();
        hot.hung_limit.store(hung_calls.map_or(0, u64::from), Ordering::Relaxed);
        // By the new limit, also where this slice was judged by the old one.
        hot.hung_judged.store(0, Ordering::Relaxed);
        set_slow_call(slow_call.map_or(u64::MAX, nanos), hot);
        self.set_window(nanos(window), now, hot);
        if !had_window {
            // What is left from when a rate was last watched says nothing of the calls since.
            self.empty_window(hot);
        }
    }

    fn set_window(&mut self, length: u64, now: u64, hot: &Hot) {
        if self.window == length {
            return;
        }
        let carried = self.window_counts(now, hot);
        self.window = length;
        hot.window_width.store((length / SLICES).max(1), Ordering::Relaxed);
        self.empty_window(hot);
        self.carried =
            (carried != WindowCounts::default()).then(|| (carried, hot.slice(now).number));
    }

    fn empty_window(&mut self, hot: &Hot) {
        hot.window_epoch.fetch_add(1, Ordering::Relaxed);
        self.carried = None;
    }

    pub(super) fn window_counts(&self, now: u64, hot: &Hot) -> WindowCounts {
        let present = hot.slice(now);
        let sum = hot
            .lanes
            .windows()
            .fold(WindowCounts::default(), |sum, window| sum.plus(window.counts(present)));
        match self.carried {
            Some((carried, at)) if present.number.saturating_sub(at) < SLICES => sum.plus(carried),
            _ => sum,
        }
    }

    /// Whether a rate is watched.
    pub(super) fn has_window(&self) -> bool {
        self.slow_rate.is_some() || self.failure_rate.is_some()
    }

    /// Shows what has become of it to those who don't take the lock.
    fn publish(&self, hot: &Hot) {
        let mut flags = 0;
        if self.state == State::Closed {
            flags |= if self.policy.is_settled() { 0 } else { DIRTY };
            flags |= if self.has_window() { WINDOW } else { 0 };
            let hung = hot.hung_limit.load(Ordering::Relaxed) > 0 && self.watched;
            flags |= if hung { HUNG } else { 0 };
        }
        flags |= if self.watched { WATCH } else { 0 };
        // Before the word: whoever sees that it isn't closed sees why.
        hot.facts.store(Arc::new(Facts {
            name: Arc::clone(&hot.name),
            state: self.state,
            reason: self.reason.clone(),
            until: self.refused_until(),
            hint: nanos(self.waits.first()),
        }));
        let word = Word::new(self.state, flags, self.probes.len(), self.generation);
        hot.word.store(word.0, Ordering::Release);
    }

    fn refused_until(&self) -> u64 {
        match self.state {
            State::Closed | State::ForcedClosed => 0,
            State::Open => self.open_until,
            State::HalfOpen => self.probes.free_at(),
            State::ForcedOpen => u64::MAX,
        }
    }

    /// Lets a call in, or not.
    pub(super) fn admit(&mut self, now: u64, hot: &Hot) -> (Admission, Option<Announced>) {
        if self.state.admits() {
            return (Admission::Call, None);
        }
        if now < self.refused_until() {
            return (Admission::Refused, None);
        }
        let half_opened = self.state == State::Open;
        if half_opened {
            self.enter(State::HalfOpen, hot.time.wall());
        }
        let (probe, replaced) = self.probes.begin(now);
        self.publish(hot);
        let kind = match (half_opened, replaced) {
            (true, _) => Some(EventKind::HalfOpened),
            (false, true) => Some(EventKind::ProbeReplaced),
            (false, false) => None,
        };
        (Admission::Probe(probe), kind.map(|kind| self.announce(kind)))
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// A call succeeded while the policy remembered failures.
    pub(super) fn succeed(&mut self, hot: &Hot) {
        self.row = 0;
        self.policy.on_success();
        self.publish(hot);
    }

    /// A call failed while closed. It is in the window already.
    pub(super) fn fail(
        &mut self,
        reason: Arc<str>,
        slow: bool,
        now: u64,
        hot: &Hot,
    ) -> Option<Announced> {
        self.reason = Some(reason);
        self.row = self.row.saturating_add(1);
        let wait = self
            .policy
            .on_failure()
            .or_else(|| self.rate_wait(self.failure_rate, |counts| counts.failures, now, hot))
            .or_else(|| if slow { self.slow_wait(now, hot) } else { None });
        let opened = wait.map(|wait| self.open(wait, now, hot));
        self.publish(hot);
        opened
    }

    /// A slow success ended while closed. It is in the window already.
    pub(super) fn be_slow(&mut self, now: u64, hot: &Hot) -> Option<Announced> {
        let wait = self.slow_wait(now, hot)?;
        let threshold = Duration::from_nanos(hot.slow.load(Ordering::Relaxed));
        self.reason = Some(format!("too many calls took longer than {threshold:?}").into());
        let opened = self.open(wait, now, hot);
        self.publish(hot);
        Some(opened)
    }

    /// Too many calls are in flight for too long.
    pub(super) fn hang(&mut self, hung: i64, now: u64, hot: &Hot) -> Announced {
        let threshold = Duration::from_nanos(hot.slow.load(Ordering::Relaxed));
        let what = if hung == 1 { "call has" } else { "calls have" };
        self.reason =
            Some(format!("{hung} {what} been waiting for more than {threshold:?}").into());
        let wait = self.next_wait();
        let opened = self.open(wait, now, hot);
        self.publish(hot);
        opened
    }

    fn slow_wait(&mut self, now: u64, hot: &Hot) -> Option<Duration> {
        self.rate_wait(self.slow_rate, |counts| counts.slow, now, hot)
    }

    /// For how long this rate opens the breaker now, if it does.
    fn rate_wait(
        &mut self,
        rate: Option<f64>,
        part: impl Fn(WindowCounts) -> u64,
        now: u64,
        hot: &Hot,
    ) -> Option<Duration> {
        let share = rate?;
        let counts = self.window_counts(now, hot);
        let (part, calls) = (part(counts), counts.calls);
        #[expect(clippy::cast_precision_loss, reason = "beyond 2⁵³ calls a rate may be inexact")]
        let reached = part as f64 >= share * calls as f64;
        let opens = part > 0 && calls >= u64::from(self.minimum_calls) && reached;
        opens.then(|| self.next_wait())
    }

    fn next_wait(&mut self) -> Duration {
        self.waits.next().unwrap_or_else(|| self.waits.first())
    }

    /// True when this probe's result counts: it holds its place still, which is given back.
    pub(super) fn end_probe(&mut self, id: u64) -> bool {
        self.probes.end(id)
    }

    /// The place of a probe that says nothing is free.
    pub(super) fn free_place(&mut self, hot: &Hot) {
        self.publish(hot);
    }

    pub(super) fn probe_succeeded(&mut self, now: u64, hot: &Hot) -> Announced {
        self.close(now, hot);
        self.publish(hot);
        self.announce(EventKind::Closed)
    }

    pub(super) fn probe_failed(&mut self, reason: Arc<str>, now: u64, hot: &Hot) -> Announced {
        self.reason = Some(reason);
        let wait = self.policy.on_failure().unwrap_or_else(|| self.next_wait());
        let opened = self.open(wait, now, hot);
        self.publish(hot);
        opened
    }

    fn open(&mut self, wait: Duration, now: u64, hot: &Hot) -> Announced {
        let from = self.state;
        self.open_for = wait.min(LONGEST_OPEN);
        self.open_until = now.saturating_add(nanos(self.open_for));
        self.opened += 1;
        self.enter(State::Open, hot.time.wall());
        self.empty_window(hot);
        let (reason, open_for) = (self.reason.clone(), self.open_for);
        self.announce(EventKind::Opened { from, reason, open_for })
    }

    fn close(&mut self, now: u64, hot: &Hot) {
        self.enter(State::Closed, hot.time.wall());
        self.reason = None;
        self.waits.restart();
        self.row = 0;
        self.policy.on_closed();
        self.empty_window(hot);
        // Calls that began under an earlier generation open nothing, however long they hang.
        let era = hot.watch_slice(now) + 1;
        hot.watch_era.store(era, Ordering::Relaxed);
        hot.watch_from.store(now, Ordering::Relaxed);
    }

    pub(super) fn force(&mut self, state: State, hot: &Hot) -> Option<Announced> {
        if self.state == state {
            return None;
        }
        self.enter(state, hot.time.wall());
        self.empty_window(hot);
        self.publish(hot);
        let open = state == State::ForcedOpen;
        Some(self.announce(if open { EventKind::ForcedOpen } else { EventKind::ForcedClosed }))
    }

    pub(super) fn reset(&mut self, now: u64, hot: &Hot) -> Announced {
        self.close(now, hot);
        self.publish(hot);
        self.announce(EventKind::Reset)
    }

    fn enter(&mut self, state: State, since: SystemTime) {
        self.state = state;
        self.generation += 1;
        self.since = since;
        self.probes.clear();
    }

    fn announce(&mut self, kind: EventKind) -> Announced {
        self.sequence += 1;
        Announced { sequence: self.sequence, kind }
    }

    pub(super) fn since(&self) -> SystemTime {
        self.since
    }

    pub(super) fn reason(&self) -> Option<Arc<str>> {
        self.reason.clone()
    }

    pub(super) fn state(&self) -> State {
        self.state
    }
}

fn set_slow_call(threshold: u64, hot: &Hot) {
    if hot.slow.swap(threshold, Ordering::Relaxed) != threshold {
        hot.watch_width.store(threshold.div_ceil(PER_THRESHOLD).max(1), Ordering::Relaxed);
        hot.watch_plan.fetch_add(1, Ordering::Relaxed);
        // Of slices of the former width.
        hot.watch_era.store(0, Ordering::Relaxed);
        hot.watch_from.store(0, Ordering::Relaxed);
    }
}
