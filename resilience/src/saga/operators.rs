//! What operators do: look, and have repeated what is stuck.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Bool, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::call::Stage;
use super::handle::Sagas;
use super::journal;
use super::shared::Definitions;
use super::takeover;
use crate::deferred::{self, DatabaseError, OperatorError};

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
    stage: Option<Stage>,
    kind: Option<String>,
    limit: Option<u32>,
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

const SAGA: &str = "SELECT id, kind, key, state, forward, reason, dependency, begun_at, ended_at,
    input::text AS input, output::text AS output, context::text AS context FROM saga";

#[derive(QueryableByName)]
struct StoredSaga {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Text)]
    kind: String,
    #[diesel(sql_type = Nullable<Text>)]
    key: Option<String>,
    #[diesel(sql_type = Text)]
    state: String,
    #[diesel(sql_type = Bool)]
    forward: bool,
    #[diesel(sql_type = Nullable<Text>)]
    reason: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    dependency: Option<String>,
    #[diesel(sql_type = Timestamptz)]
    begun_at: DateTime<Utc>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    ended_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Text)]
    input: String,
    #[diesel(sql_type = Nullable<Text>)]
    output: Option<String>,
    #[diesel(sql_type = Text)]
    context: String,
}

impl StoredSaga {
    fn entry(self, steps: Vec<StepEntry>) -> QueryResult<SagaEntry> {
        Ok(SagaEntry {
            id: self.id,
            kind: self.kind,
            key: self.key,
            stage: journal::read(&self.state)?,
            forward: self.forward,
            reason: self.reason,
            dependency: self.dependency,
            begun_at: self.begun_at,
            ended_at: self.ended_at,
            input: journal::raw(&self.input)?,
            output: self.output.as_deref().map(journal::raw).transpose()?,
            context: journal::raw(&self.context)?,
            steps,
        })
    }
}

#[derive(QueryableByName)]
struct StoredStep {
    #[diesel(sql_type = Integer)]
    number: i32,
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Text)]
    role: String,
    #[diesel(sql_type = Text)]
    state: String,
    #[diesel(sql_type = Nullable<Text>)]
    error: Option<String>,
    #[diesel(sql_type = Timestamptz)]
    begun_at: DateTime<Utc>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    ended_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    undone_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Text)]
    input: String,
    #[diesel(sql_type = Nullable<Text>)]
    output: Option<String>,
}

fn get(conn: &mut PgConnection, id: Uuid) -> QueryResult<Option<SagaEntry>> {
    let saga: Option<StoredSaga> = sql_query(format!("{SAGA} WHERE id = $1"))
        .bind::<SqlUuid, _>(id)
        .get_result(conn)
        .optional()?;
    let Some(saga) = saga else { return Ok(None) };
    let steps: Vec<StoredStep> = sql_query(
        "SELECT number, name, role, state, error, begun_at, ended_at, undone_at,
                input::text AS input, output::text AS output
         FROM saga_step WHERE saga = $1 ORDER BY number",
    )
    .bind::<SqlUuid, _>(id)
    .get_results(conn)?;
    let step = |step: StoredStep| {
        Ok(StepEntry {
            number: u32::try_from(step.number).unwrap_or_default(),
            name: step.name,
            role: step.role,
            state: step.state,
            error: step.error,
            begun_at: step.begun_at,
            ended_at: step.ended_at,
            undone_at: step.undone_at,
            input: journal::raw(&step.input)?,
            output: step.output.as_deref().map(journal::raw).transpose()?,
        })
    };
    saga.entry(steps.into_iter().map(step).collect::<QueryResult<_>>()?).map(Some)
}

fn list(conn: &mut PgConnection, filter: &Filter) -> QueryResult<Vec<SagaEntry>> {
    let limit = i64::from(filter.limit.unwrap_or(100).min(1000));
    let open = match filter.stage {
        Some(stage) if stage.has_ended() => "ended_at IS NOT NULL",
        _ => "ended_at IS NULL",
    };
    let sagas: Vec<StoredSaga> = sql_query(format!(
        "{SAGA} WHERE {open} AND ($1::text IS NULL OR state = $1) AND ($2::text IS NULL OR kind = $2)
         ORDER BY begun_at DESC, id LIMIT $3"
    ))
    .bind::<Nullable<Text>, _>(filter.stage.map(Stage::as_str))
    .bind::<Nullable<Text>, _>(filter.kind.as_deref())
    .bind::<BigInt, _>(limit)
    .get_results(conn)?;
    sagas.into_iter().map(|saga| saga.entry(Vec::new())).collect()
}

#[derive(QueryableByName)]
struct Depth {
    #[diesel(sql_type = Text)]
    kind: String,
    #[diesel(sql_type = Text)]
    state: String,
    #[diesel(sql_type = BigInt)]
    count: i64,
    #[diesel(sql_type = BigInt)]
    oldest_micros: i64,
}

fn depths(conn: &mut PgConnection) -> QueryResult<Vec<Depth>> {
    sql_query(
        "SELECT kind, state, count(*) AS count,
                (extract(epoch FROM clock_timestamp() - min(begun_at)) * 1000000)::bigint
                    AS oldest_micros
         FROM saga WHERE ended_at IS NULL GROUP BY kind, state",
    )
    .get_results(conn)
}

impl Definitions {
    pub(super) async fn snapshot(&self) -> Result<Vec<KindSnapshot>, DatabaseError> {
        let depths = self.door.run(depths).await?;
        let mut kinds: std::collections::BTreeMap<String, KindSnapshot> = self
            .kinds
            .keys()
            .map(|kind| (*kind).to_owned())
            .map(|kind| (kind.clone(), KindSnapshot { kind, ..KindSnapshot::default() }))
            .collect();
        for depth in depths {
            let kind = kinds
                .entry(depth.kind.clone())
                .or_insert_with(|| KindSnapshot { kind: depth.kind, ..KindSnapshot::default() });
            let count = u64::try_from(depth.count).unwrap_or_default();
            match journal::read(&depth.state) {
                Ok(Stage::Running) => kind.running = count,
                Ok(Stage::Compensating) => kind.compensating = count,
                Ok(Stage::Stuck) => kind.stuck = count,
                _ => {}
            }
            let age = Duration::from_micros(u64::try_from(depth.oldest_micros).unwrap_or_default());
            kind.oldest = kind.oldest.max(Some(age));
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
        self.shared.door.run(move |conn| list(conn, &filter)).await
    }

    /// A saga by its id, with its steps; nothing when there is none.
    ///
    /// # Errors
    ///
    /// When the database can't be reached.
    pub async fn get(&self, id: Uuid) -> Result<Option<SagaEntry>, DatabaseError> {
        self.shared.door.run(move |conn| get(conn, id)).await
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
