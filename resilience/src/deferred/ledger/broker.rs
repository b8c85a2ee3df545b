//! The statements about what a broker is given, has, or has lost.

#[cfg(feature = "rabbitmq")]
use std::collections::HashSet;
use std::time::Duration;

use diesel::prelude::*;
use diesel::sql_query;
#[cfg(feature = "rabbitmq")]
use diesel::sql_types::{Array, Uuid as SqlUuid};
use diesel::sql_types::{BigInt, Text};
#[cfg(feature = "rabbitmq")]
use uuid::Uuid;

#[cfg(feature = "rabbitmq")]
use super::Row;
use super::micros;

/// A row that its reader is to publish.
#[cfg(feature = "rabbitmq")]
#[derive(Clone, Debug, QueryableByName)]
pub(in crate::deferred) struct ToSend {
    #[diesel(sql_type = SqlUuid)]
    pub(in crate::deferred) id: Uuid,
    #[diesel(sql_type = Text)]
    pub(in crate::deferred) kind: String,
}

/// Of the kinds `$1` at most `$2` rows each, in the order of the index on what is due. As an array:
/// joined, the whole table might be read for them.
#[cfg(feature = "rabbitmq")]
const CLAIM_TO_SEND: &str = "UPDATE deferred
    SET token = $3, lease_until = clock_timestamp() + $4 * interval '1 microsecond'
    WHERE id = ANY (ARRAY(
        SELECT due.id FROM unnest($1) AS wanted (kind) CROSS JOIN LATERAL
            (SELECT id FROM deferred
             WHERE state = 'pending' AND mode = 'call' AND deferred.kind = wanted.kind
               AND not_before <= (SELECT clock_timestamp())
               AND (lease_until IS NULL OR lease_until <= (SELECT clock_timestamp()))
             ORDER BY not_before LIMIT $2 FOR UPDATE SKIP LOCKED) AS due))
    RETURNING id, kind";

/// Takes rows that are due, to publish them: of each kind so many at the most, so that no kind waits
/// behind another. They stay pending until they are [`sent`].
#[cfg(feature = "rabbitmq")]
pub(in crate::deferred) fn claim_to_send(
    conn: &mut PgConnection,
    kinds: &[&str],
    share: usize,
    token: Uuid,
    lease: Duration,
) -> QueryResult<Vec<ToSend>> {
    sql_query(CLAIM_TO_SEND)
        .bind::<Array<Text>, _>(kinds)
        .bind::<BigInt, _>(i64::try_from(share.max(1)).unwrap_or(i64::MAX))
        .bind::<SqlUuid, _>(token)
        .bind::<BigInt, _>(micros(lease))
        .load(conn)
}

/// The broker has these.
#[cfg(feature = "rabbitmq")]
pub(in crate::deferred) fn sent(
    conn: &mut PgConnection,
    ids: &[Uuid],
    token: Uuid,
) -> QueryResult<usize> {
    mark(conn, "state = 'sent', lease_until = NULL, sent_at = clock_timestamp()", ids, token)
}

/// The broker has not taken these, or nobody knows: to be published again under another token.
#[cfg(feature = "rabbitmq")]
pub(in crate::deferred) fn not_sent(
    conn: &mut PgConnection,
    ids: &[Uuid],
    token: Uuid,
) -> QueryResult<usize> {
    mark(conn, "token = NULL, lease_until = NULL", ids, token)
}

/// Goes round rows that somebody has locked: a message is carrying them out, or their lease runs out.
#[cfg(feature = "rabbitmq")]
fn mark(conn: &mut PgConnection, set: &str, ids: &[Uuid], token: Uuid) -> QueryResult<usize> {
    if ids.is_empty() {
        return Ok(0);
    }
    sql_query(format!(
        "UPDATE deferred SET {set}
         WHERE id IN (SELECT id FROM deferred
                      WHERE id = ANY($1) AND token = $2 AND state || '' = 'pending'
                      FOR UPDATE SKIP LOCKED)"
    ))
    .bind::<Array<SqlUuid>, _>(ids)
    .bind::<SqlUuid, _>(token)
    .execute(conn)
}

/// Takes the rows of this kind that messages name, by id and token, to carry them out. Without those
/// whose message is stale, and those that somebody has [locked]. A message may come before its sender
/// has marked the row.
#[cfg(feature = "rabbitmq")]
pub(in crate::deferred) fn claim_sent(
    conn: &mut PgConnection,
    kind: &str,
    messages: &[(Uuid, Uuid)],
    lease: Duration,
) -> QueryResult<Vec<Row>> {
    let (ids, tokens): (Vec<Uuid>, Vec<Uuid>) = messages.iter().copied().unzip();
    sql_query(format!(
        "UPDATE deferred
         SET state = 'running', attempts = attempts + 1, strikes = strikes + 1,
             started_at = clock_timestamp(),
             lease_until = clock_timestamp() + $4 * interval '1 microsecond'
         WHERE id IN (SELECT deferred.id {NAMED} FOR UPDATE OF deferred SKIP LOCKED)
         RETURNING id, token, payload::text AS payload, context::text AS context, attempts,
                   strikes, not_before, started_at, last_error, alone"
    ))
    .bind::<Array<SqlUuid>, _>(ids)
    .bind::<Array<SqlUuid>, _>(tokens)
    .bind::<Text, _>(kind)
    .bind::<BigInt, _>(micros(lease))
    .load(conn)
}

/// The rows of a kind that messages name and nobody has begun.
#[cfg(feature = "rabbitmq")]
const NAMED: &str = "FROM deferred
    JOIN unnest($1, $2) AS message (id, token)
        ON deferred.id = message.id AND deferred.token = message.token
    WHERE kind = $3 AND state || '' IN ('pending', 'sent')";

/// Of the messages that [have not got](claim_sent) their rows, those that aren't stale: somebody had
/// their rows locked.
#[cfg(feature = "rabbitmq")]
pub(in crate::deferred) fn locked(
    conn: &mut PgConnection,
    kind: &str,
    messages: &[(Uuid, Uuid)],
) -> QueryResult<HashSet<(Uuid, Uuid)>> {
    #[derive(QueryableByName)]
    struct Named {
        #[diesel(sql_type = SqlUuid)]
        id: Uuid,
        #[diesel(sql_type = SqlUuid)]
        token: Uuid,
    }

    let (ids, tokens): (Vec<Uuid>, Vec<Uuid>) = messages.iter().copied().unzip();
    let named: Vec<Named> = sql_query(format!("SELECT deferred.id, deferred.token {NAMED}"))
        .bind::<Array<SqlUuid>, _>(ids)
        .bind::<Array<SqlUuid>, _>(tokens)
        .bind::<Text, _>(kind)
        .load(conn)?;
    Ok(named.into_iter().map(|row| (row.id, row.token)).collect())
}

/// Takes back the rows whose messages were dropped, as somebody had them locked, to be given to the
/// broker again. The messages of those that are locked still.
#[cfg(feature = "rabbitmq")]
pub(in crate::deferred) fn take_back(
    conn: &mut PgConnection,
    kind: &str,
    messages: &[(Uuid, Uuid)],
) -> QueryResult<HashSet<(Uuid, Uuid)>> {
    let (ids, tokens): (Vec<Uuid>, Vec<Uuid>) = messages.iter().copied().unzip();
    sql_query(format!(
        "UPDATE deferred SET state = 'pending', token = NULL, lease_until = NULL
         WHERE id IN (SELECT deferred.id {NAMED} FOR UPDATE OF deferred SKIP LOCKED)"
    ))
    .bind::<Array<SqlUuid>, _>(ids)
    .bind::<Array<SqlUuid>, _>(tokens)
    .bind::<Text, _>(kind)
    .execute(conn)?;
    locked(conn, kind, messages)
}

/// Takes back what the broker was given so long ago, to be given again: all but so many, which it
/// still has. Returns how many.
pub(in crate::deferred) fn recall(
    conn: &mut PgConnection,
    kind: &str,
    older_than: Duration,
    but: i64,
    limit: i64,
) -> QueryResult<usize> {
    sql_query(
        "WITH old AS MATERIALIZED (SELECT clock_timestamp() - $2 * interval '1 microsecond' AS at)
         UPDATE deferred SET state = 'pending', token = NULL, lease_until = NULL
         WHERE id IN (SELECT id FROM deferred
                      WHERE state = 'sent' AND kind = $1 AND sent_at <= (SELECT at FROM old)
                      ORDER BY sent_at
                      LIMIT CASE WHEN $3 = 0 THEN $4 ELSE
                          least($4, greatest(0, (SELECT count(*) FROM deferred
                                                 WHERE state = 'sent' AND kind = $1
                                                   AND sent_at <= (SELECT at FROM old)) - $3)) END
                      FOR UPDATE SKIP LOCKED)",
    )
    .bind::<Text, _>(kind)
    .bind::<BigInt, _>(micros(older_than))
    .bind::<BigInt, _>(but)
    .bind::<BigInt, _>(limit)
    .execute(conn)
}

#[cfg(test)]
#[cfg(feature = "rabbitmq")]
mod tests {
    use backing::postgres::testing::TestDatabase;
    use diesel::connection::SimpleConnection as _;
    use diesel_migrations::MigrationHarness as _;

    use super::*;
    use crate::deferred::MIGRATIONS;

    const KINDS: &[&str] = &["many", "few"];

    /// A backlog of one kind, all of it longer due than the ten rows of another.
    fn backlog(rows: u32, analyzed: bool) -> (TestDatabase, PgConnection) {
        let database = TestDatabase::new("relay", |url| {
            let mut conn = PgConnection::establish(url).unwrap();
            conn.run_pending_migrations(MIGRATIONS).map(drop)
        });
        let mut conn = PgConnection::establish(database.url()).unwrap();
        let insert = format!(
            "INSERT INTO deferred (id, kind, payload, state, not_before)
             SELECT gen_random_uuid(), kind, '{{}}', 'pending',
                    now() - (CASE kind WHEN 'many' THEN 3600 ELSE 1 END + random()) * interval '1 s'
             FROM (VALUES ('many', {rows}), ('few', 10)) AS kinds (kind, rows),
                  LATERAL generate_series(1, rows)"
        );
        conn.batch_execute(&insert).unwrap();
        if analyzed {
            conn.batch_execute("ANALYZE deferred").unwrap();
        }
        (database, conn)
    }

    #[test]
    fn a_kind_with_a_backlog_leaves_the_others_their_share_of_what_is_published() {
        let (_database, mut conn) = backlog(1000, true);
        for few in [10, 0] {
            let lease = Duration::from_mins(1);
            let rows = claim_to_send(&mut conn, KINDS, 100, Uuid::new_v4(), lease).unwrap();
            let count = |kind: &str| rows.iter().filter(|row| row.kind == kind).count();
            assert_eq!((count("many"), count("few")), (100, few));
        }
    }

    #[test]
    fn what_is_published_next_is_found_without_walking_through_the_backlog() {
        #[derive(QueryableByName)]
        struct Line {
            #[diesel(sql_type = Text, column_name = "QUERY PLAN")]
            text: String,
        }

        for analyzed in [true, false] {
            let (_database, mut conn) = backlog(20_000, analyzed);
            let explain = format!("EXPLAIN (ANALYZE, TIMING false) {CLAIM_TO_SEND}");
            let plan: Vec<Line> = sql_query(explain)
                .bind::<Array<Text>, _>(KINDS)
                .bind::<BigInt, _>(100)
                .bind::<SqlUuid, _>(Uuid::new_v4())
                .bind::<BigInt, _>(10_000_000)
                .load(&mut conn)
                .unwrap();
            let plan: Vec<_> = plan.into_iter().map(|line| line.text).collect();
            let shown = plan.join("\n");
            assert!(shown.contains("deferred_due"), "{shown}");
            // `(actual rows=100 loops=2)`: what each step came across.
            let rows = plan.iter().filter_map(|line| {
                let (_, actual) = line.split_once("actual ")?;
                let number = |name| {
                    let (_, number) = actual.split_once(name)?;
                    number.split([' ', ')', '.']).next()?.parse::<u64>().ok()
                };
                Some(number("rows=")? * number("loops=")?)
            });
            let most = rows.max();
            assert!(most.is_some_and(|most| (110..1000).contains(&most)), "{most:?}\n{shown}");
        }
    }
}
