use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::breaker::{FailurePolicy, Settings};

/// The settings of a breaker in the clear, for the [`Model`](super::Model) and for whatever makes
/// them up. The fields are the methods of [`Settings`].
#[derive(Clone, Debug)]
pub struct Spec {
    /// When failures open it.
    pub policy: Policy,
    /// [`Settings::slow_rate`]
    pub slow_rate: Option<f64>,
    /// [`Settings::window`]
    pub window: Duration,
    /// [`Settings::minimum_calls`]
    pub minimum_calls: u32,
    /// [`Settings::hung_calls`]
    pub hung_calls: Option<u32>,
    /// [`Settings::open_for`]
    pub open_for: Duration,
    /// [`Settings::longest_open`]
    pub longest_open: Duration,
    /// [`Settings::probes`]
    pub probes: u32,
    /// [`Settings::probe_lease`]
    pub probe_lease: Duration,
    /// [`Settings::slow_call`]; `None` is [`Settings::without_slow_call`].
    pub slow_call: Option<Duration>,
}

/// When failures open a breaker.
#[derive(Clone)]
pub enum Policy {
    /// So many failures in a row.
    Consecutive(u32),
    /// This share of the calls in the window.
    FailureRate(f64),
    /// As your own policy decides. Called once for the model and once for the breaker: each has an
    /// instance of its own.
    Own(Arc<dyn Fn() -> Box<dyn FailurePolicy + Send> + Send + Sync>),
}

impl Spec {
    /// The same for a breaker: [`BreakerBuilder::settings`](crate::breaker::BreakerBuilder::settings),
    /// [`Breaker::reconfigure`](crate::Breaker::reconfigure).
    pub fn settings(&self) -> Settings {
        let settings = Settings::new()
            .window(self.window)
            .minimum_calls(self.minimum_calls)
            .open_for(self.open_for)
            .longest_open(self.longest_open)
            .probes(self.probes)
            .probe_lease(self.probe_lease);
        let settings = match &self.policy {
            Policy::Consecutive(failures) => settings.consecutive_failures(*failures),
            Policy::FailureRate(share) => settings.failure_rate(*share),
            Policy::Own(make) => settings.policy(Made(make())),
        };
        let settings = match self.slow_call {
            Some(threshold) => settings.slow_call(threshold),
            None => settings.without_slow_call(),
        };
        let settings = match self.slow_rate {
            Some(share) => settings.slow_rate(share),
            None => settings,
        };
        match self.hung_calls {
            Some(calls) => settings.hung_calls(calls),
            None => settings,
        }
    }

    /// Whether a rate is watched.
    pub(super) fn has_window(&self) -> bool {
        matches!(self.policy, Policy::FailureRate(_)) || self.slow_rate.is_some()
    }
}

impl Default for Spec {
    /// The library's.
    fn default() -> Self {
        Self {
            policy: Policy::Consecutive(3),
            slow_rate: None,
            window: Duration::from_secs(10),
            minimum_calls: 10,
            hung_calls: None,
            open_for: Duration::from_secs(6),
            longest_open: Duration::from_mins(1),
            probes: 1,
            probe_lease: Duration::from_secs(10),
            slow_call: Some(Duration::from_secs(2)),
        }
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Consecutive(failures) => f.debug_tuple("Consecutive").field(failures).finish(),
            Self::FailureRate(share) => f.debug_tuple("FailureRate").field(share).finish(),
            Self::Own(_) => f.write_str("Own"),
        }
    }
}

/// A policy in a box is a policy.
struct Made(Box<dyn FailurePolicy + Send>);

impl FailurePolicy for Made {
    fn on_success(&mut self) {
        self.0.on_success();
    }

    fn on_failure(&mut self) -> Option<Duration> {
        self.0.on_failure()
    }

    fn on_closed(&mut self) {
        self.0.on_closed();
    }

    fn is_settled(&self) -> bool {
        self.0.is_settled()
    }
}

/// Somebody's own policy, where there is one.
pub(super) struct Own(Option<Box<dyn FailurePolicy + Send>>);

impl Own {
    pub(super) fn of(policy: &Policy) -> Self {
        match policy {
            Policy::Own(make) => Self(Some(make())),
            Policy::Consecutive(_) | Policy::FailureRate(_) => Self(None),
        }
    }

    pub(super) fn on_success(&mut self) {
        if let Some(policy) = &mut self.0 {
            policy.on_success();
        }
    }

    pub(super) fn on_failure(&mut self) -> Option<Duration> {
        self.0.as_mut()?.on_failure()
    }

    pub(super) fn on_closed(&mut self) {
        if let Some(policy) = &mut self.0 {
            policy.on_closed();
        }
    }
}

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Own" } else { "None" })
    }
}
