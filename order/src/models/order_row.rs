//! Who bought what.

use chrono::{DateTime, Utc};
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use order_api::{Order, Status};
use uuid::Uuid;

use crate::schema::orders;

const PAID: &str = "PAID";
const CANCELED: &str = "CANCELED";

/// An order that was placed.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = orders)]
pub struct OrderRow {
    /// The item that it holds.
    pub item_uid: Uuid,
    order_date: DateTime<Utc>,
    /// Its id.
    pub order_uid: Uuid,
    status: String,
    /// Whose it is.
    pub user_uid: Uuid,
}

impl OrderRow {
    /// When it was placed.
    pub fn placed_at(&self) -> DateTime<Utc> {
        self.order_date
    }

    /// `PAID` or `CANCELED`.
    pub fn status(&self) -> &str {
        &self.status
    }

    /// One.
    pub fn find(conn: &mut PgConnection, uid: Uuid) -> QueryResult<Option<Self>> {
        orders::table
            .filter(orders::order_uid.eq(uid))
            .select(Self::as_select())
            .first(conn)
            .optional()
    }

    /// A page of a user's, newest first, and how many there are in all.
    pub fn page(
        conn: &mut PgConnection,
        user: Uuid,
        limit: i64,
        offset: i64,
    ) -> QueryResult<(Vec<Self>, i64)> {
        let of_user = orders::table.filter(orders::user_uid.eq(user));
        let rows: Vec<(Self, i64)> = of_user
            .select((Self::as_select(), sql::<BigInt>("count(*) OVER ()")))
            .order((orders::order_date.desc(), orders::id.desc()))
            .limit(limit)
            .offset(offset)
            .load(conn)?;
        let total = match rows.first() {
            Some((_, total)) => *total,
            // Behind the last page there is no row to tell.
            None if offset > 0 => of_user.count().get_result(conn)?,
            None => 0,
        };
        Ok((rows.into_iter().map(|(row, _)| row).collect(), total))
    }

    /// Places an order; false when the id is taken.
    pub fn insert(conn: &mut PgConnection, uid: Uuid, user: Uuid, item: Uuid) -> QueryResult<bool> {
        diesel::insert_into(orders::table)
            .values((
                orders::order_uid.eq(uid),
                orders::user_uid.eq(user),
                orders::item_uid.eq(item),
                orders::status.eq(PAID),
            ))
            .on_conflict(orders::order_uid)
            .do_nothing()
            .execute(conn)
            .map(|rows| rows == 1)
    }

    /// Takes an order back as if it had never been. One that was refunded stays.
    pub fn erase(conn: &mut PgConnection, uid: Uuid) -> QueryResult<()> {
        let paid = orders::table.filter(orders::order_uid.eq(uid)).filter(orders::status.eq(PAID));
        diesel::delete(paid).execute(conn).map(drop)
    }

    /// Marks it as refunded.
    pub fn cancel(conn: &mut PgConnection, uid: Uuid) -> QueryResult<()> {
        diesel::update(orders::table.filter(orders::order_uid.eq(uid)))
            .set(orders::status.eq(CANCELED))
            .execute(conn)
            .map(drop)
    }

    /// Whether it was refunded.
    pub fn is_canceled(&self) -> bool {
        self.status == CANCELED
    }

    /// As others see it.
    pub fn into_order(self) -> Order {
        Order {
            order_uid: self.order_uid,
            item_uid: self.item_uid,
            order_date: self.order_date,
            status: if self.is_canceled() { Status::Canceled } else { Status::Paid },
        }
    }
}
