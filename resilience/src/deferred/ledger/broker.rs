//! The statements about what a broker is given, has, or has lost.

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
    sql_query(
        "UPDATE deferred
         SET token = $3, lease_until = clock_timestamp() + $4 * interval '1 microsecond'
         WHERE id IN (SELECT due.id FROM unnest($1) AS wanted (kind) CROSS JOIN LATERAL
                     (SELECT id FROM deferred
                      WHERE state = 'pending' AND mode = 'call' AND deferred.kind = wanted.kind
                        AND not_before <= (SELECT clock_timestamp())
                        AND (lease_until IS NULL OR lease_until <= (SELECT clock_timestamp()))
                      ORDER BY not_before LIMIT $2 FOR UPDATE SKIP LOCKED) AS due)
         RETURNING id, kind",
    )
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

#[cfg(feature = "rabbitmq")]
fn mark(conn: &mut PgConnection, set: &str, ids: &[Uuid], token: Uuid) -> QueryResult<usize> {
    if ids.is_empty() {
        return Ok(0);
    }
    sql_query(format!(
        "UPDATE deferred SET {set}
         WHERE id IN (SELECT id FROM deferred
                      WHERE id = ANY($1) AND token = $2 AND state || '' = 'pending'
                      ORDER BY id FOR UPDATE)"
    ))
    .bind::<Array<SqlUuid>, _>(ids)
    .bind::<SqlUuid, _>(token)
    .execute(conn)
}

/// Takes the rows of this kind that messages name, by id and token, to carry them out. Without those
/// whose message is stale. A message may come before its sender has marked the row.
#[cfg(feature = "rabbitmq")]
pub(in crate::deferred) fn claim_sent(
    conn: &mut PgConnection,
    kind: &str,
    messages: &[(Uuid, Uuid)],
    lease: Duration,
) -> QueryResult<Vec<Row>> {
    let (ids, tokens): (Vec<Uuid>, Vec<Uuid>) = messages.iter().copied().unzip();
    sql_query(
        "UPDATE deferred
         SET state = 'running', attempts = attempts + 1, strikes = strikes + 1,
             started_at = clock_timestamp(),
             lease_until = clock_timestamp() + $3 * interval '1 microsecond'
         WHERE id IN (SELECT deferred.id FROM deferred
                      JOIN unnest($1, $2) AS message (id, token)
                          ON deferred.id = message.id AND deferred.token = message.token
                      WHERE kind = $4 AND state || '' IN ('pending', 'sent')
                      ORDER BY deferred.id FOR UPDATE OF deferred)
         RETURNING id, token, payload::text AS payload, context::text AS context, attempts,
                   strikes, not_before, started_at, last_error, alone",
    )
    .bind::<Array<SqlUuid>, _>(ids)
    .bind::<Array<SqlUuid>, _>(tokens)
    .bind::<BigInt, _>(micros(lease))
    .bind::<Text, _>(kind)
    .load(conn)
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
