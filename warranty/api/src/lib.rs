//! What Warranty offers to other services: its data, its codes, and a client that calls it through
//! [`resilience`].

use chrono::{DateTime, Utc};
use resilience::http::{CallError, Client, Context};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// The name by which breakers, health and error bodies know it.
pub const NAME: &str = "warranty";

/// The port that it listens on when nothing else is said.
pub const PORT: u16 = 8180;

/// No warranty is known for the item.
pub const WARRANTY_NOT_FOUND: &str = "warranty_not_found";

/// The codes of its business answers: those that a retry would not change.
pub const FINAL_CODES: &[&str] =
    &["invalid_request", "already_undone", "idempotency_key_reused", WARRANTY_NOT_FOUND];

/// What a reason looks like, its length in characters, and both for a person.
pub const REASON: (&str, usize, &str) = (
    r"^(?:[^\p{Cc}]|[\r\n])+$",
    1024,
    "1 to 1024 characters, no control characters but line breaks",
);

/// The state of a warranty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[schema(as = WarrantyStatus)]
pub enum Status {
    /// It runs.
    OnWarranty,
    /// It was claimed on.
    UseWarranty,
    /// It is closed.
    RemovedFromWarranty,
}

/// A warranty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Warranty {
    /// The item that it is for.
    pub item_uid: Uuid,
    /// When it began.
    pub warranty_date: DateTime<Utc>,
    /// Its state.
    pub status: Status,
    /// The reason of the last claim.
    pub comment: Option<String>,
}

/// What is decided on a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Decision {
    /// Another one is in stock.
    Return,
    /// It is repaired.
    Fixing,
    /// There is no claim.
    Refused,
}

/// The answer to a claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Decided {
    /// When the warranty began.
    pub warranty_date: DateTime<Utc>,
    /// What was decided.
    pub decision: Decision,
}

/// A claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Claim {
    /// Why: 1 to 1024 characters, no control characters but line breaks.
    #[schema(
        min_length = 1,
        max_length = 1024,
        pattern = r"^([^\u0000-\u001F\u007F-\u009F]|[\r\n])+$"
    )]
    pub reason: String,
}

/// A claim as Warehouse passes it on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StockedClaim {
    /// Why: 1 to 1024 characters, no control characters but line breaks.
    #[schema(
        min_length = 1,
        max_length = 1024,
        pattern = r"^([^\u0000-\u001F\u007F-\u009F]|[\r\n])+$"
    )]
    pub reason: String,
    /// How many of the kind are in stock.
    #[schema(minimum = 0)]
    pub available_count: i32,
}

/// What a closed warranty was, to re-open it exactly so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Restore {
    /// Its state before.
    pub status: Status,
    /// When it began.
    pub warranty_date: DateTime<Utc>,
    /// Its comment before.
    #[serde(default)]
    #[schema(
        min_length = 1,
        max_length = 1024,
        pattern = r"^([^\u0000-\u001F\u007F-\u009F]|[\r\n])+$"
    )]
    pub comment: Option<String>,
    /// The `Idempotency-Key` of the close that this undoes: arriving late, it does nothing.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 255, pattern = "^[!-~]+$")]
    pub closed_by: Option<String>,
}

/// Calls Warranty.
#[derive(Clone, Debug)]
pub struct WarrantyClient(Client);

impl WarrantyClient {
    /// Over a client that is bound to Warranty.
    pub fn new(client: Client) -> Self {
        Self(client)
    }

    /// Whether a call would be let through now.
    pub fn check(&self) -> Result<(), CallError> {
        self.0.check()
    }

    /// One warranty.
    pub async fn get(&self, cx: &Context, item: Uuid) -> Result<Warranty, CallError> {
        Ok(self.0.get(path(item)).fetch(cx).await?.body)
    }

    /// Those of up to 100 items that have one.
    pub async fn list(&self, cx: &Context, items: &[Uuid]) -> Result<Vec<Warranty>, CallError> {
        let ids: Vec<_> = items.iter().map(Uuid::to_string).collect();
        let request = self.0.get("/api/v1/warranty").query("itemUid", &ids.join(","));
        Ok(request.fetch(cx).await?.body)
    }

    /// Starts the period. Repeating it changes nothing.
    pub async fn start(&self, cx: &Context, item: Uuid) -> Result<(), CallError> {
        self.0.post(path(item)).execute(cx).await
    }

    /// Takes a start back whose outcome is unknown.
    pub async fn undo_start(&self, cx: &Context, item: Uuid) -> Result<(), CallError> {
        self.0.delete(path(item)).compensate().execute(cx).await
    }

    /// Closes it, under a name by which [`WarrantyClient::restore`] can undo that.
    pub async fn close(&self, cx: &Context, item: Uuid, name: &str) -> Result<(), CallError> {
        self.0.delete(path(item)).idempotency_key(name).execute(cx).await
    }

    /// Re-opens it exactly as it was.
    pub async fn restore(
        &self,
        cx: &Context,
        item: Uuid,
        before: &Restore,
    ) -> Result<(), CallError> {
        self.0.post(path(item)).json(before).execute(cx).await
    }

    /// Decides a claim. The same `key` gets the same decision.
    pub async fn claim(
        &self,
        cx: &Context,
        item: Uuid,
        key: &str,
        claim: &StockedClaim,
    ) -> Result<Decided, CallError> {
        let request = self.0.post(format!("{}/warranty", path(item)));
        Ok(request.json(claim).idempotency_key(key).fetch(cx).await?.body)
    }
}

fn path(item: Uuid) -> String {
    format!("/api/v1/warranty/{item}")
}
