//! What is read out of the journal: by whoever carries a saga on, and by operators.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Bool, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use uuid::Uuid;

use super::{Entry, Role, StepState, Taken, raw, read, unreadable};
use crate::saga::call::{Known, Stage};
use crate::saga::operators::{Filter, SagaEntry, StepEntry};

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
    #[diesel(sql_type = BigInt)]
    fence: i64,
    /// Somebody runs it, or has died, and will be followed by somebody who finds that out.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    lease_until: Option<DateTime<Utc>>,
    #[diesel(sql_type = Text)]
    input: String,
    #[diesel(sql_type = Text)]
    context: String,
    #[diesel(sql_type = Nullable<Text>)]
    output: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    reason: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    dependency: Option<String>,
    #[diesel(sql_type = Timestamptz)]
    begun_at: DateTime<Utc>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    ended_at: Option<DateTime<Utc>>,
}

/// Of [`StoredSaga`].
const SAGA: &str = "id, kind, key, state, forward, fence, lease_until,
    input::text AS input, context::text AS context, output::text AS output, reason, dependency,
    begun_at, ended_at";

impl StoredSaga {
    fn known(&self) -> QueryResult<Known> {
        Ok(Known {
            id: self.id,
            stage: read(&self.state)?,
            forward: self.forward,
            input: raw(&self.input)?,
            output: self.output.as_deref().map(raw).transpose()?,
            reason: self.reason.clone(),
            dependency: self.dependency.clone(),
        })
    }

    fn context(&self) -> QueryResult<BTreeMap<String, String>> {
        serde_json::from_str(&self.context).map_err(unreadable)
    }

    fn shown(self, steps: Vec<StepEntry>) -> QueryResult<SagaEntry> {
        let Known { id, stage, forward, input, output, reason, dependency } = self.known()?;
        Ok(SagaEntry {
            id,
            kind: self.kind,
            key: self.key,
            stage,
            forward,
            reason,
            dependency,
            lease_until: self.lease_until,
            begun_at: self.begun_at,
            ended_at: self.ended_at,
            input,
            output,
            context: raw(&self.context)?,
            steps,
        })
    }
}

/// The one of this id, if this is true of it.
fn saga(conn: &mut PgConnection, id: Uuid, which: &str) -> QueryResult<Option<StoredSaga>> {
    sql_query(format!("SELECT {SAGA} FROM saga WHERE id = $1 AND {which}"))
        .bind::<SqlUuid, _>(id)
        .get_result(conn)
        .optional()
}

/// What is known of the saga of this id.
pub(in crate::saga) fn find(
    conn: &mut PgConnection,
    kind: &str,
    id: Uuid,
) -> QueryResult<Option<Known>> {
    let found = saga(conn, id, "true")?.filter(|found| found.kind == kind);
    found.map(|found| found.known()).transpose()
}

/// What is known of the open saga with this key.
pub(in crate::saga) fn find_open(
    conn: &mut PgConnection,
    kind: &str,
    key: &str,
) -> QueryResult<Option<Known>> {
    let found: Option<StoredSaga> = sql_query(format!(
        "SELECT {SAGA} FROM saga WHERE kind = $1 AND key = $2 AND ended_at IS NULL"
    ))
    .bind::<Text, _>(kind)
    .bind::<Text, _>(key)
    .get_result(conn)
    .optional()?;
    found.map(|found| found.known()).transpose()
}

/// Takes a saga that the ledger of deferred calls has, to carry it on: whoever was at it before is
/// refused from now on. Nothing when there is none, or it has ended.
pub(in crate::saga) fn take(conn: &mut PgConnection, id: Uuid) -> QueryResult<Option<Taken>> {
    let taken: Option<StoredSaga> = sql_query(format!(
        "UPDATE saga SET fence = fence + 1 WHERE id = $1 AND ended_at IS NULL RETURNING {SAGA}"
    ))
    .bind::<SqlUuid, _>(id)
    .get_result(conn)
    .optional()?;
    let Some(taken) = taken else { return Ok(None) };
    let entries = entries(conn, id)?;
    Ok(Some(Taken {
        known: taken.known()?,
        context: taken.context()?,
        kind: taken.kind,
        fence: taken.fence,
        entries,
    }))
}

/// What of a saga that has not ended is the ledger's.
pub(in crate::saga) struct Left {
    pub(in crate::saga) context: BTreeMap<String, String>,
    /// These undos.
    pub(in crate::saga) undos: Vec<i32>,
    /// And all the rest, however much that is.
    pub(in crate::saga) rest: bool,
}

/// Nothing when there is no such saga, or it has ended.
pub(in crate::saga) fn left(conn: &mut PgConnection, id: Uuid) -> QueryResult<Option<Left>> {
    let Some(saga) = saga(conn, id, "ended_at IS NULL")? else { return Ok(None) };
    let entries = entries(conn, id)?;
    let deferred = entries.iter().filter(|entry| entry.state == StepState::UndoDeferred);
    let undos: Vec<_> = deferred.map(|entry| entry.number).collect();
    let more = saga.forward || undos.is_empty() || entries.iter().any(Entry::to_undo);
    Ok(Some(Left { context: saga.context()?, rest: more && saga.lease_until.is_none(), undos }))
}

/// A step, its saga's kind, and what travels with it.
pub(in crate::saga) type ToUndo = (String, BTreeMap<String, String>, Entry);

/// A saga and one of its steps, as whoever undoes it needs to know them.
pub(in crate::saga) fn step(
    conn: &mut PgConnection,
    id: Uuid,
    number: i32,
) -> QueryResult<Option<ToUndo>> {
    let Some(saga) = saga(conn, id, "true")? else { return Ok(None) };
    let context = saga.context()?;
    let entry = entries(conn, id)?.into_iter().find(|entry| entry.number == number);
    Ok(entry.map(|entry| (saga.kind, context, entry)))
}

#[derive(QueryableByName)]
struct Whose {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Text)]
    kind: String,
}

/// Of which saga a deferred call is a part, and its kind.
pub(in crate::saga) fn saga_of_call(
    conn: &mut PgConnection,
    call: Uuid,
) -> QueryResult<Option<(Uuid, String)>> {
    let found: Option<Whose> = sql_query(
        "SELECT saga.id, saga.kind FROM deferred, saga
         WHERE deferred.id = $1 AND saga.id = (deferred.payload->>'saga')::uuid",
    )
    .bind::<SqlUuid, _>(call)
    .get_result(conn)
    .optional()?;
    Ok(found.map(|found| (found.id, found.kind)))
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
    #[diesel(sql_type = Text)]
    input: String,
    #[diesel(sql_type = Nullable<Text>)]
    output: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    error: Option<String>,
    #[diesel(sql_type = Timestamptz)]
    begun_at: DateTime<Utc>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    ended_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    undone_at: Option<DateTime<Utc>>,
}

impl StoredStep {
    fn entry(self) -> QueryResult<Entry> {
        let role = Role::ALL.into_iter().find(|role| role.as_str() == self.role);
        let state = StepState::ALL.into_iter().find(|state| state.as_str() == self.state);
        Ok(Entry {
            number: self.number,
            name: self.name,
            role: role.ok_or_else(|| unreadable(format!("role {}", self.role)))?,
            state: state.ok_or_else(|| unreadable(format!("state {}", self.state)))?,
            input: raw(&self.input)?,
            output: self.output.as_deref().map(raw).transpose()?,
        })
    }

    fn shown(self) -> QueryResult<StepEntry> {
        Ok(StepEntry {
            number: u32::try_from(self.number).unwrap_or_default(),
            name: self.name,
            role: self.role,
            state: self.state,
            error: self.error,
            begun_at: self.begun_at,
            ended_at: self.ended_at,
            undone_at: self.undone_at,
            input: raw(&self.input)?,
            output: self.output.as_deref().map(raw).transpose()?,
        })
    }
}

/// The steps of a saga, in their order.
fn steps<T>(
    conn: &mut PgConnection,
    saga: Uuid,
    of: fn(StoredStep) -> QueryResult<T>,
) -> QueryResult<Vec<T>> {
    let steps: Vec<StoredStep> = sql_query(
        "SELECT number, name, role, state, input::text AS input, output::text AS output, error,
                begun_at, ended_at, undone_at
         FROM saga_step WHERE saga = $1 ORDER BY number",
    )
    .bind::<SqlUuid, _>(saga)
    .get_results(conn)?;
    steps.into_iter().map(of).collect()
}

fn entries(conn: &mut PgConnection, id: Uuid) -> QueryResult<Vec<Entry>> {
    steps(conn, id, StoredStep::entry)
}

/// A saga with its steps, for people.
pub(in crate::saga) fn get(conn: &mut PgConnection, id: Uuid) -> QueryResult<Option<SagaEntry>> {
    let Some(saga) = saga(conn, id, "true")? else { return Ok(None) };
    let steps = steps(conn, id, StoredStep::shown)?;
    saga.shown(steps).map(Some)
}

/// Every saga with this key, the oldest first, with its steps: of those that ended, at most so many of
/// the newest.
pub(in crate::saga) fn of_key(
    conn: &mut PgConnection,
    key: &str,
    most: i64,
) -> QueryResult<Vec<SagaEntry>> {
    let mut sagas: Vec<StoredSaga> = sql_query(format!(
        "SELECT {SAGA} FROM saga WHERE key = $1 ORDER BY ended_at DESC NULLS FIRST LIMIT $2"
    ))
    .bind::<Text, _>(key)
    .bind::<BigInt, _>(most)
    .get_results(conn)?;
    sagas.sort_by_key(|saga| saga.begun_at);
    let shown = |saga: StoredSaga| {
        let steps = steps(conn, saga.id, StoredStep::shown)?;
        saga.shown(steps)
    };
    sagas.into_iter().map(shown).collect()
}

/// The sagas that fit, the newest first, without their steps.
pub(in crate::saga) fn list(
    conn: &mut PgConnection,
    filter: &Filter,
) -> QueryResult<Vec<SagaEntry>> {
    let open = match filter.stage {
        Some(stage) if stage.has_ended() => "ended_at IS NOT NULL",
        _ => "ended_at IS NULL",
    };
    let sagas: Vec<StoredSaga> = sql_query(format!(
        "SELECT {SAGA} FROM saga
         WHERE {open} AND ($1::text IS NULL OR state = $1) AND ($2::text IS NULL OR kind = $2)
         ORDER BY begun_at DESC, id LIMIT $3"
    ))
    .bind::<Nullable<Text>, _>(filter.stage.map(Stage::as_str))
    .bind::<Nullable<Text>, _>(filter.kind.as_deref())
    .bind::<BigInt, _>(i64::from(filter.limit.unwrap_or(100).min(1000)))
    .get_results(conn)?;
    sagas.into_iter().map(|saga| saga.shown(Vec::new())).collect()
}

/// How many sagas of a kind are somewhere.
#[derive(QueryableByName)]
pub(in crate::saga) struct Depth {
    #[diesel(sql_type = Text)]
    pub(in crate::saga) kind: String,
    #[diesel(sql_type = Text)]
    state: String,
    #[diesel(sql_type = BigInt)]
    count: i64,
    #[diesel(sql_type = BigInt)]
    oldest_micros: i64,
}

impl Depth {
    pub(in crate::saga) fn stage(&self) -> QueryResult<Stage> {
        read(&self.state)
    }

    pub(in crate::saga) fn count(&self) -> u64 {
        u64::try_from(self.count).unwrap_or_default()
    }

    pub(in crate::saga) fn oldest(&self) -> Duration {
        Duration::from_micros(u64::try_from(self.oldest_micros).unwrap_or_default())
    }
}

/// How many there are of what, without those that have ended.
pub(in crate::saga) fn depths(conn: &mut PgConnection) -> QueryResult<Vec<Depth>> {
    sql_query(
        "SELECT kind, state, count(*) AS count,
                (extract(epoch FROM clock_timestamp() - min(begun_at)) * 1000000)::bigint
                    AS oldest_micros
         FROM saga WHERE ended_at IS NULL GROUP BY kind, state",
    )
    .get_results(conn)
}
