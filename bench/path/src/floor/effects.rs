//! What has an effect: one transaction in each database, one after the other, and nothing to go by when
//! it ends between two of them.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use order::models::OrderRow;
use order_api::{Placed, item_of};
use serde::Deserialize;
use service::{Failure, Result, tombstone};
use store::models::{ClaimRow, Refund};
use uuid::Uuid;
use warehouse::ops::Line;
use warranty::config::Period;
use warranty_api::{Claim, Decided, Decision, StockedClaim};

use super::Floor;

/// What the services have, if nothing else is said.
const PERIOD: Period = Period(365);

#[derive(Deserialize)]
pub(super) struct Wish {
    model: String,
    size: String,
}

pub(super) async fn purchase(
    State(floor): State<Arc<Floor>>,
    Path(user): Path<Uuid>,
    Json(Wish { model, size }): Json<Wish>,
) -> Result<(StatusCode, Json<Placed>), StatusCode> {
    let bought = floor.run(move |floor| {
        floor.check_user(user)?;
        let order_uid = Uuid::new_v4();
        let item = item_of(order_uid);
        let line = Line { uid: item, order: order_uid, model, size };
        floor.warehouse.transaction(|conn| warehouse::ops::reserve(conn, &[line]).map(drop))?;
        floor.warranty.transaction(|conn| warranty::ops::start(conn, item))?;
        floor.order.transaction(|conn| {
            tombstone::lock(conn, order_uid)?;
            if tombstone::stands(conn, order_uid)? {
                return Err(Failure::already_undone(order_uid));
            }
            OrderRow::insert(conn, order_uid, user, item)?;
            Ok(())
        })?;
        Ok(Placed { order_uid })
    });
    bought.await.map(|placed| (StatusCode::CREATED, Json(placed)))
}

pub(super) async fn refund(
    State(floor): State<Arc<Floor>>,
    Path((user, uid)): Path<(Uuid, Uuid)>,
) -> Result<StatusCode, StatusCode> {
    let refunded = floor.run(move |floor| {
        floor.check_user(user)?;
        if floor.store.ask(|conn| Ok(Refund::exists(conn, user, uid)?))? {
            return Ok(());
        }
        floor.store.ask(|conn| Ok(Refund::begin(conn, user, uid)?))?;
        let item = floor.order.ask(|conn| order::ops::get(conn, user, uid))?.item_uid;
        floor.warranty.ask(|conn| warranty::ops::get(conn, item))?;
        let name = Uuid::new_v4().to_string();
        floor.warranty.transaction(|conn| warranty::ops::close(conn, item, Some(&name), false))?;
        floor.warehouse.transaction(|conn| warehouse::ops::give_back(conn, item, false))?;
        floor.order.transaction(|conn| {
            tombstone::lock(conn, uid)?;
            Ok(OrderRow::cancel(conn, uid)?)
        })?;
        floor.store.ask(|conn| Ok(Refund::note(conn, user, uid)?))
    });
    refunded.await.map(|()| StatusCode::NO_CONTENT)
}

pub(super) async fn claim(
    State(floor): State<Arc<Floor>>,
    Path((user, uid)): Path<(Uuid, Uuid)>,
    Json(Claim { reason }): Json<Claim>,
) -> Result<Json<Decided>, StatusCode> {
    let decided = floor.run(move |floor| {
        floor.check_user(user)?;
        let item = floor.order.ask(|conn| order::ops::get(conn, user, uid))?.item_uid;
        let claim = Uuid::new_v4();
        let row = ClaimRow::queued(claim, uid, user, &reason);
        floor.store.ask(|conn| Ok(row.keep(conn)?))?;
        let held = floor.warehouse.ask(|conn| warehouse::ops::get(conn, item))?;
        let stocked = StockedClaim { reason, available_count: held.available_count };
        let decided = floor
            .warranty
            .transaction(|conn| warranty::ops::claim(conn, item, PERIOD, &stocked))?;
        let told = match decided.decision {
            Decision::Return => "RETURN",
            Decision::Fixing => "FIXING",
            Decision::Refused => "REFUSED",
        };
        let date = decided.warranty_date;
        floor.store.ask(|conn| Ok(ClaimRow::decided(conn, claim, told, date)?))?;
        Ok(decided)
    });
    decided.await.map(Json)
}
