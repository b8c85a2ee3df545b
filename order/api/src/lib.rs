//! What Order offers to other services: its data, its codes, and a client that calls it through
//! [`resilience`].

use chrono::{DateTime, Utc};
use resilience::http::{CallError, Client, Context};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;
use warranty_api::{Claim, Decided};

/// The name by which breakers, health and error bodies know it.
pub const NAME: &str = "order";

/// The port that it listens on when nothing else is said.
pub const PORT: u16 = 8380;

/// There is no such order, or it is somebody else's.
pub const ORDER_NOT_FOUND: &str = "order_not_found";

/// The item of an order: its id follows from the order's, so that whoever knows the order can undo
/// all of it, also when nothing was written down anywhere.
pub fn item_of(order: Uuid) -> Uuid {
    Uuid::new_v5(&order, b"item")
}

/// 503: the item's return may have happened; it is completed in the background.
pub const REFUND_PENDING: &str = "refund_pending";

/// The codes of its business answers: those that a retry would not change.
pub const FINAL_CODES: &[&str] = &[
    "invalid_request",
    "already_undone",
    "idempotency_key_reused",
    ORDER_NOT_FOUND,
    "item_not_found",
    "sold_out",
    warranty_api::WARRANTY_NOT_FOUND,
];

/// The state of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[schema(as = OrderStatus)]
pub enum Status {
    /// Bought.
    Paid,
    /// Refunded.
    Canceled,
}

/// An order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// Its id.
    pub order_uid: Uuid,
    /// The item that it holds.
    pub item_uid: Uuid,
    /// When it was placed.
    pub order_date: DateTime<Utc>,
    /// Its state.
    pub status: Status,
}

/// Places an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// What is wanted.
    #[schema(pattern = r"^[\p{L}\p{N}][\p{L}\p{N} .,:+/()'&_-]{0,254}$")]
    pub model: String,
    /// In which size.
    #[schema(pattern = "^[A-Z0-9]{1,8}$")]
    pub size: String,
    /// The id that the order shall have; minted when missing. Repeating it places one order only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_uid: Option<Uuid>,
}

/// What was placed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Placed {
    /// The order's id.
    pub order_uid: Uuid,
}

/// A page of a user's orders, and how many there are in all.
#[derive(Clone, Debug)]
pub struct Orders {
    /// The page, newest first.
    pub page: Vec<Order>,
    /// All of them, this page or another.
    pub total: i64,
}

/// Calls Order.
#[derive(Clone, Debug)]
pub struct OrderClient {
    reads: Client,
    writes: Client,
}

impl OrderClient {
    /// Over clients that are bound to Order, one for reads and one for what has an effect, which
    /// takes longer.
    pub fn new(reads: Client, writes: Client) -> Self {
        Self { reads, writes }
    }

    /// An order of a user.
    pub async fn get(&self, cx: &Context, user: Uuid, order: Uuid) -> Result<Order, CallError> {
        Ok(self.reads.get(format!("/api/v1/orders/{user}/{order}")).fetch(cx).await?.body)
    }

    /// A page of a user's orders, newest first.
    pub async fn list(
        &self,
        cx: &Context,
        user: Uuid,
        limit: i64,
        offset: i64,
    ) -> Result<Orders, CallError> {
        let reply = self
            .reads
            .get(path(user))
            .query("limit", &limit.to_string())
            .query("offset", &offset.to_string())
            .fetch::<Vec<Order>>(cx)
            .await?;
        let total = reply.headers.get("x-total-count").and_then(|t| t.to_str().ok()?.parse().ok());
        Ok(Orders { total: total.unwrap_or_default(), page: reply.body })
    }

    /// Places an order. The same `order_uid` places it once.
    pub async fn place(
        &self,
        cx: &Context,
        user: Uuid,
        place: &Place,
    ) -> Result<Placed, CallError> {
        Ok(self.writes.post(path(user)).json(place).fetch(cx).await?.body)
    }

    /// Takes back an order whose outcome is unknown; done when everything is as it was before.
    pub async fn undo_place(&self, cx: &Context, order: Uuid) -> Result<(), CallError> {
        self.writes.delete(path(order)).compensate().execute(cx).await
    }

    /// Closes the warranty and returns the item. Repeating it changes nothing.
    pub async fn give_back(&self, cx: &Context, order: Uuid) -> Result<(), CallError> {
        self.writes.delete(path(order)).execute(cx).await
    }

    /// Claims on an order's warranty. The same `key` gets the same decision.
    pub async fn claim(
        &self,
        cx: &Context,
        order: Uuid,
        key: &str,
        claim: &Claim,
    ) -> Result<Decided, CallError> {
        let request = self.writes.post(format!("{}/warranty", path(order)));
        Ok(request.json(claim).idempotency_key(key).fetch(cx).await?.body)
    }
}

fn path(uid: Uuid) -> String {
    format!("/api/v1/orders/{uid}")
}
