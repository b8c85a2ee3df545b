//! What can be set, at the beginning and live.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Breaker;
use super::inner::Inner;
use super::policy::FailurePolicy;
use super::time::Time;
use crate::clock::Clock;
use crate::random::Random;

/// When a [`Breaker`] opens, for how long, and how it probes. Everything here can be changed while
/// it works: [`Breaker::reconfigure`].
///
/// ```
/// use resilience::breaker::{Breaker, Settings};
/// use std::time::Duration;
///
/// let breaker = Breaker::builder("billing").build();
/// // Half of at least 20 calls within 30 seconds, or 8 of 10 slower than 300 ms.
/// breaker.reconfigure(
///     Settings::new()
///         .failure_rate(0.5)
///         .slow_call(Duration::from_millis(300))
///         .slow_rate(0.8)
///         .window(Duration::from_secs(30))
///         .minimum_calls(20),
/// );
/// ```
#[must_use]
pub struct Settings {
    pub(super) policy: Policy,
    pub(super) slow_rate: Option<f64>,
    pub(super) window: Duration,
    pub(super) minimum_calls: u32,
    pub(super) hung_calls: Option<u32>,
    pub(super) open_for: Duration,
    pub(super) longest_open: Duration,
    pub(super) probes: u32,
    pub(super) probe_lease: Duration,
    pub(super) slow_call: Option<Duration>,
}

pub(super) enum Policy {
    Consecutive(u32),
    FailureRate(f64),
    Own(Box<dyn FailurePolicy + Send>),
}

impl Settings {
    /// The defaults: 3 failures in a row open it for 6 s, growing to 60 s while probes fail; one
    /// probe with a lease of 10 s; slow from 2 s on.
    pub fn new() -> Self {
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

impl Default for Settings {
    fn default() -> Self {
        Self::new()
    }
}

/// Declares the settings on a type that has them in `self.settings`, or is them.
macro_rules! settings {
    ($type:ty, $self:ident => $settings:expr) => {
        impl $type {
            /// Opens after this many failures in a row; 0 counts as 1. The default is 3. Takes the
            /// place of an earlier policy.
            pub fn consecutive_failures(mut $self, failures: u32) -> Self {
                $settings.policy = Policy::Consecutive(failures.max(1));
                $self
            }

            /// Opens when this share of the calls in the [window](Self::window) failed, 0.5 for
            /// half of them: judged whenever a call fails. Takes the place of an earlier policy.
            ///
            /// # Panics
            ///
            /// When it isn't above 0 and at most 1.
            pub fn failure_rate(mut $self, share: f64) -> Self {
                $settings.policy = Policy::FailureRate(checked(share));
                $self
            }

            /// Decides when to open, and for how long: one of `failsafe`'s, or your own. Takes the
            /// place of an earlier policy.
            pub fn policy(mut $self, policy: impl FailurePolicy + Send + 'static) -> Self {
                $settings.policy = Policy::Own(Box::new(policy));
                $self
            }

            /// Opens, whatever the policy says, when this share of the calls in the
            /// [window](Self::window) took longer than [`slow_call`](Self::slow_call): judged
            /// whenever a slow call ends. The default is never.
            ///
            /// # Panics
            ///
            /// When it isn't above 0 and at most 1.
            pub fn slow_rate(mut $self, share: f64) -> Self {
                $settings.slow_rate = Some(checked(share));
                $self
            }

            /// How far back the rates look. It slides in steps of a sixteenth. The default is 10
            /// seconds.
            pub fn window(mut $self, length: Duration) -> Self {
                $settings.window = length;
                $self
            }

            /// With fewer calls than this in the window no rate opens the breaker. The default is
            /// 10.
            pub fn minimum_calls(mut $self, calls: u32) -> Self {
                $settings.minimum_calls = calls;
                $self
            }

            /// Opens, whatever the policy says, when this many calls have been in flight for longer
            /// than [`slow_call`](Self::slow_call), before any of them returns; 0 counts as 1. The
            /// default is never.
            pub fn hung_calls(mut $self, calls: u32) -> Self {
                $settings.hung_calls = Some(calls.max(1));
                $self
            }

            /// How long it stays open at first. While probes go on failing it stays open for longer,
            /// up to [`longest_open`](Self::longest_open). The default is 6 seconds.
            pub fn open_for(mut $self, wait: Duration) -> Self {
                $settings.open_for = wait;
                $self
            }

            /// What the growing wait never exceeds. After the n-th failed probe in a row it is a
            /// random time between the first wait and 2ⁿ times that. With the first wait as cap, or
            /// less, it doesn't grow. The default is 60 seconds.
            pub fn longest_open(mut $self, wait: Duration) -> Self {
                $settings.longest_open = wait;
                $self
            }

            /// How many calls at a time may probe while half-open; 0 counts as 1, and more than
            /// 255 as 255. The default is 1.
            pub fn probes(mut $self, probes: u32) -> Self {
                $settings.probes = probes.clamp(1, 255);
                $self
            }

            /// How long a probe may take before another call is let through in its place. Make it
            /// longer than a call's timeout; less than a millisecond counts as one, or every call
            /// could take the place of the last. The default is 10 seconds.
            pub fn probe_lease(mut $self, lease: Duration) -> Self {
                $settings.probe_lease = lease.max(Duration::from_millis(1));
                $self
            }

            /// From when on a call is slow. Calls in flight for longer are [hung](Self::hung_calls),
            /// and a permit that is dropped without a result after more than this counts as a
            /// failure: somebody waited, and gave up. It costs each call a look at the clock. The
            /// default is 2 seconds.
            pub fn slow_call(mut $self, threshold: Duration) -> Self {
                $settings.slow_call = Some(threshold);
                $self
            }

            /// No call is slow: a dropped permit is never a failure, and with a policy that counts
            /// failures in a row no call looks at the clock. For calls of microseconds, whose
            /// results always arrive.
            pub fn without_slow_call(mut $self) -> Self {
                $settings.slow_call = None;
                $self
            }
        }
    };
}

settings!(Settings, self => self);
settings!(BreakerBuilder, self => self.settings);

fn checked(share: f64) -> f64 {
    assert!(share > 0.0 && share <= 1.0, "a rate is above 0 and at most 1, not {share}");
    share
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let policy = match &self.policy {
            Policy::Consecutive(failures) => format!("{failures} failures in a row"),
            Policy::FailureRate(share) => format!("failure rate {share}"),
            Policy::Own(_) => "another".to_owned(),
        };
        f.debug_struct("Settings")
            .field("policy", &policy)
            .field("slow_rate", &self.slow_rate)
            .field("window", &self.window)
            .field("minimum_calls", &self.minimum_calls)
            .field("hung_calls", &self.hung_calls)
            .field("open_for", &self.open_for)
            .field("longest_open", &self.longest_open)
            .field("probes", &self.probes)
            .field("probe_lease", &self.probe_lease)
            .field("slow_call", &self.slow_call)
            .finish()
    }
}

/// Makes a [`Breaker`]; from [`Breaker::builder`]. Its settings are those of [`Settings`].
#[must_use]
pub struct BreakerBuilder {
    name: String,
    settings: Settings,
    clock: Option<Box<dyn Clock>>,
    random: Arc<Random>,
}

impl BreakerBuilder {
    pub(super) fn new(name: String) -> Self {
        Self { name, settings: Settings::new(), clock: None, random: Arc::default() }
    }

    /// All settings at once.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Where the time comes from. The default is the [`SystemClock`](crate::SystemClock). Policies of `failsafe` that
    /// look at a clock (rates over a window) look at their own.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Box::new(clock));
        self
    }

    /// Where the jitter of growing waits comes from. The default is a seed of the system's.
    pub fn random(mut self, random: impl Into<Arc<Random>>) -> Self {
        self.random = random.into();
        self
    }

    /// The breaker, closed.
    pub fn build(self) -> Breaker {
        let Self { name, settings, clock, random } = self;
        Breaker { inner: Arc::new(Inner::new(&name, settings, Time::new(clock), random)) }
    }
}

impl fmt::Debug for BreakerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BreakerBuilder")
            .field("name", &self.name)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
