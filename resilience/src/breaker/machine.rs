//! The state machine: everything that happens under the breaker's lock.
//!
//! It is given the time, and returns what is to be announced: whoever holds the lock announces
//! after giving it back. Its last act is always to [publish](Machine::publish) the word that the
//! calls read.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::events::EventKind;
use super::hot::Hot;
use super::policy::{Consecutive, FailurePolicy, Waits};
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
    policy: Rule,
    waits: Waits,
    slow_rate: Option<f64>,
    minimum_calls: u32,
    max_probes: usize,
    probe_lease: u64,
    watched: bool,
    /// When the wait ends, and how long it was.
    open_until: u64,
    open_for: Duration,
    /// In the order in which their leases end.
    probes: Vec<Probe>,
    last_probe: u64,
    /// What was in the window when it got another length, and when that was.
    carried: Option<(WindowCounts, u64)>,
    window: u64,
    pub(super) opened: u64,
    sequence: u64,
}

struct Probe {
    id: u64,
    lease_end: u64,
}

enum Rule {
    Consecutive(Consecutive),
    FailureRate(f64),
    Own(Box<dyn FailurePolicy + Send>),
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
            policy: Rule::Consecutive(Consecutive::new(1, &waits, 0)),
            open_for: waits.first(),
            waits,
            slow_rate: None,
            minimum_calls: 0,
            max_probes: 1,
            probe_lease: 0,
            watched: false,
            open_until: 0,
            probes: Vec::new(),
            last_probe: 0,
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
        self.policy = match policy {
            Policy::Consecutive(failures) => {
                let row = match &self.policy {
                    Rule::Consecutive(policy) => policy.row(),
                    Rule::FailureRate(_) | Rule::Own(_) => 0,
                };
                Rule::Consecutive(Consecutive::new(failures, &self.waits, row))
            }
            Policy::FailureRate(share) => Rule::FailureRate(share),
            Policy::Own(policy) => Rule::Own(policy),
        };
        self.slow_rate = slow_rate;
        self.minimum_calls = minimum_calls;
        self.max_probes = usize::try_from(probes).unwrap_or(usize::MAX);
        self.probe_lease = nanos(probe_lease);
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
            Some((carried, at)) if present.number - at < SLICES => sum.plus(carried),
            _ => sum,
        }
    }

    /// Whether a rate is watched.
    pub(super) fn has_window(&self) -> bool {
        self.slow_rate.is_some() || matches!(self.policy, Rule::FailureRate(_))
    }

    /// Shows what has become of it to those who don't take the lock.
    fn publish(&self, hot: &Hot) {
        let settled = match &self.policy {
            Rule::Consecutive(policy) => policy.is_settled(),
            Rule::FailureRate(_) => true,
            Rule::Own(policy) => policy.is_settled(),
        };
        let mut flags = 0;
        if self.state == State::Closed {
            flags |= if settled { 0 } else { DIRTY };
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
            // Until the leases of those that have to make way have ended.
            State::HalfOpen => {
                let last = self.probes.len().checked_sub(self.max_probes);
                last.map_or(0, |last| self.probes[last].lease_end)
            }
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
        let kind = if self.state == State::Open {
            self.enter(State::HalfOpen, hot.clock.wall());
            Some(EventKind::HalfOpened)
        } else {
            // Those that hang for longest make way: one, or more where fewer probes than before are
            // allowed. What they come to is nobody's any more.
            let in_the_way = (self.probes.len() + 1).saturating_sub(self.max_probes);
            self.probes.drain(..in_the_way);
            (in_the_way > 0).then_some(EventKind::ProbeReplaced)
        };
        self.last_probe += 1;
        let probe = Probe { id: self.last_probe, lease_end: now + self.probe_lease };
        let place = self.probes.partition_point(|other| other.lease_end <= probe.lease_end);
        self.probes.insert(place, probe);
        self.publish(hot);
        (Admission::Probe(self.last_probe), kind.map(|kind| self.announce(kind)))
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// A call succeeded while the policy remembered failures.
    pub(super) fn succeed(&mut self, hot: &Hot) {
        match &mut self.policy {
            Rule::Consecutive(policy) => policy.on_success(),
            Rule::FailureRate(_) => return,
            Rule::Own(policy) => policy.on_success(),
        }
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
        let wait = match &mut self.policy {
            Rule::Consecutive(policy) => policy.on_failure(),
            Rule::Own(policy) => policy.on_failure(),
            &mut Rule::FailureRate(share) => {
                let counts = self.window_counts(now, hot);
                self.reaches(share, counts.failures, counts.calls).then(|| self.next_wait())
            }
        };
        let wait = wait.or_else(|| if slow { self.slow_wait(now, hot) } else { None });
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
        let share = self.slow_rate?;
        let counts = self.window_counts(now, hot);
        self.reaches(share, counts.slow, counts.calls).then(|| self.next_wait())
    }

    fn reaches(&self, share: f64, part: u64, calls: u64) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "beyond 2⁵³ calls a rate may be inexact")]
        let reached = part as f64 >= share * calls as f64;
        part > 0 && calls >= u64::from(self.minimum_calls) && reached
    }

    fn next_wait(&mut self) -> Duration {
        self.waits.next().unwrap_or_else(|| self.waits.first())
    }

    /// True when this probe's result counts: it holds its place still, which is given back.
    pub(super) fn end_probe(&mut self, id: u64) -> bool {
        let place = self.probes.iter().position(|probe| probe.id == id);
        place.map(|place| self.probes.remove(place)).is_some()
    }

    /// The place of a probe that says nothing is free.
    pub(super) fn free_place(&mut self, hot: &Hot) {
        self.publish(hot);
    }

    pub(super) fn probe_succeeded(&mut self, now: u64, hot: &Hot) -> Announced {
        let from = self.state;
        self.close(now, hot);
        self.publish(hot);
        debug_assert_eq!(from, State::HalfOpen, "probes are of half-open");
        self.announce(EventKind::Closed)
    }

    pub(super) fn probe_failed(&mut self, reason: Arc<str>, now: u64, hot: &Hot) -> Announced {
        self.reason = Some(reason);
        let wait = match &mut self.policy {
            Rule::Consecutive(policy) => policy.on_failure(),
            Rule::Own(policy) => policy.on_failure(),
            Rule::FailureRate(_) => None,
        };
        let wait = wait.unwrap_or_else(|| self.next_wait());
        let opened = self.open(wait, now, hot);
        self.publish(hot);
        opened
    }

    fn open(&mut self, wait: Duration, now: u64, hot: &Hot) -> Announced {
        let from = self.state;
        self.open_for = wait.min(LONGEST_OPEN);
        self.open_until = now + nanos(self.open_for);
        self.opened += 1;
        self.enter(State::Open, hot.clock.wall());
        self.empty_window(hot);
        let (reason, open_for) = (self.reason.clone(), self.open_for);
        self.announce(EventKind::Opened { from, reason, open_for })
    }

    fn close(&mut self, now: u64, hot: &Hot) {
        self.enter(State::Closed, hot.clock.wall());
        self.reason = None;
        self.waits.restart();
        match &mut self.policy {
            Rule::Consecutive(policy) => policy.on_closed(),
            Rule::FailureRate(_) => {}
            Rule::Own(policy) => policy.on_closed(),
        }
        self.empty_window(hot);
        // Calls that began under an earlier generation open nothing, however long they hang.
        hot.watch_era.store(hot.watch_slice(now) + 1, Ordering::Relaxed);
    }

    pub(super) fn force(&mut self, state: State, hot: &Hot) -> Option<Announced> {
        if self.state == state {
            return None;
        }
        self.enter(state, hot.clock.wall());
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
    }
}
