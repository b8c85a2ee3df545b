//! Claims that were accepted.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use uuid::Uuid;

use crate::schema::claims;

/// A claim.
#[derive(Clone, Debug, Insertable, Queryable, Selectable)]
#[diesel(table_name = claims)]
pub struct ClaimRow {
    /// Its id.
    pub claim_uid: Uuid,
    /// The order.
    pub order_uid: Uuid,
    /// Whose it is.
    pub user_uid: Uuid,
    /// `QUEUED`, `DECIDED` or `FAILED`.
    pub status: String,
    /// Why.
    pub reason: String,
    /// What was decided, once it is.
    pub decision: Option<String>,
    /// When the warranty began, once it is decided.
    pub warranty_date: Option<DateTime<Utc>>,
    /// When it was made.
    pub requested_at: DateTime<Utc>,
    /// When it was decided.
    pub decided_at: Option<DateTime<Utc>>,
}

impl ClaimRow {
    /// Keeps a claim. One that is kept already stays as it is.
    pub fn keep(&self, conn: &mut PgConnection) -> QueryResult<()> {
        diesel::insert_into(claims::table)
            .values(self)
            .on_conflict(claims::claim_uid)
            .do_nothing()
            .execute(conn)
            .map(drop)
    }

    /// Those of a user's order, newest first.
    pub fn list(conn: &mut PgConnection, user: Uuid, order: Uuid) -> QueryResult<Vec<Self>> {
        claims::table
            .filter(claims::order_uid.eq(order))
            .filter(claims::user_uid.eq(user))
            .order((claims::requested_at.desc(), claims::id.desc()))
            .select(Self::as_select())
            .load(conn)
    }
}
