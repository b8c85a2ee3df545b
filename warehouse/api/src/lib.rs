//! What Warehouse offers to other services: its data, its codes, and a client that calls it through
//! [`resilience`].

use resilience::http::{CallError, Client, Context};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;
use warranty_api::{Claim, Decided};

/// The name by which breakers, health and error bodies know it.
pub const NAME: &str = "warehouse";

/// The port that it listens on when nothing else is said.
pub const PORT: u16 = 8280;

/// There is no such item.
pub const ITEM_NOT_FOUND: &str = "item_not_found";

/// None is left.
pub const SOLD_OUT: &str = "sold_out";

/// The codes of its business answers: those that a retry would not change.
pub const FINAL_CODES: &[&str] = &[
    "invalid_request",
    "already_undone",
    "idempotency_key_reused",
    ITEM_NOT_FOUND,
    SOLD_OUT,
    warranty_api::WARRANTY_NOT_FOUND,
];

/// What a model looks like, its length in characters, and both for a person.
pub const MODEL: (&str, usize, &str) = (
    r"^[\p{L}\p{N}][\p{L}\p{N} .,:+/()'&_-]*$",
    255,
    "1 to 255 letters, digits, spaces or .,:+/()'&_- and begin with a letter or digit",
);

/// What a size looks like, its length in characters, and both for a person.
pub const SIZE: (&str, usize, &str) =
    (r"^[A-Z0-9]+$", 8, "1 to 8 capital letters A to Z or digits");

/// One item of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    /// Its id.
    pub order_item_uid: Uuid,
    /// The order that it belongs to.
    pub order_uid: Uuid,
    /// What it is.
    pub model: String,
    /// In which size.
    pub size: String,
    /// How many of the kind are in stock now.
    pub available_count: i32,
    /// Whether it was returned.
    pub canceled: bool,
}

/// Takes one item for an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Take {
    /// The order.
    pub order_uid: Uuid,
    /// What is wanted.
    #[schema(pattern = r"^[\p{L}\p{N}][\p{L}\p{N} .,:+/()'&_-]{0,254}$")]
    pub model: String,
    /// In which size.
    #[schema(pattern = "^[A-Z0-9]{1,8}$")]
    pub size: String,
    /// The id that the item shall have; minted when missing. Repeating it takes one item only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_item_uid: Option<Uuid>,
}

/// What was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Taken {
    /// The item's id.
    pub order_item_uid: Uuid,
    /// The order that it belongs to.
    pub order_uid: Uuid,
    /// What it is.
    pub model: String,
    /// In which size.
    pub size: String,
}

/// Calls Warehouse.
#[derive(Clone, Debug)]
pub struct WarehouseClient(Client);

impl WarehouseClient {
    /// Over a client that is bound to Warehouse.
    pub fn new(client: Client) -> Self {
        Self(client)
    }

    /// Whether a call would be let through now.
    pub fn check(&self) -> Result<(), CallError> {
        self.0.check()
    }

    /// Those of up to 100 items that it knows.
    pub async fn list(&self, cx: &Context, items: &[Uuid]) -> Result<Vec<Item>, CallError> {
        let ids: Vec<_> = items.iter().map(Uuid::to_string).collect();
        let request = self.0.get("/api/v1/warehouse").query("itemUid", &ids.join(","));
        Ok(request.fetch(cx).await?.body)
    }

    /// Takes an item. The same `order_item_uid` takes it once.
    pub async fn take(&self, cx: &Context, take: &Take) -> Result<Taken, CallError> {
        Ok(self.0.post("/api/v1/warehouse").json(take).fetch(cx).await?.body)
    }

    /// Takes a take back whose outcome is unknown.
    pub async fn undo_take(&self, cx: &Context, item: Uuid) -> Result<(), CallError> {
        self.0.delete(path(item)).compensate().execute(cx).await
    }

    /// Returns an item. Stock goes up once, however often it is repeated.
    pub async fn give_back(&self, cx: &Context, item: Uuid) -> Result<(), CallError> {
        self.0.delete(path(item)).execute(cx).await
    }

    /// Claims on an item's warranty. The same `key` gets the same decision.
    pub async fn claim(
        &self,
        cx: &Context,
        item: Uuid,
        key: &str,
        claim: &Claim,
    ) -> Result<Decided, CallError> {
        let request = self.0.post(format!("{}/warranty", path(item)));
        Ok(request.json(claim).idempotency_key(key).fetch(cx).await?.body)
    }
}

fn path(item: Uuid) -> String {
    format!("/api/v1/warehouse/{item}")
}
