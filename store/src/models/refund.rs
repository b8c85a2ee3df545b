//! Which refunds are complete.

use diesel::dsl::{exists, select};
use diesel::prelude::*;
use uuid::Uuid;

use crate::schema::refunds;

/// A refund that is complete.
#[derive(Clone, Copy, Debug)]
pub struct Refund;

impl Refund {
    /// Whether this user's order was refunded.
    pub fn exists(conn: &mut PgConnection, user: Uuid, order: Uuid) -> QueryResult<bool> {
        let found = refunds::table.find(order).filter(refunds::user_uid.eq(user));
        select(exists(found)).get_result(conn)
    }

    /// Notes that it was.
    pub fn note(conn: &mut PgConnection, user: Uuid, order: Uuid) -> QueryResult<()> {
        diesel::insert_into(refunds::table)
            .values((refunds::order_uid.eq(order), refunds::user_uid.eq(user)))
            .on_conflict_do_nothing()
            .execute(conn)
            .map(drop)
    }
}
