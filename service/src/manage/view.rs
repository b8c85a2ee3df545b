//! What is shown, as the rest of the API is: camelCase, RFC 3339, milliseconds.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, SecondsFormat, Utc};
use resilience::breaker;
use resilience::bulkhead::BulkheadSnapshot;
use resilience::registry::Snapshot;
use resilience::retry::RetryBudgetSnapshot;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// What protects the calls of one replica.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Resilience {
    service: &'static str,
    /// The replica that answers; another one is another process.
    replica: Uuid,
    breakers: Vec<Breaker>,
    bulkheads: Vec<Bulkhead>,
    retry_budgets: Vec<RetryBudget>,
}

impl Resilience {
    pub(super) fn new(service: &'static str, replica: Uuid, all: Snapshot) -> Self {
        Self {
            service,
            replica,
            breakers: all.breakers.into_iter().map(Breaker::from).collect(),
            bulkheads: all.bulkheads.into_iter().map(Bulkhead::from).collect(),
            retry_budgets: all.retry_budgets.into_iter().map(RetryBudget::from).collect(),
        }
    }
}

/// A circuit breaker. Counts are since the replica's start; each call that was let through ends as
/// one of `successes`, `failures`, `ignored`, `abandoned` and `stale`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Breaker {
    /// The dependency, and the class of calls where it has several: `order/write`.
    name: String,
    /// `closed`, `open`, `half_open`, `forced_open` or `forced_closed`.
    #[schema(value_type = String)]
    state: breaker::State,
    /// Since when, RFC 3339.
    since: String,
    /// What the last failure was.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    reason: Option<Arc<str>>,
    /// Milliseconds until a call has a chance, while it is open or half-open.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    /// Calls that were let through.
    calls: u64,
    /// Calls under way.
    in_flight: u64,
    /// Those of them that have taken longer than the slow threshold.
    hung: u64,
    /// Those of them that are probes.
    probes: u32,
    successes: u64,
    failures: u64,
    /// Results that say nothing about the dependency.
    ignored: u64,
    /// Calls that nobody waited for to their end.
    abandoned: u64,
    /// Results that came after a change of state, and decided nothing.
    stale: u64,
    /// Calls that were not let through.
    rejected: u64,
    /// How often it has opened.
    opened: u64,
    /// What the sliding window holds, where a rate is watched.
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<Window>,
    /// Events that a subscriber was too slow for.
    dropped_events: u64,
}

#[derive(Debug, Serialize, ToSchema)]
struct Window {
    calls: u64,
    failures: u64,
    slow: u64,
}

impl From<breaker::Snapshot> for Breaker {
    fn from(breaker: breaker::Snapshot) -> Self {
        Self {
            name: breaker.name.to_string(),
            state: breaker.state,
            since: rfc3339(breaker.since),
            reason: breaker.reason,
            retry_after_ms: breaker.retry_after.map(millis),
            calls: breaker.calls,
            in_flight: breaker.in_flight,
            hung: breaker.hung,
            probes: breaker.probes,
            successes: breaker.successes,
            failures: breaker.failures,
            ignored: breaker.ignored,
            abandoned: breaker.abandoned,
            stale: breaker.stale,
            rejected: breaker.rejected,
            opened: breaker.opened,
            window: breaker.window.map(|window| Window {
                calls: window.calls,
                failures: window.failures,
                slow: window.slow,
            }),
            dropped_events: breaker.dropped_events,
        }
    }
}

/// A bound on the calls in flight. Counts are since the replica's start.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Bulkhead {
    name: String,
    /// Calls that there may be at a time.
    limit: usize,
    /// Calls that have a place.
    in_flight: usize,
    /// Calls that wait for one.
    waiting: usize,
    /// Calls that got one.
    admitted: u64,
    /// Those of them that had to wait.
    queued: u64,
    /// For how long, in milliseconds, all together.
    waited_ms: u64,
    /// Calls that got none.
    rejected: u64,
}

impl From<BulkheadSnapshot> for Bulkhead {
    fn from(bulkhead: BulkheadSnapshot) -> Self {
        Self {
            name: bulkhead.name.to_string(),
            limit: bulkhead.limit,
            in_flight: bulkhead.in_flight,
            waiting: bulkhead.waiting,
            admitted: bulkhead.admitted,
            queued: bulkhead.queued,
            waited_ms: millis(bulkhead.waited),
            rejected: bulkhead.rejected,
        }
    }
}

/// What retries may add to a dependency's traffic.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RetryBudget {
    name: String,
    /// Successes in its window, which pay for retries.
    recent_successes: u64,
    /// Retries in its window.
    recent_retries: u64,
    /// Retries that would be granted now.
    available: u64,
    /// Retries since the replica's start.
    retries: u64,
    /// Retries that there was no budget for.
    denied: u64,
}

impl From<RetryBudgetSnapshot> for RetryBudget {
    fn from(budget: RetryBudgetSnapshot) -> Self {
        Self {
            name: budget.name.to_string(),
            recent_successes: budget.recent_successes,
            recent_retries: budget.recent_retries,
            available: budget.available,
            retries: budget.retries,
            denied: budget.denied,
        }
    }
}

/// RFC 3339 in UTC, to the microsecond.
pub fn rfc3339(time: SystemTime) -> String {
    DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Micros, false)
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
