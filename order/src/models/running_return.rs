//! Returns that run, one at a time for an order, under a lease.

use std::time::Duration;

use diesel::dsl::now;
use diesel::helper_types::AsExprOf;
use diesel::pg::data_types::PgInterval;
use diesel::prelude::*;
use diesel::sql_types::Timestamptz;
use uuid::Uuid;
use warranty_api::Restore;

use crate::schema::returns;

/// A return that runs, and what it needs to go on or to be undone.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = returns)]
pub struct RunningReturn {
    /// Its order.
    pub order_uid: Uuid,
    token: Uuid,
    /// The name of the warranty's close.
    pub close_name: String,
    before: Option<serde_json::Value>,
    /// Whether the item's return may have been asked for.
    pub forward: bool,
}

/// Who has an order's return.
#[derive(Clone, Debug)]
pub enum Claimed {
    /// We do.
    Ours(RunningReturn),
    /// Somebody else does; `forward` as in [`RunningReturn`].
    Theirs {
        /// Whether the item's return may have been asked for.
        forward: bool,
    },
}

/// By the database's clock, as those of replicas differ.
fn extended() -> diesel::dsl::Add<AsExprOf<now, Timestamptz>, returns::lease> {
    now.into_sql::<Timestamptz>() + returns::lease
}

impl RunningReturn {
    /// Begins one, or takes over one whose holder is silent. Must run in a transaction that holds
    /// the order's lock.
    pub fn claim(conn: &mut PgConnection, order: Uuid, lease: Duration) -> QueryResult<Claimed> {
        let (token, name) = (Uuid::new_v4(), Uuid::new_v4().to_string());
        let found: Option<(Self, bool)> = returns::table
            .find(order)
            .select((Self::as_select(), returns::lease_until.gt(now)))
            .first(conn)
            .optional()?;
        match found {
            Some((row, true)) => Ok(Claimed::Theirs { forward: row.forward }),
            Some((row, false)) => {
                diesel::update(returns::table.find(order))
                    .set((returns::token.eq(token), returns::lease_until.eq(extended())))
                    .execute(conn)?;
                Ok(Claimed::Ours(Self { token, ..row }))
            }
            None => {
                let micros = i64::try_from(lease.as_micros()).unwrap_or(i64::MAX);
                let lease = PgInterval::from_microseconds(micros);
                diesel::insert_into(returns::table)
                    .values((
                        returns::order_uid.eq(order),
                        returns::token.eq(token),
                        returns::lease.eq(lease),
                        returns::lease_until.eq(now.into_sql::<Timestamptz>() + lease),
                        returns::close_name.eq(name),
                    ))
                    .returning(Self::as_returning())
                    .get_result(conn)
                    .map(Claimed::Ours)
            }
        }
    }

    /// Names this hold of the return among others of the same order.
    pub fn name(&self) -> String {
        format!("return {} {}", self.order_uid, self.token)
    }

    /// What re-opens the warranty, once that is known.
    pub fn restore(&self) -> Option<Restore> {
        let before = self.before.clone().and_then(|before| serde_json::from_value(before).ok());
        before.map(|before: Restore| Restore { closed_by: Some(self.close_name.clone()), ..before })
    }

    /// Notes what the warranty was, before it is closed; false when somebody else took over.
    pub fn note_before(&mut self, conn: &mut PgConnection, before: &Restore) -> QueryResult<bool> {
        self.before = serde_json::to_value(before).ok();
        let noted = (returns::before.eq(self.before.clone()), returns::lease_until.eq(extended()));
        diesel::update(self.mine()).set(noted).execute(conn).map(|rows| rows == 1)
    }

    /// Begins anew, after what an earlier attempt did is undone; false when somebody else took over.
    pub fn renew(&mut self, conn: &mut PgConnection) -> QueryResult<bool> {
        self.close_name = Uuid::new_v4().to_string();
        self.before = None;
        let anew = (
            returns::close_name.eq(self.close_name.clone()),
            returns::before.eq(None::<serde_json::Value>),
            returns::lease_until.eq(extended()),
        );
        diesel::update(self.mine()).set(anew).execute(conn).map(|rows| rows == 1)
    }

    /// Notes, before the item's return is asked for, that there is no way back from there; false
    /// when somebody else took over. Also extends the lease.
    pub fn go_forward(&self, conn: &mut PgConnection) -> QueryResult<bool> {
        self.set_forward(conn, true)
    }

    /// Notes, before anything is undone, that it will be; false when somebody else took over. Also
    /// extends the lease.
    pub fn go_back(&self, conn: &mut PgConnection) -> QueryResult<bool> {
        self.set_forward(conn, false)
    }

    /// Gives it up: the next one begins anew.
    pub fn end(&self, conn: &mut PgConnection) -> QueryResult<()> {
        diesel::delete(self.mine()).execute(conn).map(drop)
    }

    /// The order is returned, whoever did it.
    pub fn done(conn: &mut PgConnection, order: Uuid) -> QueryResult<()> {
        diesel::delete(returns::table.find(order)).execute(conn).map(drop)
    }

    fn set_forward(&self, conn: &mut PgConnection, forward: bool) -> QueryResult<bool> {
        let noted = (returns::forward.eq(forward), returns::lease_until.eq(extended()));
        diesel::update(self.mine()).set(noted).execute(conn).map(|rows| rows == 1)
    }

    /// Fenced: nothing is found by one whose lease somebody else took over.
    fn mine(
        &self,
    ) -> diesel::dsl::Filter<
        diesel::dsl::Find<returns::table, Uuid>,
        diesel::dsl::Eq<returns::token, Uuid>,
    > {
        returns::table.find(self.order_uid).filter(returns::token.eq(self.token))
    }
}
