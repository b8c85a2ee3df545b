//! Which order holds which item.

use diesel::prelude::*;
use uuid::Uuid;
use warehouse_api::Item;

use super::Stock;
use crate::schema::{items, order_item};

/// An item that an order holds, or held.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = order_item)]
pub struct OrderItem {
    /// Whether it was returned.
    pub canceled: bool,
    /// Its id.
    pub order_item_uid: Uuid,
    /// The order.
    pub order_uid: Uuid,
    /// Its kind.
    pub item_id: i32,
}

impl OrderItem {
    /// One, with its kind.
    pub fn find(conn: &mut PgConnection, uid: Uuid) -> QueryResult<Option<(Self, Stock)>> {
        order_item::table
            .inner_join(items::table)
            .filter(order_item::order_item_uid.eq(uid))
            .select((Self::as_select(), Stock::as_select()))
            .first(conn)
            .optional()
    }

    /// Those of `uids` that exist, in their order.
    pub fn list(conn: &mut PgConnection, uids: &[Uuid]) -> QueryResult<Vec<(Self, Stock)>> {
        let mut found: Vec<(Self, Stock)> = order_item::table
            .inner_join(items::table)
            .filter(order_item::order_item_uid.eq_any(uids))
            .select((Self::as_select(), Stock::as_select()))
            .load(conn)?;
        found.sort_by_cached_key(|(row, _)| uids.iter().position(|uid| *uid == row.order_item_uid));
        Ok(found)
    }

    /// Notes that an order holds an item of a kind.
    pub fn insert(conn: &mut PgConnection, uid: Uuid, order: Uuid, kind: i32) -> QueryResult<()> {
        diesel::insert_into(order_item::table)
            .values((
                order_item::order_item_uid.eq(uid),
                order_item::order_uid.eq(order),
                order_item::item_id.eq(kind),
            ))
            .execute(conn)
            .map(drop)
    }

    /// Marks it as returned.
    pub fn cancel(conn: &mut PgConnection, uid: Uuid) -> QueryResult<()> {
        diesel::update(order_item::table.filter(order_item::order_item_uid.eq(uid)))
            .set(order_item::canceled.eq(true))
            .execute(conn)
            .map(drop)
    }

    /// As others see it.
    pub fn into_item(self, kind: Stock) -> Item {
        Item {
            order_item_uid: self.order_item_uid,
            order_uid: self.order_uid,
            model: kind.model,
            size: kind.size,
            available_count: kind.available_count,
            canceled: self.canceled,
        }
    }
}
