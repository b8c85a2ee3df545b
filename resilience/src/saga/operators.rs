//! What operators do: look, and have repeated what is stuck.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::call::Stage;
use super::handle::Sagas;
use super::journal;
use super::shared::Definitions;
use super::takeover;
use crate::deferred::{self, DatabaseError, OperatorError};

/// Of the sagas with one key, so many are shown.
const MOST_OF_A_KEY: i64 = 100;

/// One saga, with all that is known of it.
#[derive(Clone, Debug, serde::Serialize)]
#[non_exhaustive]
pub struct SagaEntry {
    /// Its id.
    pub id: Uuid,
    /// Its kind.
    pub kind: String,
    /// Of those with the same one is open at a time.
    pub key: Option<String>,
    /// Where it is.
    pub stage: Stage,
    /// Whether it is behind its pivot.
    pub forward: bool,
    /// Why it is or was taken back, or is stuck.
    pub reason: Option<String>,
    /// The system at fault, where it is known.
    pub dependency: Option<String>,
    /// Until when whoever runs it has it at least; after that somebody takes it over. Nothing while the
    /// ledger of deferred calls has it.
    pub lease_until: Option<DateTime<Utc>>,
    /// When it was begun.
    pub begun_at: DateTime<Utc>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
    /// Its input, as it was given.
    pub input: Box<RawValue>,
    /// What it came to.
    pub output: Option<Box<RawValue>>,
    /// What travels with it.
    pub context: Box<RawValue>,
    /// What it did, in this order. Empty in a [list](Sagas::list).
    pub steps: Vec<StepEntry>,
}

/// One step of a saga.
#[derive(Clone, Debug, serde::Serialize)]
#[non_exhaustive]
pub struct StepEntry {
    /// From zero.
    pub number: u32,
    /// Its name.
    pub name: String,
    /// `step`, `read`, `pivot` or `forward`.
    pub role: String,
    /// `intent`, `done`, `refused`, `unknown`; `undo_intent`, `undone`, `undo_deferred`.
    pub state: String,
    /// Why it failed, or its undo did.
    pub error: Option<String>,
    /// When its intent was written down.
    pub begun_at: DateTime<Utc>,
    /// When it was done, refused, or became unknown.
    pub ended_at: Option<DateTime<Utc>>,
    /// When it was undone.
    pub undone_at: Option<DateTime<Utc>>,
    /// Its input.
    pub input: Box<RawValue>,
    /// What it came to.
    pub output: Option<Box<RawValue>>,
}

/// Which sagas to [list](Sagas::list).
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Filter {
    pub(super) stage: Option<Stage>,
    pub(super) kind: Option<String>,
    pub(super) limit: Option<u32>,
}

impl Filter {
    /// Those that have not ended; the newest 100.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only those that are there.
    pub fn stage(mut self, stage: Stage) -> Self {
        self.stage = Some(stage);
        self
    }

    /// Only those of this kind.
    pub fn kind(mut self, kind: impl Into<String>) -> Self {
        self.kind = Some(kind.into());
        self
    }

    /// At most so many, up to 1000. The default is 100.
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = Some(limit);
        self
    }
}

/// The sagas of a kind at one moment. Those that have ended aren't counted: it would take too long.
#[derive(Clone, Debug, Default, serde::Serialize)]
#[non_exhaustive]
pub struct KindSnapshot {
    /// The kind.
    pub kind: String,
    /// Under way.
    pub running: u64,
    /// Being taken back.
    pub compensating: u64,
    /// Neither taken back nor completed, until an operator retries.
    pub stuck: u64,
    /// Since when the oldest of these is there.
    pub oldest: Option<Duration>,
}

impl Definitions {
    pub(super) async fn snapshot(&self) -> Result<Vec<KindSnapshot>, DatabaseError> {
        let depths = self.door.run(journal::depths).await?;
        let mut kinds: std::collections::BTreeMap<String, KindSnapshot> = self
            .kinds
            .keys()
            .map(|kind| (*kind).to_owned())
            .map(|kind| (kind.clone(), KindSnapshot { kind, ..KindSnapshot::default() }))
            .collect();
        for depth in depths {
            let (count, oldest) = (depth.count(), Some(depth.oldest()));
            let stage = depth.stage().map_err(DatabaseError::new)?;
            let kind = kinds
                .entry(depth.kind.clone())
                .or_insert_with(|| KindSnapshot { kind: depth.kind, ..KindSnapshot::default() });
            match stage {
                Stage::Running => kind.running = count,
                Stage::Compensating => kind.compensating = count,
                Stage::Stuck => kind.stuck = count,
                Stage::Committed | Stage::Compensated => {}
            }
            kind.oldest = kind.oldest.max(oldest);
        }
        Ok(kinds.into_values().collect())
    }
}

impl Sagas {
    /// The sagas that fit, the newest first, without their steps.
    ///
    /// # Errors
    ///
    /// When the database can't be reached.
    pub async fn list(&self, filter: Filter) -> Result<Vec<SagaEntry>, DatabaseError> {
        self.shared.door.run(move |conn| journal::list(conn, &filter)).await
    }

    /// A saga by its id, with its steps; nothing when there is none.
    ///
    /// # Errors
    ///
    /// When the database can't be reached.
    pub async fn get(&self, id: Uuid) -> Result<Option<SagaEntry>, DatabaseError> {
        self.shared.door.run(move |conn| journal::get(conn, id)).await
    }

    /// Every saga with this key that is still kept, the oldest first, each with its steps and with what
    /// of it is, or was, a deferred call; at most a hundred of those that have ended. It walks through
    /// all that is kept: it is for people.
    ///
    /// # Errors
    ///
    /// When the database can't be reached.
    pub async fn of_key(
        &self,
        key: impl Into<String>,
    ) -> Result<Vec<(SagaEntry, Vec<deferred::Entry>)>, DatabaseError> {
        let key = key.into();
        let found = self.shared.door.run(move |conn| {
            let sagas = journal::of_key(conn, &key, MOST_OF_A_KEY)?;
            let with_calls = |saga: SagaEntry| {
                let ids: Vec<_> = takeover::call_ids(saga.id, saga.steps.len()).collect();
                let calls = ids.into_iter().map(|id| deferred::find(conn, id));
                let calls = calls.filter_map(diesel::QueryResult::transpose);
                Ok((saga, calls.collect::<diesel::QueryResult<_>>()?))
            };
            sagas.into_iter().map(with_calls).collect::<diesel::QueryResult<_>>()
        });
        found.await
    }

    /// How many there are of each kind that have not ended.
    ///
    /// # Errors
    ///
    /// When the database can't be reached.
    pub async fn snapshot(&self) -> Result<Vec<KindSnapshot>, DatabaseError> {
        self.shared.snapshot().await
    }

    /// Has everything repeated that is left of a saga: from the beginning what was given up, whether
    /// or not it was [discarded](deferred::Deferred::discard) and deleted since, and at once what waits.
    ///
    /// # Errors
    ///
    /// When there is no such saga, or nothing of it is left to whoever comes: it has ended, or is
    /// being run; or when the database can't be reached.
    pub async fn retry(&self, id: Uuid) -> Result<(), OperatorError> {
        let renewed = self.shared.door.run(move |conn| {
            let mut renewed = Err(OperatorError::Unknown);
            for call in takeover::calls(conn, id)? {
                match deferred::renew(conn, &call)? {
                    Ok(()) => renewed = Ok(()),
                    // Since it was looked for.
                    Err(deferred::Stage::Done) => {}
                    Err(stage) => renewed = renewed.or(Err(OperatorError::Stage(stage))),
                }
            }
            if renewed.is_ok() {
                journal::unstick(conn, id)?;
            }
            Ok(renewed)
        });
        renewed.await.map_err(OperatorError::Database)??;
        tracing::info!(saga = %id, "a saga is retried by an operator");
        self.deferred.nudge();
        Ok(())
    }
}
