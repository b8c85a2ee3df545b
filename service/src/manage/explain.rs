//! What one service knows of something, as it happened: for whoever puts the stories of several together.
//!
//! The words are for people; what a program needs is beside them, as it stands in the journal.

use chrono::{DateTime, Utc};
use resilience::deferred::{self, Stage as CallStage};
use resilience::saga::{SagaEntry, Stage, StepEntry};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::rows::text as rfc;

/// What a service knows of something.
#[derive(Debug, Serialize, ToSchema)]
pub struct Story {
    service: &'static str,
    /// What happened, and when.
    events: Vec<Told>,
    /// What is so now.
    facts: Vec<Fact>,
    /// What is still to happen.
    waits: Vec<Wait>,
}

/// Something that happened.
#[derive(Debug, Serialize, ToSchema)]
pub struct Told {
    /// When, RFC 3339.
    at: String,
    service: &'static str,
    /// `journal`, `ledger` or `row`: where it stands.
    source: &'static str,
    /// The saga, or the deferred call.
    #[serde(skip_serializing_if = "Option::is_none")]
    of: Option<Uuid>,
    /// The kind of that, or the step.
    name: String,
    /// What it came to, as it stands there.
    state: String,
    /// The same for people.
    text: String,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// Something that is so.
#[derive(Debug, Serialize, ToSchema)]
pub struct Fact {
    service: &'static str,
    /// Of what.
    name: &'static str,
    /// As it stands there.
    state: String,
    /// For people.
    text: String,
}

/// Something that is still to happen.
#[derive(Debug, Serialize, ToSchema)]
pub struct Wait {
    service: &'static str,
    /// The saga, or the deferred call.
    of: Uuid,
    /// Its kind.
    name: String,
    /// Where it is.
    state: String,
    /// For people.
    text: String,
    /// What it waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    on: Option<String>,
    /// When it is due, or until when somebody has it at least, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    /// What went wrong last.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// The system that a step of a saga asks, by the saga's kind and the step's name; nothing where it is
/// the service's own database.
pub type Whom = fn(&str, &str) -> Option<&'static str>;

impl Story {
    /// Nothing is known yet.
    pub fn new(service: &'static str) -> Self {
        Self { service, events: Vec::new(), facts: Vec::new(), waits: Vec::new() }
    }

    /// What is so.
    pub fn fact(&mut self, name: &'static str, state: impl Into<String>, text: impl Into<String>) {
        let (service, state, text) = (self.service, state.into(), text.into());
        self.facts.push(Fact { service, name, state, text });
    }

    /// What a row of the service's own tables says happened.
    pub fn row(&mut self, at: DateTime<Utc>, name: &str, state: &str, text: impl Into<String>) {
        self.tell(at, "row", None, (name, state), text.into(), None);
    }

    fn tell(
        &mut self,
        at: DateTime<Utc>,
        source: &'static str,
        of: Option<Uuid>,
        (name, state): (&str, &str),
        text: String,
        reason: Option<String>,
    ) {
        let (at, service, name, state) = (rfc(at), self.service, name.to_owned(), state.to_owned());
        self.events.push(Told { at, service, source, of, name, state, text, reason });
    }

    /// A saga, with what of it is or was a deferred call.
    pub fn saga(&mut self, saga: &SagaEntry, calls: &[deferred::Entry], whom: Whom) {
        let (id, kind) = (saga.id, saga.kind.as_str());
        let begun = format!("{kind} is begun");
        self.tell(saga.begun_at, "journal", Some(id), (kind, "begun"), begun, None);
        for step in &saga.steps {
            self.step(saga, step, whom(kind, &step.name));
        }
        // The last one is undone first, and none of them before all were asked.
        for step in saga.steps.iter().rev() {
            self.undo(saga, step, whom(kind, &step.name));
        }
        for call in calls {
            self.call(call, saga.dependency.as_deref());
        }
        let state = saga.stage.as_str();
        if let Some(at) = saga.ended_at {
            let text = match saga.stage {
                Stage::Committed => format!("{kind} is complete"),
                _ => format!("{kind} is taken back: everything is as it was"),
            };
            let reason = saga.reason.clone();
            self.tell(at, "journal", Some(id), (kind, state), text, reason);
            return;
        }
        let text = match (saga.stage, saga.forward) {
            (Stage::Stuck, _) => format!("{kind} is stuck until an operator retries it"),
            (Stage::Compensating, _) => format!("{kind} is being taken back"),
            (_, true) => format!("{kind} can't be taken back any more, and is being completed"),
            _ => format!("{kind} is under way; when whoever runs it falls silent it is taken over"),
        };
        self.waits.push(Wait {
            service: self.service,
            of: id,
            name: kind.to_owned(),
            state: state.to_owned(),
            text,
            on: saga.dependency.clone(),
            until: saga.lease_until.map(rfc),
            reason: saga.reason.clone(),
        });
    }

    /// A step says what was asked, and what was answered or lost.
    fn step(&mut self, saga: &SagaEntry, step: &StepEntry, whom: Option<&str>) {
        let (kind, name, id) = (&saga.kind, step.name.as_str(), Some(saga.id));
        let system = whom.unwrap_or("its own database");
        let asked = format!("{kind} {name}: asks {system}");
        // Its answer is known by what it left: the state goes on to what became of its undo.
        let (answer, said) = match (&step.ended_at, &step.output, step.state.as_str()) {
            (_, _, "refused") => (Some("refused"), "did nothing: it refused, or was not reached"),
            (_, Some(_), _) => (Some("done"), "says yes"),
            (None, None, "intent") => (None, ""),
            (None, None, _) => (
                Some("unknown"),
                "may have done it: whoever asked died before the answer was known",
            ),
            _ => (Some("unknown"), "may have done it: the answer was lost"),
        };
        self.tell(step.begun_at, "journal", id, (name, "intent"), asked, None);
        if let Some(state) = answer {
            let at = step.ended_at.unwrap_or(step.begun_at);
            // Later on it may be that of its undo.
            let reason = step.error.clone().filter(|_| state == step.state);
            self.tell(
                at,
                "journal",
                id,
                (name, state),
                format!("{kind} {name}: {system} {said}"),
                reason,
            );
        }
    }

    /// What became of the undo of a step, where there is one.
    fn undo(&mut self, saga: &SagaEntry, step: &StepEntry, whom: Option<&str>) {
        let (kind, name, state) = (&saga.kind, step.name.as_str(), step.state.as_str());
        let system = whom.unwrap_or("its own database");
        let text = match state {
            "undone" => format!("{kind} {name}: undone at {system}"),
            "undo_deferred" => {
                format!("{kind} {name}: its undo failed at {system}, and is made later")
            }
            "undo_intent" => format!("{kind} {name}: is being undone at {system}"),
            _ => return,
        };
        // When it was begun is not written down: after whatever else of the saga is, but for undos.
        let known = saga.steps.iter().map(|step| step.ended_at.unwrap_or(step.begun_at)).max();
        let at = step.undone_at.or(known).unwrap_or(saga.begun_at);
        let reason = step.error.clone().filter(|_| state == "undo_deferred");
        self.tell(at, "journal", Some(saga.id), (name, state), text, reason);
    }

    /// A deferred call. `on` is what it waits for, where that is known.
    pub fn call(&mut self, call: &deferred::Entry, on: Option<&str>) {
        let (id, kind) = (Some(call.id), call.kind.as_str());
        let accepted = format!("{kind} is written down, to be made whatever dies");
        self.tell(call.created_at, "ledger", id, (kind, "accepted"), accepted, None);
        if let (Some(at), Some(error)) = (call.first_error_at, &call.first_error) {
            let text = format!("{kind} fails for the first time");
            self.tell(at, "ledger", id, (kind, "failed"), text, Some(error.clone()));
        }
        if let (Some(at), Some(error)) = (call.last_error_at, &call.last_error)
            && call.last_error_at != call.first_error_at
        {
            let text =
                format!("{kind} fails for the last time so far, begun {} times", call.attempts);
            self.tell(at, "ledger", id, (kind, "failed"), text, Some(error.clone()));
        }
        let state = call.stage.as_str();
        if let Some(at) = call.ended_at {
            let text = match call.stage {
                CallStage::Done => format!("{kind} is made, begun {} times", call.attempts),
                _ => format!("{kind} is given up: parked"),
            };
            let reason = call.last_error.clone().filter(|_| call.stage == CallStage::Parked);
            self.tell(at, "ledger", id, (kind, state), text, reason);
        }
        if let Some(at) = call.discarded_at {
            let text = format!("{kind} is discarded by an operator");
            self.tell(at, "ledger", id, (kind, "discarded"), text, None);
        }
        if call.stage == CallStage::Done || call.discarded_at.is_some() {
            return;
        }
        let text = match call.stage {
            CallStage::Parked => {
                format!("{kind} is parked until an operator retries or discards it")
            }
            CallStage::Running => {
                format!(
                    "{kind} is being made, or held; when whoever has it falls silent it is made again"
                )
            }
            CallStage::Sent => format!("{kind} is with the broker, and waits for its turn"),
            _ => format!("{kind} waits for its time, and for its breaker"),
        };
        self.waits.push(Wait {
            service: self.service,
            of: call.id,
            name: kind.to_owned(),
            state: state.to_owned(),
            text,
            on: on.map(str::to_owned),
            until: match call.stage {
                CallStage::Parked => None,
                CallStage::Running => call.lease_until.map(rfc),
                _ => Some(rfc(call.not_before)),
            },
            reason: call.last_error.clone(),
        });
    }
}
