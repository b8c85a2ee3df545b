//! Which refunds are complete, and which may still come.

use chrono::{DateTime, Utc};
use diesel::dsl::{exists, now, select};
use diesel::pg::data_types::PgInterval;
use diesel::prelude::*;
use diesel::sql_types::Timestamptz;
use uuid::Uuid;

use crate::schema::{refund_attempts, refunds};

/// Days in which an attempt may still come: longer than any process is frozen, or a request under way.
const DOUBT_DAYS: i32 = 1;

/// A refund that is complete.
#[derive(Clone, Copy, Debug)]
pub struct Refund;

impl Refund {
    /// Whether this user's order was refunded.
    pub fn exists(conn: &mut PgConnection, user: Uuid, order: Uuid) -> QueryResult<bool> {
        let found = refunds::table.find(order).filter(refunds::user_uid.eq(user));
        select(exists(found)).get_result(conn)
    }

    /// Notes that it was. What may still come changes nothing any more.
    pub fn note(conn: &mut PgConnection, user: Uuid, order: Uuid) -> QueryResult<()> {
        conn.transaction(|conn| {
            diesel::insert_into(refunds::table)
                .values((refunds::order_uid.eq(order), refunds::user_uid.eq(user)))
                .on_conflict_do_nothing()
                .execute(conn)?;
            let attempts = refund_attempts::table.filter(refund_attempts::order_uid.eq(order));
            diesel::delete(attempts).execute(conn).map(drop)
        })
    }

    /// When it was complete.
    pub fn when(conn: &mut PgConnection, order: Uuid) -> QueryResult<Option<DateTime<Utc>>> {
        refunds::table.find(order).select(refunds::refunded_at).first(conn).optional()
    }

    /// Since when each attempt may still come.
    pub fn attempts(conn: &mut PgConnection, order: Uuid) -> QueryResult<Vec<DateTime<Utc>>> {
        refund_attempts::table
            .filter(refund_attempts::order_uid.eq(order))
            .select(refund_attempts::begun_at)
            .order(refund_attempts::begun_at)
            .load(conn)
    }

    /// Notes that Order is about to be asked for it: the attempt's id. Forgets what can't come any more.
    pub fn begin(conn: &mut PgConnection, user: Uuid, order: Uuid) -> QueryResult<Uuid> {
        let attempt = Uuid::new_v4();
        let since = now.into_sql::<Timestamptz>() - PgInterval::from_days(DOUBT_DAYS);
        let over = refund_attempts::table
            .filter(refund_attempts::order_uid.eq(order))
            .filter(refund_attempts::begun_at.lt(since));
        diesel::delete(over).execute(conn)?;
        diesel::insert_into(refund_attempts::table)
            .values((
                refund_attempts::attempt_uid.eq(attempt),
                refund_attempts::order_uid.eq(order),
                refund_attempts::user_uid.eq(user),
            ))
            .execute(conn)?;
        Ok(attempt)
    }

    /// The attempt has had no effect, and will have none. Whether another one of that user may: nobody
    /// else's ever gets as far as Order's refund.
    pub fn withdraw(
        conn: &mut PgConnection,
        attempt: Uuid,
        user: Uuid,
        order: Uuid,
    ) -> QueryResult<bool> {
        diesel::delete(refund_attempts::table.find(attempt)).execute(conn)?;
        let others = refund_attempts::table
            .filter(refund_attempts::order_uid.eq(order))
            .filter(refund_attempts::user_uid.eq(user));
        select(exists(others)).get_result(conn)
    }
}
