use std::collections::BTreeSet;
use std::time::Duration;

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use super::{float, gone};
use crate::deferred::{Broker, KindSnapshot, Snapshot};

const DEPTH: &str = "resilience_deferred_depth";
const OLDEST: &str = "resilience_deferred_oldest_seconds";
const LATENESS: &str = "resilience_deferred_lateness_seconds";
const ATTEMPTS: &str = "resilience_deferred_attempts_total";
const STALE: &str = "resilience_deferred_stale_total";
const BROKER: &str = "resilience_deferred_broker_up";
#[cfg(feature = "rabbitmq")]
const CONFIRM: &str = "resilience_deferred_confirm_seconds";
#[cfg(feature = "rabbitmq")]
const UNROUTED: &str = "resilience_deferred_unrouted_total";

pub(super) fn describe() {
    describe_gauge!(DEPTH, "Calls in the ledger, by where they are");
    describe_gauge!(OLDEST, Unit::Seconds, "The age of the oldest call that has not ended");
    describe_histogram!(LATENESS, Unit::Seconds, "How long after they were due calls were begun");
    describe_counter!(ATTEMPTS, "Attempts at deferred calls, by how they ended");
    describe_counter!(STALE, "Results and messages that came after somebody else had taken over");
    describe_gauge!(BROKER, "1 while the broker carries the calls");
    #[cfg(feature = "rabbitmq")]
    {
        describe_histogram!(
            CONFIRM,
            Unit::Seconds,
            "How long the broker took to confirm a message"
        );
        describe_counter!(UNROUTED, "Messages that the broker had no queue for");
    }
}

/// What the ledger holds. `seen` are the kinds of the last time.
pub(crate) fn publish(snapshot: &Snapshot, seen: &mut BTreeSet<String>) {
    snapshot.kinds.iter().for_each(depth);
    for kind in gone(seen, snapshot.kinds.iter().map(|kind| &kind.kind)) {
        depth(&KindSnapshot { kind, ..KindSnapshot::default() });
    }
    broker(snapshot.broker);
}

fn depth(kind: &KindSnapshot) {
    let KindSnapshot { pending, sent, running, parked, .. } = *kind;
    for (state, count) in
        [("pending", pending), ("sent", sent), ("running", running), ("parked", parked)]
    {
        gauge!(DEPTH, "kind" => kind.kind.clone(), "state" => state).set(float(count));
    }
    let oldest = kind.oldest.unwrap_or_default();
    gauge!(OLDEST, "kind" => kind.kind.clone()).set(oldest.as_secs_f64());
}

/// Who carries the calls. Told when it changes, too: the ledger may be away. Where no broker is wanted,
/// none is down.
pub(crate) fn broker(broker: Broker) {
    match broker {
        Broker::Absent => {}
        Broker::Down => gauge!(BROKER).set(0.0),
        Broker::Work => gauge!(BROKER).set(1.0),
    }
}

/// A call was begun, so long after it was due.
pub(crate) fn begun(kind: &'static str, lateness: Duration) {
    histogram!(LATENESS, "kind" => kind).record(lateness);
}

/// An attempt ended.
pub(crate) fn attempt(kind: &'static str, outcome: &'static str) {
    counter!(ATTEMPTS, "kind" => kind, "outcome" => outcome).increment(1);
}

/// A result or a message came too late.
pub(crate) fn stale(kind: &'static str) {
    counter!(STALE, "kind" => kind).increment(1);
}

/// The broker confirmed a message after so long.
#[cfg(feature = "rabbitmq")]
pub(crate) fn confirmed(took: Duration) {
    histogram!(CONFIRM).record(took);
}

/// The broker had no queue for a message.
#[cfg(feature = "rabbitmq")]
pub(crate) fn unrouted() {
    counter!(UNROUTED).increment(1);
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    /// Of a kind that an earlier release had, which nothing of this one's lists as empty.
    #[test]
    fn a_kind_of_which_nothing_is_left_is_told_to_be_empty() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let shown = recorder.handle();
        let old = KindSnapshot { kind: "old".to_owned(), parked: 7, ..KindSnapshot::default() };
        metrics::with_local_recorder(&recorder, || {
            let mut seen = BTreeSet::new();
            for (kinds, parked) in [(vec![old.clone()], 7), (Vec::new(), 0), (vec![old], 7)] {
                publish(&Snapshot { broker: Broker::Absent, kinds }, &mut seen);
                let line = format!("{DEPTH}{{kind=\"old\",state=\"parked\"}} {parked}\n");
                let shown = shown.render();
                assert!(shown.contains(&line), "{shown}");
                assert!(!shown.contains(BROKER), "nobody wanted one: {shown}");
            }
        });
    }
}
