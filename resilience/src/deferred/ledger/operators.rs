//! The statements of operators, and of whoever waits or counts.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::result::Error as QueryError;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::micros;
use crate::deferred::database::DatabaseError;
use crate::deferred::operators::{Entry, Filter, Stage};

#[derive(QueryableByName)]
struct Stored {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Text)]
    kind: String,
    #[diesel(sql_type = Text)]
    state: String,
    #[diesel(sql_type = Integer)]
    attempts: i32,
    #[diesel(sql_type = Integer)]
    strikes: i32,
    #[diesel(sql_type = Timestamptz)]
    not_before: DateTime<Utc>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    lease_until: Option<DateTime<Utc>>,
    #[diesel(sql_type = Timestamptz)]
    created_at: DateTime<Utc>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    sent_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    started_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    ended_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    discarded_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Text>)]
    first_error: Option<String>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    first_error_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Text>)]
    last_error: Option<String>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    last_error_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Text)]
    payload: String,
    #[diesel(sql_type = Text)]
    context: String,
}

/// Of [`Stored`].
const COLUMNS: &str = "SELECT id, kind, state, attempts, strikes, not_before, lease_until,
    created_at, sent_at, started_at, ended_at, discarded_at, first_error, first_error_at, last_error, last_error_at,
    payload::text AS payload, context::text AS context FROM deferred";

impl Stored {
    fn entry(self) -> QueryResult<Entry> {
        let raw = |text| RawValue::from_string(text).map_err(unreadable);
        Ok(Entry {
            id: self.id,
            kind: self.kind,
            stage: stage_of(&self.state)?,
            attempts: u32::try_from(self.attempts).unwrap_or_default(),
            strikes: u32::try_from(self.strikes).unwrap_or_default(),
            not_before: self.not_before,
            lease_until: self.lease_until,
            created_at: self.created_at,
            sent_at: self.sent_at,
            started_at: self.started_at,
            ended_at: self.ended_at,
            discarded_at: self.discarded_at,
            first_error: self.first_error,
            first_error_at: self.first_error_at,
            last_error: self.last_error,
            last_error_at: self.last_error_at,
            payload: raw(self.payload)?,
            context: raw(self.context)?,
        })
    }
}

fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> QueryError {
    QueryError::DeserializationError(Box::new(error))
}

fn stage_of(state: &str) -> QueryResult<Stage> {
    state.parse().map_err(unreadable)
}

/// What nobody needs to look after any more isn't counted, nor listed unless it is asked for.
const NOT_DISCARDED: &str = "discarded_at IS NULL";

/// What is not done.
const OPEN: &[Stage] = &[Stage::Pending, Stage::Sent, Stage::Running, Stage::Parked];

/// Those that fit, the newest first.
pub(in crate::deferred) fn list(
    conn: &mut PgConnection,
    filter: &Filter,
) -> QueryResult<Vec<Entry>> {
    // One question per state, named in its text: each is asked of a partial index, and what is done
    // isn't walked through.
    let (stages, which) = match &filter.stage {
        Some(stage) if filter.without_discarded => (std::slice::from_ref(stage), NOT_DISCARDED),
        Some(stage) => (std::slice::from_ref(stage), "true"),
        None => (OPEN, NOT_DISCARDED),
    };
    let questions: Vec<_> = stages
        .iter()
        .map(|stage| {
            let state = stage.as_str();
            format!(
                "({COLUMNS} WHERE mode = 'call' AND state = '{state}' AND {which}
                    AND ($1 IS NULL OR kind = $1) ORDER BY created_at DESC, id LIMIT $2)"
            )
        })
        .collect();
    let questions = questions.join(" UNION ALL ");
    let list = format!("SELECT * FROM ({questions}) AS list ORDER BY created_at DESC, id LIMIT $2");
    let rows: Vec<Stored> = sql_query(list)
        .bind::<Nullable<Text>, _>(filter.kind.as_deref())
        .bind::<BigInt, _>(i64::from(filter.limit.unwrap_or(100).min(1000)))
        .load(conn)?;
    rows.into_iter().map(Stored::entry).collect()
}

/// The one with this id.
pub(in crate::deferred) fn get(conn: &mut PgConnection, id: Uuid) -> QueryResult<Option<Entry>> {
    one(conn, id, "")
}

/// The one with this id, which nobody else can change until the transaction ends.
pub(in crate::deferred) fn lock(conn: &mut PgConnection, id: Uuid) -> QueryResult<Option<Entry>> {
    one(conn, id, "FOR UPDATE")
}

fn one(conn: &mut PgConnection, id: Uuid, lock: &str) -> QueryResult<Option<Entry>> {
    let row = sql_query(format!("{COLUMNS} WHERE id = $1 AND mode = 'call' {lock}"))
        .bind::<SqlUuid, _>(id)
        .get_result::<Stored>(conn);
    row.optional()?.map(Stored::entry).transpose()
}

#[derive(QueryableByName)]
struct State {
    #[diesel(sql_type = Text)]
    state: String,
}

/// Where the one with this id is.
pub(in crate::deferred) fn stage(conn: &mut PgConnection, id: Uuid) -> QueryResult<Option<Stage>> {
    let row = sql_query("SELECT state FROM deferred WHERE id = $1")
        .bind::<SqlUuid, _>(id)
        .get_result::<State>(conn);
    row.optional()?.map(|row| stage_of(&row.state)).transpose()
}

/// A parked one begins anew. Only for one that is [locked](lock).
pub(in crate::deferred) fn resume(conn: &mut PgConnection, id: Uuid) -> QueryResult<()> {
    sql_query(
        "UPDATE deferred
         SET state = 'pending', strikes = 0, alone = false, not_before = clock_timestamp(), ended_at = NULL,
             discarded_at = NULL, sent_at = NULL
         WHERE id = $1 AND state = 'parked'",
    )
    .bind::<SqlUuid, _>(id)
    .execute(conn)
    .map(drop)
}

/// Whether all of these are there, and none of them is given up.
#[cfg(feature = "saga")]
pub(crate) fn are_open(conn: &mut PgConnection, ids: &[Uuid]) -> QueryResult<bool> {
    #[derive(QueryableByName)]
    struct Open {
        #[diesel(sql_type = BigInt)]
        count: i64,
    }

    let open: Open = sql_query(
        "SELECT count(*) AS count FROM deferred WHERE id = ANY($1) AND state || '' <> 'parked'",
    )
    .bind::<diesel::sql_types::Array<SqlUuid>, _>(ids)
    .get_result(conn)?;
    Ok(usize::try_from(open.count) == Ok(ids.len()))
}

/// A pending one is due now. Only for one that is [locked](lock).
pub(in crate::deferred) fn hasten(conn: &mut PgConnection, id: Uuid) -> QueryResult<()> {
    sql_query(
        "UPDATE deferred SET not_before = least(not_before, clock_timestamp())
         WHERE id = $1 AND state = 'pending'",
    )
    .bind::<SqlUuid, _>(id)
    .execute(conn)
    .map(drop)
}

/// Marks one that is parked, or that is not begun and is parked for this reason. Only for one that
/// is [locked](lock).
pub(in crate::deferred) fn discard(
    conn: &mut PgConnection,
    id: Uuid,
    reason: Option<&str>,
) -> QueryResult<()> {
    sql_query(
        "UPDATE deferred
         SET discarded_at = coalesce(discarded_at, clock_timestamp()), state = 'parked',
             token = NULL, lease_until = NULL, ended_at = coalesce(ended_at, clock_timestamp()),
             first_error = coalesce(first_error, $2),
             first_error_at = coalesce(first_error_at,
                                       CASE WHEN $2 IS NOT NULL THEN clock_timestamp() END),
             last_error = coalesce($2, last_error),
             last_error_at = CASE WHEN $2 IS NOT NULL THEN clock_timestamp() ELSE last_error_at END
         WHERE id = $1 AND state IN ('pending', 'sent', 'parked')",
    )
    .bind::<SqlUuid, _>(id)
    .bind::<Nullable<Text>, _>(reason)
    .execute(conn)
    .map(drop)
}

/// Deletes what was done, or discarded, so long ago. Whether there may be more of it than the limit,
/// which is for each of the two.
pub(in crate::deferred) fn delete_ended(
    conn: &mut PgConnection,
    older_than: Duration,
    limit: i64,
) -> QueryResult<bool> {
    let mut more = false;
    for (state, ended_at) in [("done", "ended_at"), ("parked", "discarded_at")] {
        let deleted = sql_query(format!(
            "DELETE FROM deferred
             WHERE id IN (SELECT id FROM deferred
                          WHERE state = '{state}' AND {ended_at} <=
                                (SELECT clock_timestamp() - $1 * interval '1 microsecond')
                          ORDER BY {ended_at} LIMIT $2 FOR UPDATE SKIP LOCKED)"
        ))
        .bind::<BigInt, _>(micros(older_than))
        .bind::<BigInt, _>(limit)
        .execute(conn)?;
        more |= i64::try_from(deleted).unwrap_or(i64::MAX) >= limit;
    }
    Ok(more)
}

/// How many calls of a kind are somewhere.
#[derive(Debug, QueryableByName)]
pub(in crate::deferred) struct Depth {
    #[diesel(sql_type = Text)]
    pub(in crate::deferred) kind: String,
    #[diesel(sql_type = Text)]
    state: String,
    #[diesel(sql_type = BigInt)]
    pub(in crate::deferred) count: i64,
    #[diesel(sql_type = BigInt)]
    oldest: i64,
    #[diesel(sql_type = BigInt)]
    due: i64,
}

impl Depth {
    pub(in crate::deferred) fn stage(&self) -> Result<Stage, DatabaseError> {
        stage_of(&self.state).map_err(DatabaseError::new)
    }

    /// Since when the oldest is written down, where it has not ended.
    pub(in crate::deferred) fn oldest(&self) -> Option<Duration> {
        let open = self.state != Stage::Parked.as_str();
        open.then(|| Duration::from_micros(u64::try_from(self.oldest).unwrap_or_default()))
    }

    /// Since when the one is due that has been for the longest, where none of them is begun.
    pub(in crate::deferred) fn late(&self) -> Option<Duration> {
        let waits = [Stage::Pending.as_str(), Stage::Sent.as_str()].contains(&&*self.state);
        let late = u64::try_from(self.due).ok().filter(|late| waits && *late > 0);
        late.map(Duration::from_micros)
    }
}

/// How many there are of what, without those that are done or discarded.
pub(in crate::deferred) fn depths(conn: &mut PgConnection) -> QueryResult<Vec<Depth>> {
    // One question per partial index: together they would be a walk through all that is done.
    let questions: Vec<_> = OPEN
        .iter()
        .map(|stage| {
            let state = stage.as_str();
            format!(
                "SELECT kind, '{state}' AS state, count(*) AS count,
                        (extract(epoch FROM clock_timestamp() - min(created_at)) * 1000000)::bigint
                            AS oldest,
                        (extract(epoch FROM clock_timestamp() - min(not_before)) * 1000000)::bigint
                            AS due
                 FROM deferred WHERE state = '{state}' AND mode = 'call' AND {NOT_DISCARDED}
                 GROUP BY kind"
            )
        })
        .collect();
    sql_query(questions.join(" UNION ALL ")).load(conn)
}
