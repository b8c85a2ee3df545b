use std::sync::Arc;
use std::time::Duration;

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use super::float;
use crate::bulkhead::BulkheadSnapshot;
use crate::registry::Snapshot;
use crate::retry::RetryBudgetSnapshot;

const BULKHEAD_LIMIT: &str = "resilience_bulkhead_limit";
const BULKHEAD_IN_FLIGHT: &str = "resilience_bulkhead_in_flight";
const BULKHEAD_WAITING: &str = "resilience_bulkhead_waiting";
const BULKHEAD_ADMITTED: &str = "resilience_bulkhead_admitted_total";
const BULKHEAD_QUEUED: &str = "resilience_bulkhead_queued_total";
const BULKHEAD_WAIT: &str = "resilience_bulkhead_wait_seconds";
const BULKHEAD_REJECTED: &str = "resilience_bulkhead_rejected_total";
const RETRIES: &str = "resilience_retries_total";
const BUDGET_AVAILABLE: &str = "resilience_retry_budget_available";

pub(super) fn describe() {
    describe_gauge!(BULKHEAD_LIMIT, "Calls that there may be at a time");
    describe_gauge!(BULKHEAD_IN_FLIGHT, "Calls that have a place");
    describe_gauge!(BULKHEAD_WAITING, "Calls that wait for a place");
    describe_counter!(BULKHEAD_ADMITTED, "Calls that got a place");
    describe_counter!(BULKHEAD_QUEUED, "Calls that had to wait for their place");
    describe_histogram!(BULKHEAD_WAIT, Unit::Seconds, "How long those waited that got a place");
    describe_counter!(BULKHEAD_REJECTED, "Calls that got no place");
    describe_counter!(RETRIES, "Retries that were wanted, and granted or denied");
    describe_gauge!(BUDGET_AVAILABLE, "Retries that would be granted now");
}

pub(super) fn publish(snapshot: &Snapshot) {
    snapshot.bulkheads.iter().for_each(bulkhead);
    snapshot.retry_budgets.iter().for_each(retry_budget);
}

fn bulkhead(snapshot: &BulkheadSnapshot) {
    let name = || Arc::clone(&snapshot.name);
    for (gauge, value) in [
        (BULKHEAD_LIMIT, snapshot.limit),
        (BULKHEAD_IN_FLIGHT, snapshot.in_flight),
        (BULKHEAD_WAITING, snapshot.waiting),
    ] {
        gauge!(gauge, "bulkhead" => name()).set(float(value as u64));
    }
    for (counter, value) in [
        (BULKHEAD_ADMITTED, snapshot.admitted),
        (BULKHEAD_QUEUED, snapshot.queued),
        (BULKHEAD_REJECTED, snapshot.rejected),
    ] {
        counter!(counter, "bulkhead" => name()).absolute(value);
    }
}

fn retry_budget(snapshot: &RetryBudgetSnapshot) {
    let name = || Arc::clone(&snapshot.name);
    for (outcome, retries) in [("granted", snapshot.retries), ("denied", snapshot.denied)] {
        counter!(RETRIES, "budget" => name(), "outcome" => outcome).absolute(retries);
    }
    gauge!(BUDGET_AVAILABLE, "budget" => name()).set(float(snapshot.available));
}

/// Somebody got a place in a bulkhead after so long.
pub(crate) fn waited(bulkhead: &Arc<str>, time: Duration) {
    histogram!(BULKHEAD_WAIT, "bulkhead" => Arc::clone(bulkhead)).record(time);
}
