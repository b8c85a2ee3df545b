//! Reads: a user's orders, put together from Order, Warehouse and Warranty.
//!
//! One call to each, the latter two side by side, however many orders there are. While Warehouse or
//! Warranty can't answer, what it owns is shown as it was last seen by this replica, or as `null`,
//! and the element says so. Without Order there is nothing to put together.

use chrono::{DateTime, Utc};
use order_api::Order;
use resilience::fallback::{Each, LastKnown, live_each};
use resilience::http::{CallError, Context};
use serde::Serialize;
use service::Result;
use utoipa::ToSchema;
use uuid::Uuid;
use warehouse_api::Item;
use warranty_api::Warranty;

use crate::App;

/// How many items and how many warranties a replica remembers: some 2 MiB each at most.
const REMEMBERED: usize = 10_000;

/// An order as its user sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Element {
    order_uid: Uuid,
    /// When it was placed.
    date: DateTime<Utc>,
    status: order_api::Status,
    model: Option<String>,
    size: Option<String>,
    /// When the warranty began.
    warranty_date: Option<DateTime<Utc>>,
    warranty_status: Option<warranty_api::Status>,
    /// The systems that could not answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    degraded: Vec<&'static str>,
    /// Those of them whose part is shown as it was last seen.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stale: Vec<&'static str>,
}

/// What this replica has seen last.
#[derive(Debug)]
pub struct Known {
    items: LastKnown<Uuid, ItemPart>,
    warranties: LastKnown<Uuid, WarrantyPart>,
}

impl Default for Known {
    fn default() -> Self {
        Self { items: LastKnown::new(REMEMBERED), warranties: LastKnown::new(REMEMBERED) }
    }
}

impl Known {
    /// A warranty's part changed by something that went through here.
    pub fn warranty_is(&self, item: Uuid, status: warranty_api::Status) {
        if let Some(seen) = self.warranties.recall(&item) {
            self.warranties.remember(item, WarrantyPart { status, ..seen.value });
        }
    }
}

#[derive(Clone, Debug)]
struct ItemPart {
    model: String,
    size: String,
}

#[derive(Clone, Debug)]
struct WarrantyPart {
    date: DateTime<Utc>,
    status: warranty_api::Status,
}

impl From<Item> for ItemPart {
    fn from(item: Item) -> Self {
        Self { model: item.model, size: item.size }
    }
}

impl From<Warranty> for WarrantyPart {
    fn from(warranty: Warranty) -> Self {
        Self { date: warranty.warranty_date, status: warranty.status }
    }
}

/// A page of a user's orders, and how many there are in all.
///
/// # Errors
/// 503 when Order can't answer.
pub async fn list(
    app: &App,
    cx: &Context,
    user: Uuid,
    limit: i64,
    offset: i64,
) -> Result<(Vec<Element>, i64)> {
    let orders = app.order.list(cx, user, limit, offset).await?;
    Ok((elements(app, cx, orders.page).await, orders.total))
}

/// One order of a user.
///
/// # Errors
/// 404 `order_not_found`; 503 when Order can't answer.
pub async fn get(app: &App, cx: &Context, user: Uuid, order: Uuid) -> Result<Option<Element>> {
    let order = app.order.get(cx, user, order).await?;
    Ok(elements(app, cx, vec![order]).await.pop())
}

async fn elements(app: &App, cx: &Context, orders: Vec<Order>) -> Vec<Element> {
    if orders.is_empty() {
        return Vec::new();
    }
    let ids: Vec<_> = orders.iter().map(|order| order.item_uid).collect();
    let (items, warranties) =
        tokio::join!(app.warehouse.list(cx, &ids), app.warranty.list(cx, &ids));
    let items = items.map(|items| items.into_iter().map(|item| (item.order_item_uid, item.into())));
    let warranties = warranties.map(|all| all.into_iter().map(|one| (one.item_uid, one.into())));
    let items = Part::new(warehouse_api::NAME, live_each(items).or_last_known(&app.known.items));
    let warranties =
        Part::new(warranty_api::NAME, live_each(warranties).or_last_known(&app.known.warranties));
    orders.iter().map(|order| element(order, &items, &warranties)).collect()
}

/// What one system has to say about all the items of a read, or has said before.
struct Part<'a, V> {
    name: &'static str,
    each: Each<'a, Uuid, V, CallError>,
}

impl<'a, V: Clone> Part<'a, V> {
    fn new(name: &'static str, each: Each<'a, Uuid, V, CallError>) -> Self {
        if let Some(error) = each.error() {
            tracing::warn!(dependency = name, %error, "a read is degraded");
        }
        Self { name, each }
    }

    fn find(
        &self,
        item: Uuid,
        degraded: &mut Vec<&'static str>,
        stale: &mut Vec<&'static str>,
    ) -> Option<V> {
        if self.each.error().is_some() {
            degraded.push(self.name);
        }
        let found = self.each.get(&item)?;
        if !found.source.is_live() {
            stale.push(self.name);
        }
        Some(found.value)
    }
}

fn element(
    order: &Order,
    items: &Part<'_, ItemPart>,
    warranties: &Part<'_, WarrantyPart>,
) -> Element {
    let (mut degraded, mut stale) = (Vec::new(), Vec::new());
    let item = items.find(order.item_uid, &mut degraded, &mut stale);
    let warranty = warranties.find(order.item_uid, &mut degraded, &mut stale);
    let (model, size) = item.map(|item| (item.model, item.size)).unzip();
    let (warranty_date, warranty_status) = warranty.map(|w| (w.date, w.status)).unzip();
    Element {
        order_uid: order.order_uid,
        date: order.order_date,
        status: order.status,
        model,
        size,
        warranty_date,
        warranty_status,
        degraded,
        stale,
    }
}
