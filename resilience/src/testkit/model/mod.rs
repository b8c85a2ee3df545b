//! A breaker that is too simple to be wrong, to hold the real one against: in property tests of
//! your own policies, and of what you wrap round a breaker.
//!
//! It is written from what the breaker promises, not from how it is made: it keeps lists where the
//! breaker counts, and looks through all of them for every question. Time is a [`Duration`] since
//! it was made, and passes when it is told.
//!
//! ```
//! use std::time::Duration;
//!
//! use resilience::Breaker;
//! use resilience::testkit::ManualClock;
//! use resilience::testkit::model::{Ending, Model, Spec};
//!
//! let spec = Spec::default();
//! let clock = ManualClock::new();
//! let breaker =
//!     Breaker::builder("billing").settings(spec.settings()).clock(clock.clone()).build();
//! let mut model = Model::new(spec);
//!
//! // A property test does this with steps that it makes up.
//! for _ in 0..3 {
//!     let (permit, ticket) = (breaker.acquire().unwrap(), model.acquire().unwrap());
//!     permit.failure("down");
//!     model.end(ticket, Ending::Failure);
//!     model.compare(&breaker.snapshot()).unwrap();
//! }
//! clock.advance(Duration::from_secs(1));
//! model.advance(Duration::from_secs(1));
//! let (rejection, refusal) = (breaker.acquire().unwrap_err(), model.acquire().unwrap_err());
//! assert_eq!(refusal.retry_after, Duration::from_secs(5));
//! assert_eq!(rejection.retry_after(), refusal.retry_after);
//! model.compare(&breaker.snapshot()).unwrap();
//! ```

mod compare;
mod history;
mod spec;
mod terms;

use std::ops::RangeInclusive;
use std::time::Duration;

use history::{Call, Count, Watch, Window};
use spec::Own;
pub use spec::{Policy, Spec};
pub use terms::{Change, Ending, Refusal, Ticket};

use crate::breaker::State;

/// While half-open, nobody knows when a probe returns: half a second is worth a try.
const PROBE_HINT: Duration = Duration::from_millis(500);

/// The reference model of a breaker.
#[derive(Debug)]
pub struct Model {
    spec: Spec,
    own: Own,
    now: Duration,
    state: State,
    /// When the state began.
    since: Duration,
    /// Raised with each change of state. A call of an earlier one decides nothing.
    generation: u64,
    /// Every call that was let in, whether it has ended or not.
    calls: Vec<Call>,
    /// What calls came to while the breaker was closed: whether each was a success.
    row: Vec<bool>,
    window: Window,
    watch: Watch,
    /// While open: for how long. More than one length is possible where there is jitter, until
    /// [`compare`](Self::compare) has seen which one it is.
    wait: RangeInclusive<Duration>,
    /// Since it was last closed.
    failed_probes: u32,
    opened: u64,
    rejected: u64,
    changes: Vec<Change>,
}

impl Model {
    /// A new breaker, closed, at time zero.
    pub fn new(spec: Spec) -> Self {
        Self {
            own: Own::of(&spec.policy),
            now: Duration::ZERO,
            state: State::Closed,
            since: Duration::ZERO,
            generation: 0,
            calls: Vec::new(),
            row: Vec::new(),
            window: Window::default(),
            watch: Watch::new(0),
            wait: Duration::ZERO..=Duration::ZERO,
            failed_probes: 0,
            opened: 0,
            rejected: 0,
            changes: Vec::new(),
            spec,
        }
    }

    /// The settings of the moment.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The time since it was made.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// Time passes.
    pub fn advance(&mut self, by: Duration) {
        self.now += by;
    }

    /// The state. As with the breaker, time alone doesn't change it.
    pub fn state(&self) -> State {
        self.state
    }

    /// The moment at which this state began.
    pub fn since(&self) -> Duration {
        self.since
    }

    /// What has happened since this was last asked.
    pub fn changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// A call asks to be let in.
    ///
    /// # Errors
    ///
    /// When it isn't.
    pub fn acquire(&mut self) -> Result<Ticket, Refusal> {
        if self.state == State::Closed && self.hung_calls_open_it() {
            self.open(self.spec.open_for..=self.spec.open_for);
        }
        if let Some(refusal) = self.refusal() {
            self.rejected += 1;
            return Err(refusal);
        }
        if self.state == State::Open {
            self.enter(State::HalfOpen, Change::HalfOpened);
        }
        let in_the_way = self.in_the_way();
        if !in_the_way.is_empty() {
            self.changes.push(Change::ProbeReplaced);
        }
        for index in in_the_way {
            self.calls[index].replaced = true;
        }
        self.calls.push(Call {
            started: self.now,
            timed: self.spec.slow_call.is_some(),
            watch: self.watch.number,
            slice: self.watch.slice(self.now, &self.spec),
            generation: self.generation,
            lease_end: self.now.saturating_add(self.spec.probe_lease.max(Duration::from_millis(1))),
            replaced: false,
            ended: None,
        });
        Ok(Ticket(self.calls.len() - 1))
    }

    /// Whether a call would be let in now: [`Breaker::check`](crate::Breaker::check).
    ///
    /// # Errors
    ///
    /// When it wouldn't.
    pub fn check(&self) -> Result<(), Refusal> {
        self.refusal().map_or(Ok(()), Err)
    }

    fn refusal(&self) -> Option<Refusal> {
        let retry_after = match self.state {
            State::Closed | State::ForcedClosed => None,
            State::ForcedOpen => Some(self.spec.open_for),
            State::Open | State::HalfOpen => self.retry_after().filter(|wait| !wait.is_zero()),
        };
        retry_after.map(|retry_after| Refusal { state: self.state, retry_after })
    }

    /// The time until a call has a chance; zero when the next one probes.
    fn retry_after(&self) -> Option<Duration> {
        match self.state {
            State::Open => Some((self.since + *self.wait.start()).saturating_sub(self.now)),
            State::HalfOpen => {
                let leases = self.in_the_way().into_iter().map(|index| self.calls[index].lease_end);
                let wait = leases.max().map(|end| end.saturating_sub(self.now).min(PROBE_HINT));
                Some(wait.unwrap_or(Duration::ZERO))
            }
            State::Closed | State::ForcedOpen | State::ForcedClosed => None,
        }
    }

    /// The probes that are under way and whose results count.
    fn probes(&self) -> Vec<usize> {
        let probing = |call: &Call| {
            call.ended.is_none() && !call.replaced && call.generation == self.generation
        };
        let all = 0..self.calls.len();
        let half_open = self.state == State::HalfOpen;
        all.filter(|index| half_open && probing(&self.calls[*index])).collect()
    }

    /// The probes that have to make way before another call may probe: those whose leases end first,
    /// usually one, and more when fewer places than before are allowed.
    fn in_the_way(&self) -> Vec<usize> {
        let mut probes = self.probes();
        probes.sort_by_key(|index| self.calls[*index].lease_end);
        let places = self.spec.probes.max(1) as usize;
        probes.truncate((probes.len() + 1).saturating_sub(places));
        probes
    }

    /// A call ends.
    ///
    /// # Panics
    ///
    /// When it has ended before.
    pub fn end(&mut self, ticket: Ticket, ending: Ending) {
        let call = &mut self.calls[ticket.0];
        assert!(call.ended.is_none(), "a call ends once");
        let held = self.now.saturating_sub(call.started);
        let slow = call.timed && self.spec.slow_call.is_some_and(|threshold| held > threshold);
        let stale = call.replaced || call.generation != self.generation;
        call.ended = Some(match ending {
            Ending::Dropped => Count::Abandoned,
            _ if stale => Count::Stale,
            Ending::Success => Count::Success,
            Ending::Failure => Count::Failure,
            Ending::Ignored => Count::Ignored,
        });
        let success = match ending {
            Ending::Success => true,
            Ending::Failure => false,
            Ending::Dropped if slow => false,
            Ending::Ignored | Ending::Dropped => return,
        };
        match self.state {
            _ if stale => {}
            State::Closed => self.judge(success, slow),
            State::HalfOpen if success => self.close(Change::Closed),
            State::HalfOpen => self.open_again(),
            State::Open | State::ForcedOpen | State::ForcedClosed => {}
        }
    }

    /// A call that counts has ended while closed.
    fn judge(&mut self, success: bool, slow: bool) {
        self.row.push(success);
        if self.spec.has_window() {
            self.window.add(self.now, !success, slow);
        }
        let counts = self.window.counts(self.now, self.spec.window);
        let rate_opens = |count: u64, share: f64| {
            #[expect(clippy::cast_precision_loss, reason = "tests make few calls")]
            let reached = count as f64 >= share * counts.calls as f64;
            reached && count > 0 && counts.calls >= u64::from(self.spec.minimum_calls)
        };
        let in_a_row = self.row.iter().rev().take_while(|success| !**success).count();
        let first = self.spec.open_for;
        let by_policy = match (success, &self.spec.policy) {
            (true, _) => None,
            (false, Policy::Consecutive(limit)) => (in_a_row >= *limit as usize).then_some(first),
            (false, Policy::FailureRate(share)) => {
                rate_opens(counts.failures, *share).then_some(first)
            }
            (false, Policy::Own(_)) => self.own.on_failure(),
        };
        let by_slowness =
            self.spec.slow_rate.is_some_and(|share| slow && rate_opens(counts.slow, share));
        if success {
            self.own.on_success();
        }
        if let Some(wait) = by_policy.or(by_slowness.then_some(first)) {
            self.open(wait..=wait);
        }
    }

    fn hung_calls_open_it(&self) -> bool {
        let counting = self.hung().filter(|call| self.watch.began_after_closing(call, &self.spec));
        let count = counting.count();
        self.spec.hung_calls.is_some_and(|limit| count >= limit.max(1) as usize)
    }

    /// The calls that are under way for too long.
    fn hung(&self) -> impl Iterator<Item = &Call> {
        self.calls.iter().filter(|call| self.watch.is_hung(call, self.now, &self.spec))
    }

    fn open(&mut self, wait: RangeInclusive<Duration>) {
        let from = self.state;
        self.enter(State::Open, Change::Opened { from });
        self.wait = wait;
        self.opened += 1;
    }

    /// A probe failed.
    fn open_again(&mut self) {
        self.failed_probes += 1;
        let first = self.spec.open_for;
        let factor = 2_u32.saturating_pow(self.failed_probes);
        let last = first.saturating_mul(factor).min(self.spec.longest_open).max(first);
        match self.own.on_failure() {
            Some(wait) => self.open(wait..=wait),
            None => self.open(first..=last),
        }
    }

    fn close(&mut self, change: Change) {
        self.enter(State::Closed, change);
        self.watch.close(self.now);
        self.own.on_closed();
        self.failed_probes = 0;
    }

    fn enter(&mut self, state: State, change: Change) {
        self.state = state;
        self.since = self.now;
        self.generation += 1;
        self.row.clear();
        self.window = Window::default();
        self.changes.push(change);
    }

    /// [`Breaker::force_open`](crate::Breaker::force_open)
    pub fn force_open(&mut self) {
        if self.state != State::ForcedOpen {
            self.enter(State::ForcedOpen, Change::ForcedOpen);
        }
    }

    /// [`Breaker::force_closed`](crate::Breaker::force_closed)
    pub fn force_closed(&mut self) {
        if self.state != State::ForcedClosed {
            self.enter(State::ForcedClosed, Change::ForcedClosed);
        }
    }

    /// [`Breaker::reset`](crate::Breaker::reset)
    pub fn reset(&mut self) {
        self.close(Change::Reset);
    }

    /// [`Breaker::reconfigure`](crate::Breaker::reconfigure)
    pub fn reconfigure(&mut self, spec: Spec) {
        let old = std::mem::replace(&mut self.spec, spec);
        let row_goes_on = matches!(
            (&old.policy, &self.spec.policy),
            (Policy::Consecutive(_), Policy::Consecutive(_))
        );
        if !row_goes_on {
            self.row.clear();
        }
        self.own = Own::of(&self.spec.policy);
        if !self.spec.has_window() {
            self.window = Window::default();
        } else if old.window != self.spec.window {
            self.window.move_to(self.now, old.window);
        }
        if old.slow_call != self.spec.slow_call {
            self.watch = Watch::new(self.watch.number + 1);
        }
        self.changes.push(Change::Reconfigured);
    }
}
