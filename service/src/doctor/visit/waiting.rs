//! What is to be done yet: deferred calls, and sagas.

use serde_json::Value;

use super::{Visit, text};
use crate::doctor::{Finding, ago};

/// A deferred call or a saga that has waited for longer is late, in milliseconds. Most take none.
pub(super) const LATE: u64 = 60_000;

pub(super) const DEFERRED: Waiting = Waiting {
    plural: "deferred calls",
    target: "/manage/deferred",
    given_up: "parked",
    wait_for: "are parked and wait for",
    open: &["pending", "sent", "running"],
};

pub(super) const SAGAS: Waiting = Waiting {
    plural: "sagas",
    target: "/manage/sagas",
    given_up: "stuck",
    wait_for: "are stuck and wait for",
    open: &["running", "compensating"],
};

/// Something that is counted by its kinds.
pub(super) struct Waiting {
    plural: &'static str,
    target: &'static str,
    given_up: &'static str,
    wait_for: &'static str,
    open: &'static [&'static str],
}

impl Waiting {
    /// What waits, and what waits for somebody.
    pub(super) fn look(&self, visit: &Visit, seen: &Value) -> Vec<Finding> {
        let mut findings = Vec::new();
        for kind in seen["kinds"].as_array().into_iter().flatten() {
            let name = text(&kind["kind"]);
            let count = |state: &str| kind[state].as_u64().unwrap_or_default();
            let given_up = count(self.given_up);
            if given_up > 0 {
                findings.push(visit.error(format!(
                    "{given_up} {} of the kind {name} {} somebody: see {}",
                    self.plural, self.wait_for, self.target
                )));
            }
            let open: u64 = self.open.iter().map(|state| count(state)).sum();
            let oldest = kind["oldestMs"].as_u64().unwrap_or_default();
            // What was given up may be the oldest.
            if open > 0 && oldest > LATE && given_up == 0 {
                findings.push(visit.warning(format!(
                    "{open} {} of the kind {name} wait, the oldest for {}: see {}",
                    self.plural,
                    ago(oldest),
                    self.target
                )));
            }
        }
        if findings.is_empty() {
            findings
                .push(visit.ok(format!("no {} wait for somebody, and none is late", self.plural)));
        }
        findings
    }
}
