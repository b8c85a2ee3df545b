use std::collections::BTreeSet;
use std::time::Duration;

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use super::{float, gone};
use crate::saga::{KindSnapshot, Stage};

const OPEN: &str = "resilience_sagas_open";
const OLDEST: &str = "resilience_sagas_oldest_seconds";
const ENDED: &str = "resilience_sagas_total";
const DURATION: &str = "resilience_saga_duration_seconds";
const STEPS: &str = "resilience_saga_steps_total";

pub(super) fn describe() {
    describe_gauge!(OPEN, "Sagas that have not ended, by where they are");
    describe_gauge!(OLDEST, Unit::Seconds, "The age of the oldest saga that has not ended");
    describe_counter!(ENDED, "Sagas that ended, by how");
    describe_histogram!(DURATION, Unit::Seconds, "How long sagas took that ended where they began");
    describe_counter!(STEPS, "Steps of sagas, by what became of them");
}

/// What the journal holds. `seen` are the kinds of the last time.
pub(crate) fn publish(kinds: &[KindSnapshot], seen: &mut BTreeSet<String>) {
    kinds.iter().for_each(open);
    for kind in gone(seen, kinds.iter().map(|kind| &kind.kind)) {
        open(&KindSnapshot { kind, ..KindSnapshot::default() });
    }
}

fn open(kind: &KindSnapshot) {
    let KindSnapshot { running, compensating, stuck, .. } = *kind;
    for (state, count) in [("running", running), ("compensating", compensating), ("stuck", stuck)] {
        gauge!(OPEN, "saga" => kind.kind.clone(), "state" => state).set(float(count));
    }
    let oldest = kind.oldest.unwrap_or_default();
    gauge!(OLDEST, "saga" => kind.kind.clone()).set(oldest.as_secs_f64());
}

/// A saga ended; in no time, where whoever ended it didn't begin it.
pub(crate) fn ended(kind: &'static str, stage: Stage, took: Duration) {
    counter!(ENDED, "saga" => kind, "outcome" => stage.as_str()).increment(1);
    if !took.is_zero() {
        histogram!(DURATION, "saga" => kind, "outcome" => stage.as_str()).record(took);
    }
}

/// Something became of a step. Its name is the code's.
pub(crate) fn step(kind: &'static str, step: &str, state: &'static str) {
    counter!(STEPS, "saga" => kind, "step" => step.to_owned(), "state" => state).increment(1);
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn a_kind_of_which_nothing_is_left_is_told_to_be_empty() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let shown = recorder.handle();
        let old = KindSnapshot { kind: "old".to_owned(), stuck: 7, ..KindSnapshot::default() };
        metrics::with_local_recorder(&recorder, || {
            let mut seen = BTreeSet::new();
            for (kinds, stuck) in [(&[old.clone()][..], 7), (&[], 0), (&[old], 7)] {
                publish(kinds, &mut seen);
                let line = format!("{OPEN}{{saga=\"old\",state=\"stuck\"}} {stuck}\n");
                let shown = shown.render();
                assert!(shown.contains(&line), "{shown}");
            }
        });
    }
}
