//! What is counted, through the `metrics` facade. The only module that knows it.
#![doc = include_str!("../../docs/metrics.md")]

#[cfg(feature = "deferred")]
pub(crate) mod deferred;
#[cfg(feature = "pipeline")]
pub(crate) mod pipeline;
#[cfg(feature = "saga")]
pub(crate) mod saga;

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};

use crate::breaker::{self, State};
use crate::registry::Registry;

const BREAKER_STATE: &str = "resilience_breaker_state";
const BREAKER_SINCE: &str = "resilience_breaker_since_timestamp_seconds";
const BREAKER_CALLS: &str = "resilience_breaker_calls_total";
const BREAKER_REJECTED: &str = "resilience_breaker_rejected_total";
const BREAKER_OPENED: &str = "resilience_breaker_opened_total";
const BREAKER_IN_FLIGHT: &str = "resilience_breaker_in_flight";
const BREAKER_HUNG: &str = "resilience_breaker_hung";
const BREAKER_DROPPED_EVENTS: &str = "resilience_breaker_dropped_events_total";
const CALL_DURATION: &str = "resilience_call_duration_seconds";
const NOT_MADE: &str = "resilience_calls_not_made_total";

const STATES: [State; 5] =
    [State::Closed, State::Open, State::HalfOpen, State::ForcedOpen, State::ForcedClosed];

/// Tells the recorder what each metric means: once, after it was installed.
pub fn describe() {
    describe_gauge!(BREAKER_STATE, "1 for the breaker's present state");
    describe_gauge!(BREAKER_SINCE, Unit::Seconds, "When the breaker's present state began");
    describe_counter!(BREAKER_CALLS, "Calls that the breaker let through, by how they ended");
    describe_counter!(BREAKER_REJECTED, "Calls that the breaker did not let through");
    describe_counter!(BREAKER_OPENED, "How often the breaker opened");
    describe_gauge!(BREAKER_IN_FLIGHT, "Calls under way");
    describe_gauge!(BREAKER_HUNG, "Calls under way for longer than the slow threshold");
    describe_counter!(BREAKER_DROPPED_EVENTS, "Events that a subscriber was too slow for");
    #[cfg(feature = "pipeline")]
    pipeline::describe();
    #[cfg(feature = "deferred")]
    deferred::describe();
    #[cfg(feature = "saga")]
    saga::describe();
    describe_histogram!(CALL_DURATION, Unit::Seconds, "Attempts that went out");
    describe_counter!(NOT_MADE, "Calls that didn't go out, by what kept them back");
}

impl Registry {
    /// Hands everything in it over to the `metrics` recorder: call it before each scrape.
    pub fn publish(&self) {
        let snapshot = self.snapshot();
        snapshot.breakers.iter().for_each(breaker);
        #[cfg(feature = "pipeline")]
        pipeline::publish(&snapshot);
    }
}

fn breaker(snapshot: &breaker::Snapshot) {
    let name = || Arc::clone(&snapshot.name);
    for state in STATES {
        let present = if snapshot.state == state { 1.0 } else { 0.0 };
        gauge!(BREAKER_STATE, "breaker" => name(), "state" => state.as_str()).set(present);
    }
    let since = snapshot.since.duration_since(UNIX_EPOCH).unwrap_or_default();
    gauge!(BREAKER_SINCE, "breaker" => name()).set(since.as_secs_f64());
    for (outcome, calls) in [
        ("success", snapshot.successes),
        ("failure", snapshot.failures),
        ("ignored", snapshot.ignored),
        ("abandoned", snapshot.abandoned),
        ("stale", snapshot.stale),
    ] {
        counter!(BREAKER_CALLS, "breaker" => name(), "outcome" => outcome).absolute(calls);
    }
    counter!(BREAKER_REJECTED, "breaker" => name()).absolute(snapshot.rejected);
    counter!(BREAKER_OPENED, "breaker" => name()).absolute(snapshot.opened);
    counter!(BREAKER_DROPPED_EVENTS, "breaker" => name()).absolute(snapshot.dropped_events);
    gauge!(BREAKER_IN_FLIGHT, "breaker" => name()).set(float(snapshot.in_flight));
    gauge!(BREAKER_HUNG, "breaker" => name()).set(float(snapshot.hung));
}

#[expect(clippy::cast_precision_loss, reason = "nothing counts to 2⁵³ calls at a time")]
fn float(count: u64) -> f64 {
    count as f64
}

/// What was there the last time, and isn't now: a gauge would keep its last value. `seen` is then what is
/// there.
#[cfg(feature = "deferred")]
fn gone<'a>(
    seen: &mut std::collections::BTreeSet<String>,
    present: impl Iterator<Item = &'a String>,
) -> Vec<String> {
    let before = std::mem::replace(seen, present.cloned().collect());
    before.difference(seen).cloned().collect()
}

/// One attempt at a call that went out.
#[cfg(feature = "http")]
pub(crate) fn attempt(dependency: &Arc<str>, outcome: &'static str, took: std::time::Duration) {
    let dependency = Arc::clone(dependency);
    metrics::histogram!(CALL_DURATION, "dependency" => dependency, "outcome" => outcome)
        .record(took);
}

/// A call that didn't go out.
#[cfg(feature = "http")]
pub(crate) fn not_made(dependency: &Arc<str>, reason: &'static str) {
    counter!(NOT_MADE, "dependency" => Arc::clone(dependency), "reason" => reason).increment(1);
}
