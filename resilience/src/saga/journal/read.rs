//! What is read out of the journal.

use std::collections::BTreeMap;

use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Bool, Integer, Nullable, Text, Uuid as SqlUuid};
use uuid::Uuid;

use super::{Entry, Role, StepState, Taken, raw, read, unreadable};
use crate::saga::call::Known;

#[derive(QueryableByName)]
struct StoredSaga {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Text)]
    kind: String,
    #[diesel(sql_type = Text)]
    state: String,
    #[diesel(sql_type = Bool)]
    forward: bool,
    #[diesel(sql_type = BigInt)]
    fence: i64,
    /// Somebody runs it, or has died, and will be followed by somebody who finds that out.
    #[diesel(sql_type = Bool)]
    leased: bool,
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
}

const SAGA: &str =
    "id, kind, state, forward, fence, lease_until IS NOT NULL AS leased, input::text AS input,
    context::text AS context, output::text AS output, reason, dependency";

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
}

/// What is known of the saga of this id.
pub(in crate::saga) fn find(
    conn: &mut PgConnection,
    kind: &str,
    id: Uuid,
) -> QueryResult<Option<Known>> {
    let found: Option<StoredSaga> =
        sql_query(format!("SELECT {SAGA} FROM saga WHERE id = $1 AND kind = $2"))
            .bind::<SqlUuid, _>(id)
            .bind::<Text, _>(kind)
            .get_result(conn)
            .optional()?;
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
        context: serde_json::from_str(&taken.context).map_err(unreadable)?,
        kind: taken.kind,
        fence: taken.fence,
        entries,
    }))
}

/// A step, its saga's kind, and what travels with it.
pub(in crate::saga) type ToUndo = (String, BTreeMap<String, String>, Entry);

/// A saga and one of its steps, as whoever undoes it needs to know them.
pub(in crate::saga) fn step(
    conn: &mut PgConnection,
    id: Uuid,
    number: i32,
) -> QueryResult<Option<ToUndo>> {
    let saga: Option<StoredSaga> = sql_query(format!("SELECT {SAGA} FROM saga WHERE id = $1"))
        .bind::<SqlUuid, _>(id)
        .get_result(conn)
        .optional()?;
    let Some(saga) = saga else { return Ok(None) };
    let context = serde_json::from_str(&saga.context).map_err(unreadable)?;
    let entry = entries(conn, id)?.into_iter().find(|entry| entry.number == number);
    Ok(entry.map(|entry| (saga.kind, context, entry)))
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
    let saga: Option<StoredSaga> =
        sql_query(format!("SELECT {SAGA} FROM saga WHERE id = $1 AND ended_at IS NULL"))
            .bind::<SqlUuid, _>(id)
            .get_result(conn)
            .optional()?;
    let Some(saga) = saga else { return Ok(None) };
    let entries = entries(conn, id)?;
    let deferred = entries.iter().filter(|entry| entry.state == StepState::UndoDeferred);
    let undos: Vec<_> = deferred.map(|entry| entry.number).collect();
    let more = saga.forward || undos.is_empty() || entries.iter().any(Entry::to_undo);
    Ok(Some(Left {
        context: serde_json::from_str(&saga.context).map_err(unreadable)?,
        rest: more && !saga.leased,
        undos,
    }))
}

fn entries(conn: &mut PgConnection, id: Uuid) -> QueryResult<Vec<Entry>> {
    let steps: Vec<StoredStep> = sql_query(
        "SELECT number, name, role, state, input::text AS input, output::text AS output
         FROM saga_step WHERE saga = $1 ORDER BY number",
    )
    .bind::<SqlUuid, _>(id)
    .get_results(conn)?;
    let entry = |step: StoredStep| {
        let role = Role::ALL.into_iter().find(|role| role.as_str() == step.role);
        let state = StepState::ALL.into_iter().find(|state| state.as_str() == step.state);
        Ok(Entry {
            number: step.number,
            name: step.name,
            role: role.ok_or_else(|| unreadable(format!("role {}", step.role)))?,
            state: state.ok_or_else(|| unreadable(format!("state {}", step.state)))?,
            input: raw(&step.input)?,
            output: step.output.as_deref().map(raw).transpose()?,
        })
    };
    steps.into_iter().map(entry).collect()
}
