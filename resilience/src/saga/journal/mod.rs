//! Every statement on the journal.
//!
//! Who may write is told by the fence: each write locks the saga's row and looks whether it is still
//! the one that the writer was given. Times are the database's. Every write can be repeated: nobody
//! knows whether a commit whose answer was lost has happened.

mod read;

use std::collections::BTreeMap;
use std::time::Duration;

use diesel::prelude::*;
use diesel::result::Error as QueryError;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Integer, Nullable, Text, Uuid as SqlUuid};
use serde_json::value::RawValue;
use uuid::Uuid;

pub(super) use self::read::{
    Left, depths, find, find_open, get, left, list, of_key, saga_of_call, step, take,
};
use super::call::{Known, Stage};
use crate::deferred::{DatabaseError, micros, statement, storable};

/// What a step is to its saga.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It is taken back when the saga fails.
    Step,
    /// It changes nothing.
    Read,
    /// From here on there is no way back.
    Pivot,
    /// It comes behind the pivot, and is repeated until it is done.
    Forward,
}

impl Role {
    const ALL: [Self; 4] = [Self::Step, Self::Read, Self::Pivot, Self::Forward];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Read => "read",
            Self::Pivot => "pivot",
            Self::Forward => "forward",
        }
    }
}

/// Where a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StepState {
    Intent,
    Done,
    Refused,
    Unknown,
    UndoIntent,
    Undone,
    UndoDeferred,
}

impl StepState {
    const ALL: [Self; 7] = [
        Self::Intent,
        Self::Done,
        Self::Refused,
        Self::Unknown,
        Self::UndoIntent,
        Self::Undone,
        Self::UndoDeferred,
    ];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Intent => "intent",
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
            Self::UndoIntent => "undo_intent",
            Self::Undone => "undone",
            Self::UndoDeferred => "undo_deferred",
        }
    }
}

/// One step, as it was written down.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) number: i32,
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) state: StepState,
    pub(super) input: Box<RawValue>,
    pub(super) output: Option<Box<RawValue>>,
}

impl Entry {
    /// Whether it has to be taken back, and nobody is at it.
    pub(super) fn to_undo(&self) -> bool {
        use StepState::{Done, Intent, UndoIntent, Unknown};
        self.role == Role::Step && matches!(self.state, Intent | Done | Unknown | UndoIntent)
    }
}

/// What was begun and has not ended well, in the hands of somebody else now.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub(super) known: Known,
    pub(super) kind: String,
    pub(super) fence: i64,
    pub(super) context: BTreeMap<String, String>,
    pub(super) entries: Vec<Entry>,
}

/// What is written down before anything is done.
pub(super) struct Opening<'a> {
    pub(super) id: Uuid,
    pub(super) kind: &'a str,
    pub(super) key: Option<&'a str>,
    pub(super) input: &'a RawValue,
    pub(super) context: &'a BTreeMap<String, String>,
    pub(super) lease: Duration,
}

/// Begins a saga. False when there is one of this id, or an open one with this key.
pub(super) fn open(conn: &mut PgConnection, saga: &Opening<'_>) -> QueryResult<bool> {
    statement(
        "INSERT INTO saga (id, kind, key, input, context, state, lease_until)
         VALUES ($1, $2, $3, $4::json, $5::json, 'running',
                 clock_timestamp() + $6 * interval '1 microsecond')
         ON CONFLICT DO NOTHING",
    )
    .bind::<SqlUuid, _>(saga.id)
    .bind::<Text, _>(saga.kind)
    .bind::<Nullable<Text>, _>(saga.key)
    .bind::<Text, _>(saga.input.get())
    .bind::<Text, _>(serde_json::to_string(saga.context).unwrap_or_else(|_| "{}".to_owned()))
    .bind::<BigInt, _>(micros(saga.lease))
    .execute(conn)
    .map(|rows| rows == 1)
}

#[derive(QueryableByName)]
struct Held {
    #[diesel(sql_type = Text)]
    state: String,
}

/// Keeps everybody else from the saga until the transaction ends: where it is. Nothing when somebody
/// else has taken over.
pub(super) fn hold(conn: &mut PgConnection, id: Uuid, fence: i64) -> QueryResult<Option<Stage>> {
    let held: Option<Held> =
        statement("SELECT state FROM saga WHERE id = $1 AND fence = $2 FOR UPDATE")
            .bind::<SqlUuid, _>(id)
            .bind::<BigInt, _>(fence)
            .get_result(conn)
            .optional()?;
    held.map(|held| read(&held.state)).transpose()
}

/// Keeps everybody else from the saga until the transaction ends, whoever has it.
pub(super) fn lock(conn: &mut PgConnection, id: Uuid) -> QueryResult<Option<Stage>> {
    let held: Option<Held> = sql_query("SELECT state FROM saga WHERE id = $1 FOR UPDATE")
        .bind::<SqlUuid, _>(id)
        .get_result(conn)
        .optional()?;
    held.map(|held| read(&held.state)).transpose()
}

/// The intent of a step, before anything is done.
pub(super) fn intend(conn: &mut PgConnection, saga: Uuid, entry: &Entry) -> QueryResult<()> {
    statement(
        "INSERT INTO saga_step (saga, number, name, role, state, input, output, ended_at)
         VALUES ($1, $2, $3, $4, $5, $6::json, $7::json,
                 CASE WHEN $5 = 'done' THEN clock_timestamp() END)
         ON CONFLICT DO NOTHING",
    )
    .bind::<SqlUuid, _>(saga)
    .bind::<Integer, _>(entry.number)
    .bind::<Text, _>(&entry.name)
    .bind::<Text, _>(entry.role.as_str())
    .bind::<Text, _>(entry.state.as_str())
    .bind::<Text, _>(entry.input.get())
    .bind::<Nullable<Text>, _>(entry.output.as_ref().map(|output| output.get()))
    .execute(conn)
    .map(drop)
}

/// How a step ended.
#[derive(Clone, Debug)]
pub(super) struct StepEnd {
    pub(super) number: i32,
    pub(super) state: StepState,
    pub(super) output: Option<Box<RawValue>>,
    pub(super) error: Option<String>,
}

pub(super) fn end_step(conn: &mut PgConnection, saga: Uuid, end: &StepEnd) -> QueryResult<()> {
    statement(
        "UPDATE saga_step
         SET state = $3, output = coalesce($4::json, output), error = coalesce($5, error),
             ended_at = CASE WHEN $3 IN ('done', 'refused', 'unknown')
                        THEN clock_timestamp() ELSE ended_at END,
             undone_at = CASE WHEN $3 = 'undone' THEN clock_timestamp() ELSE undone_at END
         WHERE saga = $1 AND number = $2",
    )
    .bind::<SqlUuid, _>(saga)
    .bind::<Integer, _>(end.number)
    .bind::<Text, _>(end.state.as_str())
    .bind::<Nullable<Text>, _>(end.output.as_ref().map(|output| output.get()))
    .bind::<Nullable<Text>, _>(end.error.clone().map(storable))
    .execute(conn)
    .map(drop)
}

/// From here on there is no way back.
pub(super) fn go_forward(conn: &mut PgConnection, id: Uuid) -> QueryResult<()> {
    sql_query("UPDATE saga SET forward = true WHERE id = $1")
        .bind::<SqlUuid, _>(id)
        .execute(conn)
        .map(drop)
}

/// Everything is to be taken back, for this reason.
pub(super) fn go_back(
    conn: &mut PgConnection,
    id: Uuid,
    reason: &str,
    dependency: Option<&str>,
) -> QueryResult<()> {
    sql_query(
        "UPDATE saga SET state = CASE state WHEN 'stuck' THEN state ELSE 'compensating' END,
                         forward = false,
                         reason = CASE state WHEN 'running' THEN $2 ELSE coalesce(reason, $2) END,
                         dependency = CASE state WHEN 'running' THEN $3 ELSE dependency END
         WHERE id = $1",
    )
    .bind::<SqlUuid, _>(id)
    .bind::<Text, _>(storable(reason.to_owned()))
    .bind::<Nullable<Text>, _>(dependency.map(str::to_owned).map(storable))
    .execute(conn)
    .map(drop)
}

/// Why it can't be completed at once.
pub(super) fn note(
    conn: &mut PgConnection,
    id: Uuid,
    reason: &str,
    dependency: Option<&str>,
) -> QueryResult<()> {
    sql_query("UPDATE saga SET reason = $2, dependency = $3 WHERE id = $1")
        .bind::<SqlUuid, _>(id)
        .bind::<Text, _>(storable(reason.to_owned()))
        .bind::<Nullable<Text>, _>(dependency.map(str::to_owned).map(storable))
        .execute(conn)
        .map(drop)
}

/// It had all its effects.
pub(super) fn commit(conn: &mut PgConnection, id: Uuid, output: &RawValue) -> QueryResult<()> {
    statement(
        "UPDATE saga SET state = 'committed', lease_until = NULL, output = $2::json, reason = NULL,
                         dependency = NULL, ended_at = clock_timestamp()
         WHERE id = $1",
    )
    .bind::<SqlUuid, _>(id)
    .bind::<Text, _>(output.get())
    .execute(conn)
    .map(drop)
}

/// All of it is taken back, if it is. Whether it was.
pub(super) fn compensated(conn: &mut PgConnection, id: Uuid) -> QueryResult<bool> {
    sql_query(
        "UPDATE saga SET state = 'compensated', lease_until = NULL, ended_at = clock_timestamp()
         WHERE id = $1 AND ended_at IS NULL AND NOT forward
         AND NOT EXISTS (SELECT FROM saga_step WHERE saga = $1 AND role = 'step'
                         AND state NOT IN ('refused', 'undone'))",
    )
    .bind::<SqlUuid, _>(id)
    .execute(conn)
    .map(|rows| rows == 1)
}

/// The ledger of deferred calls has it now.
pub(super) fn release(conn: &mut PgConnection, id: Uuid) -> QueryResult<()> {
    sql_query("UPDATE saga SET lease_until = NULL WHERE id = $1")
        .bind::<SqlUuid, _>(id)
        .execute(conn)
        .map(drop)
}

/// Nobody runs it any more: it can be taken over at once.
pub(super) fn let_go(conn: &mut PgConnection, id: Uuid, fence: i64) -> QueryResult<()> {
    sql_query(
        "UPDATE saga SET lease_until = clock_timestamp()
         WHERE id = $1 AND fence = $2 AND lease_until IS NOT NULL",
    )
    .bind::<SqlUuid, _>(id)
    .bind::<BigInt, _>(fence)
    .execute(conn)
    .map(drop)
}

/// Nobody runs it any more, whoever that was.
#[cfg(feature = "testkit")]
pub(super) fn expire(conn: &mut PgConnection, id: Uuid) -> QueryResult<()> {
    sql_query(
        "WITH calls AS (UPDATE deferred SET token = gen_random_uuid(), lease_until = clock_timestamp()
                        WHERE state = 'running' AND kind IN ('saga.undo', 'saga.resume')
                              AND payload ->> 'saga' = $1::text)
         UPDATE saga SET lease_until = clock_timestamp() WHERE id = $1 AND lease_until IS NOT NULL",
    )
    .bind::<SqlUuid, _>(id)
    .execute(conn)
    .map(drop)
}

/// It can neither be taken back nor completed.
pub(super) fn stick(conn: &mut PgConnection, id: Uuid, reason: &str) -> QueryResult<()> {
    sql_query("UPDATE saga SET state = 'stuck', reason = $2 WHERE id = $1 AND ended_at IS NULL")
        .bind::<SqlUuid, _>(id)
        .bind::<Text, _>(storable(reason.to_owned()))
        .execute(conn)
        .map(drop)
}

/// What is left of one that is stuck was discarded, which mends nothing.
pub(super) fn discarded(conn: &mut PgConnection, id: Uuid, mark: &str) -> QueryResult<()> {
    sql_query(
        "UPDATE saga SET reason = concat_ws(': ', $2, reason)
         WHERE id = $1 AND state = 'stuck' AND NOT starts_with(coalesce(reason, ''), $2)",
    )
    .bind::<SqlUuid, _>(id)
    .bind::<Text, _>(mark)
    .execute(conn)
    .map(drop)
}

/// What was stuck goes on where it was.
pub(super) fn unstick(conn: &mut PgConnection, id: Uuid) -> QueryResult<()> {
    sql_query(
        "UPDATE saga SET state = CASE WHEN forward THEN 'running' ELSE 'compensating' END
         WHERE id = $1 AND state = 'stuck'",
    )
    .bind::<SqlUuid, _>(id)
    .execute(conn)
    .map(drop)
}

/// Extends the lease. False when somebody else has taken over.
pub(super) fn heartbeat(
    conn: &mut PgConnection,
    id: Uuid,
    fence: i64,
    lease: Duration,
) -> QueryResult<bool> {
    sql_query(
        "UPDATE saga SET lease_until = clock_timestamp() + $3 * interval '1 microsecond'
         WHERE id = $1 AND fence = $2 AND lease_until IS NOT NULL",
    )
    .bind::<SqlUuid, _>(id)
    .bind::<BigInt, _>(fence)
    .bind::<BigInt, _>(micros(lease))
    .execute(conn)
    .map(|rows| rows == 1)
}

/// A saga that nobody runs any more.
pub(super) struct Orphan {
    pub(super) id: Uuid,
    pub(super) context: BTreeMap<String, String>,
}

#[derive(QueryableByName)]
struct OrphanRow {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Text)]
    context: String,
}

/// Takes sagas whose lease is over from whoever had them: what they write is refused from now on.
pub(super) fn take_over(conn: &mut PgConnection, limit: i64) -> QueryResult<Vec<Orphan>> {
    let taken: Vec<OrphanRow> = sql_query(
        "UPDATE saga SET fence = fence + 1, lease_until = NULL
         WHERE id IN (SELECT id FROM saga WHERE lease_until < (SELECT clock_timestamp())
                      ORDER BY lease_until LIMIT $1 FOR UPDATE SKIP LOCKED)
         RETURNING id, context::text AS context",
    )
    .bind::<BigInt, _>(limit)
    .get_results(conn)?;
    // One that can't be read keeps no other from being taken over.
    let read = |row: OrphanRow| Orphan {
        id: row.id,
        context: serde_json::from_str(&row.context).unwrap_or_default(),
    };
    Ok(taken.into_iter().map(read).collect())
}

/// Deletes what ended so long ago. Returns how many.
pub(super) fn delete_ended(
    conn: &mut PgConnection,
    retention: Duration,
    limit: i64,
) -> QueryResult<usize> {
    sql_query(
        "DELETE FROM saga WHERE id IN (
             SELECT id FROM saga
             WHERE ended_at < (SELECT clock_timestamp() - $1 * interval '1 microsecond')
             ORDER BY ended_at LIMIT $2 FOR UPDATE SKIP LOCKED)",
    )
    .bind::<BigInt, _>(micros(retention))
    .bind::<BigInt, _>(limit)
    .execute(conn)
}

pub(super) fn read(state: &str) -> QueryResult<Stage> {
    state.parse().map_err(unreadable)
}

pub(super) fn raw(text: &str) -> QueryResult<Box<RawValue>> {
    RawValue::from_string(text.to_owned()).map_err(unreadable)
}

pub(super) fn unreadable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> QueryError {
    QueryError::DeserializationError(Box::new(DatabaseError::new(error)))
}
