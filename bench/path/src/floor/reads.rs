//! What has no effect.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderName, StatusCode};
use chrono::{DateTime, Utc};
use diesel::connection::SimpleConnection as _;
use order_api::Order;
use serde::{Deserialize, Serialize};
use service::{Failure, Result};
use store::models::User;
use uuid::Uuid;

use super::Floor;

#[derive(Deserialize)]
pub(super) struct Page {
    limit: i64,
}

/// As Store's.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Element {
    order_uid: Uuid,
    date: DateTime<Utc>,
    status: order_api::Status,
    model: Option<String>,
    size: Option<String>,
    warranty_date: Option<DateTime<Utc>>,
    warranty_status: Option<warranty_api::Status>,
}

type Total = [(HeaderName, String); 1];

pub(super) async fn health(
    State(floor): State<Arc<Floor>>,
) -> Result<Json<&'static str>, StatusCode> {
    let asked = floor.run(|floor| floor.store.ask(|conn| Ok(conn.batch_execute("SELECT 1")?)));
    asked.await.map(|()| Json("Work"))
}

pub(super) async fn list(
    State(floor): State<Arc<Floor>>,
    Path(user): Path<Uuid>,
    Query(Page { limit }): Query<Page>,
) -> Result<(Total, Json<Vec<Element>>), StatusCode> {
    let listed = floor.run(move |floor| {
        floor.check_user(user)?;
        let (orders, total) = floor.order.ask(|conn| order::ops::list(conn, user, limit, 0))?;
        Ok((floor.elements(orders)?, total))
    });
    let (elements, total) = listed.await?;
    Ok(([(HeaderName::from_static("x-total-count"), total.to_string())], Json(elements)))
}

pub(super) async fn get(
    State(floor): State<Arc<Floor>>,
    Path((user, order)): Path<(Uuid, Uuid)>,
) -> Result<Json<Option<Element>>, StatusCode> {
    let found = floor.run(move |floor| {
        floor.check_user(user)?;
        let order = floor.order.ask(|conn| order::ops::get(conn, user, order))?;
        Ok(floor.elements(vec![order])?.pop())
    });
    found.await.map(Json)
}

impl Floor {
    pub(super) fn check_user(&self, user: Uuid) -> Result<()> {
        if self.store.ask(|conn| Ok(User::exists(conn, user)?))? {
            return Ok(());
        }
        Err(Failure::not_found(store::USER_NOT_FOUND, "there is no such user"))
    }

    fn elements(&self, orders: Vec<Order>) -> Result<Vec<Element>> {
        let ids: Vec<_> = orders.iter().map(|order| order.item_uid).collect();
        let items = self.warehouse.ask(|conn| warehouse::ops::list(conn, &ids))?;
        let mut items: HashMap<_, _> =
            items.into_iter().map(|item| (item.order_item_uid, item)).collect();
        let warranties = self.warranty.ask(|conn| warranty::ops::list(conn, &ids))?;
        let warranties: HashMap<_, _> =
            warranties.into_iter().map(|warranty| (warranty.item_uid, warranty)).collect();
        let element = |order: Order| {
            let item = items.remove(&order.item_uid);
            let (model, size) = item.map(|item| (item.model, item.size)).unzip();
            let warranty = warranties.get(&order.item_uid);
            Element {
                order_uid: order.order_uid,
                date: order.order_date,
                status: order.status,
                model,
                size,
                warranty_date: warranty.map(|warranty| warranty.warranty_date),
                warranty_status: warranty.map(|warranty| warranty.status),
            }
        };
        Ok(orders.into_iter().map(element).collect())
    }
}
