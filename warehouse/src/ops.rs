//! What Warehouse does: connection in, result out, no HTTP.

use std::collections::BTreeMap;

use diesel::PgConnection;
use resilience::http::Context;
use service::{Db, Failure, Result, tombstone};
use uuid::Uuid;
use warehouse_api::{ITEM_NOT_FOUND, Item, SOLD_OUT, Taken};
use warranty_api::{Claim, Decided, StockedClaim, WARRANTY_NOT_FOUND, WarrantyClient};

use crate::models::{OrderItem, Stock};

/// One line of a reservation.
#[derive(Clone, Debug)]
pub struct Line {
    /// The id that the item shall have.
    pub uid: Uuid,
    /// The order that holds it.
    pub order: Uuid,
    /// What is wanted.
    pub model: String,
    /// In which size.
    pub size: String,
}

/// 404: no such item.
fn unknown_item(what: &str) -> Failure {
    Failure::not_found(ITEM_NOT_FOUND, format!("there is no item {what}"))
}

/// One item.
///
/// # Errors
/// 404 `item_not_found`.
pub fn get(conn: &mut PgConnection, uid: Uuid) -> Result<Item> {
    let found = OrderItem::find(conn, uid)?;
    let (row, kind) = found.ok_or_else(|| unknown_item(&uid.to_string()))?;
    Ok(row.into_item(kind))
}

/// Those of `uids` that are known, in their order.
///
/// # Errors
/// What the database says.
pub fn list(conn: &mut PgConnection, uids: &[Uuid]) -> Result<Vec<Item>> {
    let found = OrderItem::list(conn, uids)?;
    Ok(found.into_iter().map(|(row, kind)| row.into_item(kind)).collect())
}

/// Takes all lines or none. A line whose id holds the same already is not taken again. Must run in
/// a transaction.
///
/// # Errors
/// 404 `item_not_found`, 409 `sold_out`, 409 `already_undone` for an id that was given back, 422
/// `idempotency_key_reused` for an id that holds something else.
pub fn reserve(conn: &mut PgConnection, lines: &[Line]) -> Result<Vec<Taken>> {
    let mut uids: Vec<_> = lines.iter().map(|line| line.uid).collect();
    // Everyone locks in the same order, so that nobody waits in a circle.
    uids.sort_unstable();
    for uid in uids {
        tombstone::lock(conn, uid)?;
        if tombstone::stands(conn, uid)? {
            return Err(Failure::already_undone(uid));
        }
    }
    let mut wanted = BTreeMap::new();
    for line in lines {
        if let Some((held, kind)) = OrderItem::find(conn, line.uid)? {
            check_same(line, &held, &kind)?;
            continue;
        }
        let kind = Stock::find(conn, &line.model, &line.size)?;
        let kind =
            kind.ok_or_else(|| unknown_item(&format!("{} in size {}", line.model, line.size)))?;
        OrderItem::insert(conn, line.uid, line.order, kind.id)?;
        *wanted.entry(kind.id).or_insert(0) += 1;
    }
    // Last, as everyone who wants the same kind waits from here to the commit; by ascending id, as
    // above.
    for (kind, count) in wanted {
        if !Stock::take(conn, kind, count)? {
            return Err(Failure::conflict(SOLD_OUT, "the item is sold out"));
        }
    }
    Ok(lines.iter().map(taken).collect())
}

fn check_same(line: &Line, held: &OrderItem, kind: &Stock) -> Result<()> {
    let same = held.order_uid == line.order && kind.model == line.model && kind.size == line.size;
    if !same {
        return Err(Failure::key_reused(format!("{} is another item already", line.uid)));
    }
    if held.canceled {
        return Err(Failure::already_undone(line.uid));
    }
    Ok(())
}

fn taken(line: &Line) -> Taken {
    Taken {
        order_item_uid: line.uid,
        order_uid: line.order,
        model: line.model.clone(),
        size: line.size.clone(),
    }
}

/// Puts an item back, once however often it is repeated. Must run in a transaction.
///
/// With `compensate` this undoes a take whose outcome is unknown: an id never seen is no error, and
/// a tombstone refuses the take from now on.
///
/// # Errors
/// 404 `item_not_found`.
pub fn give_back(conn: &mut PgConnection, uid: Uuid, compensate: bool) -> Result<()> {
    tombstone::lock(conn, uid)?;
    let held = OrderItem::find(conn, uid)?;
    if compensate {
        tombstone::place(conn, uid)?;
    }
    match held {
        None if compensate => Ok(()),
        None => Err(unknown_item(&uid.to_string())),
        Some((row, _)) if row.canceled => Ok(()),
        Some((row, kind)) => {
            OrderItem::cancel(conn, row.order_item_uid)?;
            Ok(Stock::put_back(conn, kind.id, 1)?)
        }
    }
}

/// Has Warranty decide on a claim, telling it how many of the kind are in stock.
///
/// # Errors
/// 404 `item_not_found` or `warranty_not_found`; 503 when Warranty can't answer.
pub async fn claim(
    db: &Db,
    warranty: &WarrantyClient,
    cx: &Context,
    uid: Uuid,
    key: &str,
    claim: Claim,
) -> Result<Decided> {
    let item = db.run(move |conn| get(conn, uid)).await?;
    let stocked = StockedClaim { reason: claim.reason, available_count: item.available_count };
    warranty.claim(cx, uid, key, &stocked).await.map_err(|error| match error.code() {
        Some(WARRANTY_NOT_FOUND) => Failure::not_found(
            WARRANTY_NOT_FOUND,
            format!("Warranty not found for itemUid '{uid}'"),
        ),
        _ => error.into(),
    })
}
