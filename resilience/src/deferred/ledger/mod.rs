//! Every statement on the ledger.
//!
//! Who may act on a row is told by its token. Each step that somebody takes on a row names the token
//! that it was given; no row means that somebody else has taken over, and to stop. Times are the
//! database's: as a question of its own, or no index would be asked about a moment that passes.
//!
//! What names its rows by their ids asks for `state || ''`, so that no partial index comes into
//! question: of the many rows that were in a state since the last vacuum it still holds entries.
//!
//! Statements on several rows lock them in the order of their ids, or skip those that are locked, so
//! that no two wait for each other.

mod broker;
mod operators;

use std::collections::HashSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::query_builder::SqlQuery;
use diesel::sql_query;
use diesel::sql_types::{
    Array, BigInt, Bool, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use uuid::Uuid;

pub(super) use broker::recall;
#[cfg(feature = "rabbitmq")]
pub(super) use broker::{ToSend, claim_sent, claim_to_send, locked, not_sent, sent, take_back};
#[cfg(feature = "saga")]
pub(crate) use operators::are_open;
pub(super) use operators::{delete_ended, depths, discard, get, hasten, list, lock, resume, stage};

use super::call::Deferral;
use super::statement::statement;

/// A row that its reader is to carry out.
#[derive(Clone, Debug, QueryableByName)]
pub(super) struct Row {
    #[diesel(sql_type = SqlUuid)]
    pub(super) id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    pub(super) token: Uuid,
    #[diesel(sql_type = Text)]
    pub(super) payload: String,
    #[diesel(sql_type = Text)]
    pub(super) context: String,
    #[diesel(sql_type = Integer)]
    pub(super) attempts: i32,
    #[diesel(sql_type = Integer)]
    pub(super) strikes: i32,
    #[diesel(sql_type = Timestamptz)]
    pub(super) not_before: DateTime<Utc>,
    #[diesel(sql_type = Timestamptz)]
    pub(super) started_at: DateTime<Utc>,
    #[diesel(sql_type = Nullable<Text>)]
    pub(super) last_error: Option<String>,
    #[diesel(sql_type = Bool)]
    pub(super) alone: bool,
}

impl Row {
    /// How long after it was due it was begun.
    pub(super) fn lateness(&self) -> Duration {
        (self.started_at - self.not_before).to_std().unwrap_or_default()
    }

    /// What [`begin`] wrote for a first attempt.
    pub(super) fn held(call: &Deferral, token: Uuid) -> Self {
        let now = Utc::now();
        Self {
            id: call.id,
            token,
            payload: call.payload.get().to_owned(),
            context: context(call),
            attempts: 1,
            strikes: 0,
            not_before: now,
            started_at: now,
            last_error: None,
            alone: false,
        }
    }
}

#[derive(QueryableByName)]
struct Wait {
    #[diesel(sql_type = Nullable<BigInt>)]
    micros: Option<i64>,
}

/// Longer than this is for ever: PostgreSQL and our clocks have no moments after it.
pub(super) const LONGEST: Duration = Duration::from_hours(1000 * 365 * 24);

pub(crate) fn micros(time: Duration) -> i64 {
    i64::try_from(time.min(LONGEST).as_micros()).unwrap_or(i64::MAX)
}

fn context(call: &Deferral) -> String {
    serde_json::to_string(&call.context).unwrap_or_else(|_| "{}".to_owned())
}

/// Writes calls down, without those of whose id there is one. Returns how many.
pub(super) fn insert(conn: &mut PgConnection, calls: &[Deferral]) -> QueryResult<usize> {
    let column = |of: fn(&Deferral) -> &str| calls.iter().map(of).collect::<Vec<_>>();
    statement(
        "INSERT INTO deferred (id, kind, payload, context, state, not_before)
         SELECT id, kind, payload::json, context::json, 'pending',
                clock_timestamp() + delay * interval '1 microsecond'
         FROM unnest($1, $2, $3, $4, $5) AS call (id, kind, payload, context, delay)
         ON CONFLICT (id) DO NOTHING",
    )
    .bind::<Array<SqlUuid>, _>(calls.iter().map(|call| call.id).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(column(|call| call.kind))
    .bind::<Array<Text>, _>(column(|call| call.payload.get()))
    .bind::<Array<Text>, _>(calls.iter().map(context).collect::<Vec<_>>())
    .bind::<Array<BigInt>, _>(calls.iter().map(|call| micros(call.delay)).collect::<Vec<_>>())
    .execute(conn)
}

/// Writes a call down that the caller carries out itself, as long as the lease lasts. One of this id
/// and kind that is held already changes hands; one that was discarded begins anew. False when it is in the runtime's hands, or over, or
/// of [another kind](kind_of).
pub(super) fn hold(
    conn: &mut PgConnection,
    call: &Deferral,
    token: Uuid,
    lease: Duration,
) -> QueryResult<bool> {
    insert_held(
        "INSERT INTO deferred (id, kind, payload, context, state, not_before, token, lease_until,
                               held)
         VALUES ($1, $2, $3::json, $4::json, 'running', clock_timestamp(), $5,
                 clock_timestamp() + $6 * interval '1 microsecond', true)
         ON CONFLICT (id) DO UPDATE
         SET token = excluded.token, lease_until = excluded.lease_until, state = 'running', held = true,
             strikes = CASE WHEN deferred.held THEN deferred.strikes ELSE 0 END,
             alone = deferred.alone AND deferred.held, ended_at = NULL, discarded_at = NULL
         WHERE deferred.kind = excluded.kind
           AND (deferred.state = 'running' AND deferred.held
                OR deferred.state = 'parked' AND deferred.discarded_at IS NOT NULL)",
        (conn, call, token, lease),
    )
}

/// The kind of the one with this id.
pub(super) fn kind_of(conn: &mut PgConnection, id: Uuid) -> QueryResult<Option<String>> {
    #[derive(QueryableByName)]
    struct Named {
        #[diesel(sql_type = Text)]
        kind: String,
    }

    let row = sql_query("SELECT kind FROM deferred WHERE id = $1")
        .bind::<SqlUuid, _>(id)
        .get_result::<Named>(conn);
    Ok(row.optional()?.map(|row| row.kind))
}

/// Writes a call down whose first attempt its caller begins now, held as long as the lease lasts.
/// False when there is one of this id, whoever has it.
pub(super) fn begin(
    conn: &mut PgConnection,
    call: &Deferral,
    token: Uuid,
    lease: Duration,
) -> QueryResult<bool> {
    insert_held(
        "INSERT INTO deferred (id, kind, payload, context, state, not_before, token, lease_until,
                               held, attempts, started_at)
         VALUES ($1, $2, $3::json, $4::json, 'running', clock_timestamp(), $5,
                 clock_timestamp() + $6 * interval '1 microsecond', true, 1, clock_timestamp())
         ON CONFLICT (id) DO NOTHING",
        (conn, call, token, lease),
    )
}

fn insert_held(
    text: &'static str,
    (conn, call, token, lease): (&mut PgConnection, &Deferral, Uuid, Duration),
) -> QueryResult<bool> {
    statement(text)
        .bind::<SqlUuid, _>(call.id)
        .bind::<Text, _>(call.kind)
        .bind::<Text, _>(call.payload.get())
        .bind::<Text, _>(context(call))
        .bind::<SqlUuid, _>(token)
        .bind::<BigInt, _>(micros(lease))
        .execute(conn)
        .map(|rows| rows == 1)
}

/// Fails where a statement has failed since that nobody heard of: PostgreSQL would answer COMMIT with a
/// rollback then, and Diesel take that for a commit. Asked after what isn't ours.
pub(super) fn unbroken(conn: &mut PgConnection) -> QueryResult<()> {
    sql_query("SELECT 1").execute(conn).map(drop)
}

/// Forgets a call that is held under this token. False when it isn't any more.
pub(super) fn forget(conn: &mut PgConnection, id: Uuid, token: Uuid) -> QueryResult<bool> {
    statement("DELETE FROM deferred WHERE id = $1 AND token = $2 AND state = 'running' AND held")
        .bind::<SqlUuid, _>(id)
        .bind::<SqlUuid, _>(token)
        .execute(conn)
        .map(|rows| rows == 1)
}

/// Takes rows of these kinds that are due, to carry them out: the longest due first.
pub(super) fn claim_due(
    conn: &mut PgConnection,
    kind: &str,
    limit: i64,
    token: Uuid,
    lease: Duration,
) -> QueryResult<Vec<Row>> {
    sql_query(
        "UPDATE deferred
         SET state = 'running', held = false, token = $3, attempts = attempts + 1,
             strikes = strikes + 1, started_at = clock_timestamp(),
             lease_until = clock_timestamp() + $4 * interval '1 microsecond'
         WHERE id IN (SELECT id FROM deferred
                      WHERE state = 'pending' AND mode = 'call' AND kind = $1
                        AND not_before <= (SELECT clock_timestamp())
                        AND (lease_until IS NULL OR lease_until <= (SELECT clock_timestamp()))
                      ORDER BY not_before LIMIT $2 FOR UPDATE SKIP LOCKED)
         RETURNING id, token, payload::text AS payload, context::text AS context, attempts,
                   strikes, not_before, started_at, last_error, alone",
    )
    .bind::<Text, _>(kind)
    .bind::<BigInt, _>(limit)
    .bind::<SqlUuid, _>(token)
    .bind::<BigInt, _>(micros(lease))
    .load(conn)
}

/// Still at it. False when somebody else has taken over.
pub(super) fn heartbeat(
    conn: &mut PgConnection,
    id: Uuid,
    token: Uuid,
    lease: Duration,
) -> QueryResult<bool> {
    sql_query(
        "UPDATE deferred SET lease_until = clock_timestamp() + $3 * interval '1 microsecond'
         WHERE id = $1 AND token = $2 AND state = 'running'",
    )
    .bind::<SqlUuid, _>(id)
    .bind::<SqlUuid, _>(token)
    .bind::<BigInt, _>(micros(lease))
    .execute(conn)
    .map(|rows| rows == 1)
}

/// Nothing else is carried out in its process from now on. False when somebody else has taken over.
pub(super) fn begin_alone(conn: &mut PgConnection, id: Uuid, token: Uuid) -> QueryResult<bool> {
    sql_query("UPDATE deferred SET alone = true WHERE id = $1 AND token = $2 AND state = 'running'")
        .bind::<SqlUuid, _>(id)
        .bind::<SqlUuid, _>(token)
        .execute(conn)
        .map(|rows| rows == 1)
}

/// This is carried out. False when somebody else has taken over: nothing may be written for it.
pub(super) fn finish(conn: &mut PgConnection, id: Uuid, token: Uuid) -> QueryResult<bool> {
    Ok(finish_locked(conn, &[(id, token)], "")?.contains(&id))
}

/// These are carried out, by id and token. Which of them were ours still, and which nobody can say it
/// of now, as somebody has locked them. Nothing may be written for the others.
pub(super) fn finish_all(
    conn: &mut PgConnection,
    calls: &[(Uuid, Uuid)],
) -> QueryResult<(HashSet<Uuid>, HashSet<Uuid>)> {
    let finished = finish_locked(conn, calls, "SKIP LOCKED")?;
    let locked = if finished.len() < calls.len() {
        ids(sql_query(format!("SELECT deferred.id {MINE}")), calls, conn)?
    } else {
        HashSet::new()
    };
    Ok((finished, locked))
}

/// Of the rows that run under a token.
const MINE: &str = "FROM deferred
    JOIN unnest($1, $2) AS mine (id, token)
        ON deferred.id = mine.id AND deferred.token = mine.token
    WHERE state || '' = 'running'";

fn finish_locked(
    conn: &mut PgConnection,
    calls: &[(Uuid, Uuid)],
    locked: &str,
) -> QueryResult<HashSet<Uuid>> {
    let finish = sql_query(format!(
        "UPDATE deferred SET state = 'done', held = false, token = NULL, lease_until = NULL,
                             ended_at = clock_timestamp()
         WHERE id IN (SELECT deferred.id {MINE}
                      ORDER BY deferred.id FOR UPDATE OF deferred {locked})
         RETURNING id"
    ));
    ids(finish, calls, conn)
}

fn ids(
    query: SqlQuery,
    calls: &[(Uuid, Uuid)],
    conn: &mut PgConnection,
) -> QueryResult<HashSet<Uuid>> {
    #[derive(QueryableByName)]
    struct Named {
        #[diesel(sql_type = SqlUuid)]
        id: Uuid,
    }

    let (ids, tokens): (Vec<Uuid>, Vec<Uuid>) = calls.iter().copied().unzip();
    let query = query.bind::<Array<SqlUuid>, _>(ids).bind::<Array<SqlUuid>, _>(tokens);
    Ok(query.load::<Named>(conn)?.into_iter().map(|row| row.id).collect())
}

/// It is to be repeated, after this. What counts for nothing gives its strike back.
pub(super) fn postpone(
    conn: &mut PgConnection,
    id: Uuid,
    token: Uuid,
    error: Option<&str>,
    delay: Duration,
    counts: bool,
) -> QueryResult<bool> {
    sql_query(
        "UPDATE deferred
         SET state = 'pending', held = false, token = NULL, lease_until = NULL,
             strikes = CASE WHEN $5 THEN strikes WHEN alone THEN 0 ELSE greatest(strikes - 1, 0) END,
             alone = false,
             not_before = clock_timestamp() + $4 * interval '1 microsecond',
             first_error = coalesce(first_error, $3),
             first_error_at = coalesce(first_error_at, CASE WHEN $3 IS NOT NULL THEN clock_timestamp() END),
             last_error = coalesce($3, last_error),
             last_error_at = CASE WHEN $3 IS NOT NULL THEN clock_timestamp() ELSE last_error_at END
         WHERE id = $1 AND token = $2 AND state = 'running'",
    )
    .bind::<SqlUuid, _>(id)
    .bind::<SqlUuid, _>(token)
    .bind::<Nullable<Text>, _>(error)
    .bind::<BigInt, _>(micros(delay))
    .bind::<Bool, _>(counts)
    .execute(conn)
    .map(|rows| rows == 1)
}

/// It is given up.
pub(super) fn park(
    conn: &mut PgConnection,
    id: Uuid,
    token: Uuid,
    reason: &str,
) -> QueryResult<bool> {
    sql_query(
        "UPDATE deferred
         SET state = 'parked', held = false, token = NULL, lease_until = NULL,
             ended_at = clock_timestamp(), first_error = coalesce(first_error, $3),
             first_error_at = coalesce(first_error_at, clock_timestamp()),
             last_error = $3, last_error_at = clock_timestamp()
         WHERE id = $1 AND token = $2 AND state = 'running'",
    )
    .bind::<SqlUuid, _>(id)
    .bind::<SqlUuid, _>(token)
    .bind::<Text, _>(reason)
    .execute(conn)
    .map(|rows| rows == 1)
}

/// The error of a row whose lease ran out: whoever had it has died, or was cut off.
pub(super) const INTERRUPTED: &str = "interrupted";

/// Gives back what nobody is at any more: rows whose lease ran out. Returns how many.
pub(super) fn reclaim(conn: &mut PgConnection, limit: i64) -> QueryResult<usize> {
    sql_query(
        "UPDATE deferred
         SET state = 'pending', held = false, token = NULL, lease_until = NULL,
             not_before = clock_timestamp(),
             first_error = coalesce(first_error, $2),
             first_error_at = coalesce(first_error_at, clock_timestamp()),
             last_error = $2, last_error_at = clock_timestamp()
         WHERE id IN (SELECT id FROM deferred
                      WHERE state = 'running' AND lease_until <= (SELECT clock_timestamp())
                      ORDER BY lease_until LIMIT $1 FOR UPDATE SKIP LOCKED)",
    )
    .bind::<BigInt, _>(limit)
    .bind::<Text, _>(INTERRUPTED)
    .execute(conn)
}

/// How long until the next row of these kinds is due; nothing when there is none.
pub(super) fn next_due(conn: &mut PgConnection, kinds: &[&str]) -> QueryResult<Option<Duration>> {
    let wait: Wait = sql_query(
        "SELECT ceil(extract(epoch FROM
                    min(greatest(not_before, coalesce(lease_until, not_before))) - clock_timestamp())
                    * 1000000)::bigint AS micros
         FROM (SELECT unnest($1) AS kind) AS kinds
         CROSS JOIN LATERAL (SELECT not_before, lease_until FROM deferred
                             WHERE deferred.kind = kinds.kind AND state = 'pending' AND mode = 'call'
                             ORDER BY not_before LIMIT 1) AS first",
    )
    .bind::<Array<Text>, _>(kinds)
    .get_result(conn)?;
    Ok(wait.micros.map(|micros| Duration::from_micros(u64::try_from(micros).unwrap_or_default())))
}
