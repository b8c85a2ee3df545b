//! What can happen to a breaker, made up at random.

use std::sync::Arc;
use std::time::Duration;

use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use resilience::FailurePolicy;
use resilience::testkit::model::{Ending, Policy, Spec};

#[derive(Clone, Debug)]
pub(super) enum Step {
    Acquire {
        owned: bool,
    },
    /// Ends one of the calls under way.
    End(Index, Ending),
    /// Ends the one that began last: while half-open, a probe.
    EndLast(Ending),
    Pass(Duration),
    /// Time passes up to one of the moments at which something may happen, or to a nanosecond
    /// before or after.
    PassTo(Index, Offset),
    ForceOpen,
    ForceClosed,
    Reset,
    Reconfigure(Tweak),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Offset {
    Before,
    Exactly,
    After,
}

/// One setting is changed, or none.
#[derive(Clone, Debug)]
pub(super) enum Tweak {
    Nothing,
    Policy(Policy),
    SlowRate(Option<f64>),
    Window(Duration),
    MinimumCalls(u32),
    HungCalls(Option<u32>),
    OpenFor(Duration),
    LongestOpen(Duration),
    Probes(u32),
    ProbeLease(Duration),
    SlowCall(Option<Duration>),
}

impl Tweak {
    pub(super) fn apply(self, spec: &mut Spec) {
        match self {
            Self::Nothing => {}
            Self::Policy(policy) => spec.policy = policy,
            Self::SlowRate(share) => spec.slow_rate = share,
            Self::Window(length) => spec.window = length,
            Self::MinimumCalls(calls) => spec.minimum_calls = calls,
            Self::HungCalls(calls) => spec.hung_calls = calls,
            Self::OpenFor(wait) => spec.open_for = wait,
            Self::LongestOpen(wait) => spec.longest_open = wait,
            Self::Probes(probes) => spec.probes = probes,
            Self::ProbeLease(lease) => spec.probe_lease = lease,
            Self::SlowCall(threshold) => spec.slow_call = threshold,
        }
    }
}

/// Opens with every n-th failure since it was closed, in a row or not.
struct EveryNth {
    n: u32,
    failures: u32,
}

impl FailurePolicy for EveryNth {
    fn on_success(&mut self) {}

    fn on_failure(&mut self) -> Option<Duration> {
        self.failures += 1;
        self.failures.is_multiple_of(self.n).then_some(Duration::from_millis(700))
    }

    fn on_closed(&mut self) {
        self.failures = 0;
    }
}

fn policy() -> impl Strategy<Value = Policy> {
    let every_nth = |n| Policy::Own(Arc::new(move || Box::new(EveryNth { n, failures: 0 })));
    prop_oneof![
        2 => (0..5_u32).prop_map(Policy::Consecutive),
        2 => share().prop_map(Policy::FailureRate),
        1 => (1..4_u32).prop_map(every_nth),
    ]
}

fn share() -> impl Strategy<Value = f64> {
    select(vec![0.01, 0.25, 1.0 / 3.0, 0.5, 0.75, 1.0])
}

/// Seconds, mostly, and now and then something that doesn't come out even.
fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        8 => (1..8_u64).prop_map(Duration::from_secs),
        3 => (1..50_u64).prop_map(|tenths| Duration::from_millis(tenths * 100)),
        2 => (1..3_000_000_000_u64).prop_map(Duration::from_nanos),
        1 => (0..40_u64).prop_map(Duration::from_nanos),
    ]
}

pub(super) fn spec() -> impl Strategy<Value = Spec> {
    let rates = (option::of(share()), duration(), 0..6_u32);
    let waits = (duration(), duration(), any::<bool>());
    let probing = (0..4_u32, duration());
    let slowness = (option::weighted(0.4, 0..4_u32), option::weighted(0.8, duration()));
    (policy(), rates, waits, probing, slowness).prop_map(
        |(
            policy,
            (slow_rate, window, minimum_calls),
            (open_for, longest_open, grows),
            (probes, probe_lease),
            (hung_calls, slow_call),
        )| Spec {
            policy,
            slow_rate,
            window,
            minimum_calls,
            hung_calls,
            open_for,
            longest_open: if grows { longest_open } else { open_for },
            probes,
            probe_lease,
            slow_call,
        },
    )
}

fn tweak() -> impl Strategy<Value = Tweak> {
    prop_oneof![
        Just(Tweak::Nothing),
        policy().prop_map(Tweak::Policy),
        option::of(share()).prop_map(Tweak::SlowRate),
        duration().prop_map(Tweak::Window),
        (0..6_u32).prop_map(Tweak::MinimumCalls),
        option::of(0..4_u32).prop_map(Tweak::HungCalls),
        duration().prop_map(Tweak::OpenFor),
        duration().prop_map(Tweak::LongestOpen),
        (0..4_u32).prop_map(Tweak::Probes),
        duration().prop_map(Tweak::ProbeLease),
        option::of(duration()).prop_map(Tweak::SlowCall),
    ]
}

fn ending() -> impl Strategy<Value = Ending> {
    prop_oneof![
        4 => Just(Ending::Failure),
        3 => Just(Ending::Success),
        1 => Just(Ending::Ignored),
        2 => Just(Ending::Dropped),
    ]
}

fn offset() -> impl Strategy<Value = Offset> {
    prop_oneof![Just(Offset::Exactly), Just(Offset::Before), Just(Offset::After)]
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        70 => any::<bool>().prop_map(|owned| Step::Acquire { owned }),
        30 => (any::<Index>(), ending()).prop_map(|(which, ending)| Step::End(which, ending)),
        40 => ending().prop_map(Step::EndLast),
        10 => duration().prop_map(Step::Pass),
        50 => (any::<Index>(), offset()).prop_map(|(which, offset)| Step::PassTo(which, offset)),
        1 => Just(Step::ForceOpen),
        1 => Just(Step::ForceClosed),
        // More often, for it is the only way out of those.
        4 => Just(Step::Reset),
        10 => tweak().prop_map(Step::Reconfigure),
    ]
}
