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
    /// Why it could not be decided, where it could not.
    pub failure: Option<String>,
}

impl ClaimRow {
    /// A claim that will be decided.
    pub fn queued(claim_uid: Uuid, order_uid: Uuid, user_uid: Uuid, reason: &str) -> Self {
        Self {
            claim_uid,
            order_uid,
            user_uid,
            status: "QUEUED".to_owned(),
            reason: reason.to_owned(),
            decision: None,
            warranty_date: None,
            requested_at: Utc::now(),
            decided_at: None,
            failure: None,
        }
    }

    /// Keeps a claim. One that is kept already stays as it is.
    pub fn keep(&self, conn: &mut PgConnection) -> QueryResult<()> {
        diesel::insert_into(claims::table)
            .values(self)
            .on_conflict(claims::claim_uid)
            .do_nothing()
            .execute(conn)
            .map(drop)
    }

    /// A claim of a user, by its id.
    pub fn find(conn: &mut PgConnection, user: Uuid, claim: Uuid) -> QueryResult<Option<Self>> {
        claims::table
            .filter(claims::claim_uid.eq(claim))
            .filter(claims::user_uid.eq(user))
            .select(Self::as_select())
            .first(conn)
            .optional()
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

    /// The order of a claim.
    pub fn order_of(conn: &mut PgConnection, claim: Uuid) -> QueryResult<Option<Uuid>> {
        let found = claims::table.filter(claims::claim_uid.eq(claim));
        found.select(claims::order_uid).first(conn).optional()
    }

    /// Those of an order, whosever it is, oldest first.
    pub fn of_order(conn: &mut PgConnection, order: Uuid) -> QueryResult<Vec<Self>> {
        claims::table
            .filter(claims::order_uid.eq(order))
            .order((claims::requested_at, claims::id))
            .select(Self::as_select())
            .load(conn)
    }

    /// It is decided.
    pub fn decided(
        conn: &mut PgConnection,
        claim: Uuid,
        decision: &str,
        warranty_date: DateTime<Utc>,
    ) -> QueryResult<()> {
        use claims as c;
        diesel::update(c::table.filter(c::claim_uid.eq(claim)))
            .set((
                c::status.eq("DECIDED"),
                c::decision.eq(decision),
                c::warranty_date.eq(warranty_date),
                c::decided_at.eq(Utc::now()),
                c::failure.eq(None::<String>),
            ))
            .execute(conn)
            .map(drop)
    }

    /// It could not be decided.
    pub fn failed(conn: &mut PgConnection, claim: Uuid, failure: &str) -> QueryResult<()> {
        diesel::update(claims::table.filter(claims::claim_uid.eq(claim)))
            .set((claims::status.eq("FAILED"), claims::failure.eq(failure)))
            .execute(conn)
            .map(drop)
    }

    /// It is to be decided after all.
    pub fn requeued(conn: &mut PgConnection, claim: Uuid) -> QueryResult<()> {
        diesel::update(claims::table.filter(claims::claim_uid.eq(claim)))
            .set((claims::status.eq("QUEUED"), claims::failure.eq(None::<String>)))
            .execute(conn)
            .map(drop)
    }

    /// It was refused while its user waited: no claim then.
    pub fn forget(conn: &mut PgConnection, claim: Uuid) -> QueryResult<()> {
        diesel::delete(claims::table.filter(claims::claim_uid.eq(claim))).execute(conn).map(drop)
    }
}
