//! What Order does in its own database, and the claim that it passes on. What reaches into several
//! systems is in [`crate::sagas`].

use diesel::{PgConnection, QueryResult};
pub use order_api::item_of;
use order_api::{ORDER_NOT_FOUND, Order};
use resilience::http::Context;
use resilience::saga::Local;
use service::{Db, Failure, Result, saga, tombstone};
use uuid::Uuid;
use warehouse_api::WarehouseClient;
use warranty_api::{Claim, Decided};

use crate::models::OrderRow;

/// 404: no such order.
pub(crate) fn unknown_order(uid: Uuid) -> Failure {
    Failure::not_found(ORDER_NOT_FOUND, format!("there is no order {uid}"))
}

/// An order of a user.
///
/// # Errors
/// 404 `order_not_found`, also for an order of somebody else.
pub fn get(conn: &mut PgConnection, user: Uuid, uid: Uuid) -> Result<Order> {
    let row = OrderRow::find(conn, uid)?.filter(|row| row.user_uid == user);
    Ok(row.ok_or_else(|| unknown_order(uid))?.into_order())
}

/// A page of a user's orders, newest first, and how many there are in all.
///
/// # Errors
/// What the database says.
pub fn list(
    conn: &mut PgConnection,
    user: Uuid,
    limit: i64,
    offset: i64,
) -> Result<(Vec<Order>, i64)> {
    let (rows, total) = OrderRow::page(conn, user, limit, offset)?;
    Ok((rows.into_iter().map(OrderRow::into_order).collect(), total))
}

/// The pivot of a purchase: from here on the order exists. Must run in a transaction.
///
/// # Errors
/// 409 `already_undone` when an undo was faster; 422 `idempotency_key_reused` for another order.
pub(crate) fn commit(conn: &mut PgConnection, uid: Uuid, user: Uuid) -> Result<(), Local> {
    tombstone::lock(conn, uid)?;
    if tombstone::stands(conn, uid)? {
        return Err(Local::Refused(saga::refused(Failure::already_undone(uid))));
    }
    if OrderRow::insert(conn, uid, user, item_of(uid))? {
        return Ok(());
    }
    Err(Local::Refused(saga::refused(another_order(uid))))
}

/// 422: the id is taken.
pub(crate) fn another_order(uid: Uuid) -> Failure {
    Failure::key_reused(format!("{uid} is another order already"))
}

/// Takes an order back as if it had never been, and makes sure that it will not be. Must run in a
/// transaction.
///
/// # Errors
/// What the database says.
pub fn erase(conn: &mut PgConnection, uid: Uuid) -> QueryResult<()> {
    tombstone::lock(conn, uid)?;
    tombstone::place(conn, uid)?;
    OrderRow::erase(conn, uid)
}

/// Claims on the warranty of an order's item.
///
/// # Errors
/// 404 `order_not_found`, `item_not_found` or `warranty_not_found`; 503 when a system can't answer.
pub async fn claim(
    db: &Db,
    warehouse: &WarehouseClient,
    cx: &Context,
    uid: Uuid,
    key: &str,
    claim: &Claim,
) -> Result<Decided> {
    let row = db.run(move |conn| Ok(OrderRow::find(conn, uid)?)).await?;
    let row = row.ok_or_else(|| unknown_order(uid))?;
    Ok(warehouse.claim(cx, row.item_uid, key, claim).await?)
}
