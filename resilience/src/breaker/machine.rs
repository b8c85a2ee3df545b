//! The state machine. It is given the time, and returns what is to be announced: whoever calls it
//! holds the lock, and announces after giving it back.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::policy::FailurePolicy;
use super::report::State;

/// What a policy asks for beyond this is cut, so that adding it to a moment can't overflow.
const LONGEST_OPEN: Duration = Duration::from_hours(24 * 365);

/// While a probe is under way, how soon it is worth asking again. Not the probe's lease: that is
/// for probes that hang, and a healed dependency answers long before.
const PROBE_HINT: Duration = Duration::from_millis(500);

pub(super) struct Machine {
    phase: Phase,
    /// Raised with each change of state and each replaced probe. Permits carry the one that they
    /// were given under; a result from an earlier one decides nothing.
    generation: u64,
    since: SystemTime,
    reason: Option<Arc<str>>,
    policy: Box<dyn FailurePolicy + Send>,
    stale: u64,
    abandoned: u64,
}

#[derive(Clone, Copy)]
enum Phase {
    Closed,
    Open {
        until: Instant,
        open_for: Duration,
    },
    HalfOpen {
        /// When the lease of the probe under way ends; `None` while no probe is under way.
        lease_end: Option<Instant>,
        open_for: Duration,
    },
}

pub(super) enum Outcome {
    Success,
    Failure(Arc<str>),
    Ignored,
    /// Dropped without a result; `slow` is the time held, where that was too long.
    Abandoned {
        slow: Option<Duration>,
    },
}

pub(super) enum Event {
    Opened { from: State, reason: Option<Arc<str>>, open_for: Duration },
    Probing,
    ProbeReplaced,
    Closed,
}

pub(super) struct Refused {
    pub(super) state: State,
    pub(super) reason: Option<Arc<str>>,
    pub(super) retry_after: Duration,
}

impl Machine {
    pub(super) fn new(policy: Box<dyn FailurePolicy + Send>) -> Self {
        Self {
            phase: Phase::Closed,
            generation: 0,
            since: SystemTime::now(),
            reason: None,
            policy,
            stale: 0,
            abandoned: 0,
        }
    }

    /// Lets a call in, with the generation for its permit, or says why not.
    pub(super) fn admit(
        &mut self,
        now: Instant,
        lease: Duration,
    ) -> (Result<u64, Refused>, Option<Event>) {
        let lease_end = Some(now + lease.min(LONGEST_OPEN));
        let (open_for, event) = match self.phase {
            Phase::Closed => return (Ok(self.generation), None),
            Phase::Open { until, open_for } if until <= now => {
                self.enter(Phase::HalfOpen { lease_end, open_for });
                return (Ok(self.generation), Some(Event::Probing));
            }
            Phase::HalfOpen { lease_end: None, open_for } => (open_for, None),
            Phase::HalfOpen { lease_end: Some(end), open_for } if end <= now => {
                // The probe that hung is of an earlier generation from here on.
                self.generation += 1;
                (open_for, Some(Event::ProbeReplaced))
            }
            Phase::Open { .. } | Phase::HalfOpen { .. } => {
                return (Err(self.refusal(self.retry_after(now).unwrap_or_default())), None);
            }
        };
        self.phase = Phase::HalfOpen { lease_end, open_for };
        (Ok(self.generation), event)
    }

    /// What a call would be told now, if it would not be let in.
    pub(super) fn refuses(&self, now: Instant) -> Option<Refused> {
        let retry_after = self.retry_after(now).filter(|wait| !wait.is_zero())?;
        Some(self.refusal(retry_after))
    }

    fn refusal(&self, retry_after: Duration) -> Refused {
        Refused { state: self.state(), reason: self.reason.clone(), retry_after }
    }

    /// Takes a permit's end into account.
    pub(super) fn settle(
        &mut self,
        generation: u64,
        outcome: Outcome,
        now: Instant,
    ) -> Option<Event> {
        let abandoned = matches!(outcome, Outcome::Abandoned { .. });
        if abandoned {
            self.abandoned += 1;
        }
        if generation != self.generation {
            if !abandoned {
                self.stale += 1;
            }
            return None;
        }
        match outcome {
            Outcome::Success => self.succeed(),
            Outcome::Failure(reason) => self.fail(reason, now),
            Outcome::Abandoned { slow: Some(held) } => {
                self.fail(format!("given up after {} ms", held.as_millis()).into(), now)
            }
            Outcome::Ignored | Outcome::Abandoned { slow: None } => {
                if let Phase::HalfOpen { lease_end, .. } = &mut self.phase {
                    *lease_end = None;
                }
                None
            }
        }
    }

    fn succeed(&mut self) -> Option<Event> {
        match self.phase {
            Phase::Closed => {
                self.policy.on_success();
                None
            }
            Phase::HalfOpen { .. } => {
                self.enter(Phase::Closed);
                self.reason = None;
                self.policy.on_closed();
                Some(Event::Closed)
            }
            // No permit carries the generation of an open breaker.
            Phase::Open { .. } => None,
        }
    }

    fn fail(&mut self, reason: Arc<str>, now: Instant) -> Option<Event> {
        let from = self.state();
        self.reason = Some(reason);
        let open_for = match self.phase {
            Phase::Closed => self.policy.on_failure()?,
            Phase::HalfOpen { open_for, .. } => self.policy.on_failure().unwrap_or(open_for),
            Phase::Open { .. } => return None,
        };
        let open_for = open_for.min(LONGEST_OPEN);
        self.enter(Phase::Open { until: now + open_for, open_for });
        Some(Event::Opened { from, reason: self.reason.clone(), open_for })
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.generation += 1;
        self.since = SystemTime::now();
    }

    pub(super) fn state(&self) -> State {
        match self.phase {
            Phase::Closed => State::Closed,
            Phase::Open { .. } => State::Open,
            Phase::HalfOpen { .. } => State::HalfOpen,
        }
    }

    pub(super) fn retry_after(&self, now: Instant) -> Option<Duration> {
        match self.phase {
            Phase::Closed => None,
            Phase::Open { until, .. } => Some(until.saturating_duration_since(now)),
            Phase::HalfOpen { lease_end: None, .. } => Some(Duration::ZERO),
            Phase::HalfOpen { lease_end: Some(end), .. } => {
                Some(end.saturating_duration_since(now).min(PROBE_HINT))
            }
        }
    }

    pub(super) fn since(&self) -> SystemTime {
        self.since
    }

    pub(super) fn reason(&self) -> Option<Arc<str>> {
        self.reason.clone()
    }

    pub(super) fn stale(&self) -> u64 {
        self.stale
    }

    pub(super) fn abandoned(&self) -> u64 {
        self.abandoned
    }
}
