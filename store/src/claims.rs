//! Claims on a warranty.
//!
//! The claim's id is its key on the whole way to Warranty, so that it is decided once. What can't be
//! decided now is not accepted yet: 503, and repeating it under the same `Idempotency-Key` is the
//! same claim.

use chrono::{DateTime, Utc};
use resilience::rollback::Undo;
use serde::Serialize;
use service::Result;
use service::observe::Caller;
use utoipa::ToSchema;
use uuid::Uuid;
use warranty_api::{Claim, Decision, Status};

use crate::App;
use crate::config::NAME;
use crate::models::ClaimRow;

/// The answer to a claim.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Claimed {
    order_uid: Uuid,
    claim_uid: Uuid,
    /// When the warranty began.
    warranty_date: DateTime<Utc>,
    decision: Decision,
}

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ClaimStatus {
    /// It will be decided.
    Queued,
    /// It is decided.
    Decided,
    /// It could not be decided.
    Failed,
}

/// A claim that was accepted.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimState {
    claim_uid: Uuid,
    status: ClaimStatus,
    reason: String,
    decision: Option<String>,
    /// When the warranty began.
    warranty_date: Option<DateTime<Utc>>,
    requested_at: DateTime<Utc>,
    decided_at: Option<DateTime<Utc>>,
}

impl From<ClaimRow> for ClaimState {
    fn from(row: ClaimRow) -> Self {
        Self {
            claim_uid: row.claim_uid,
            status: match row.status.as_str() {
                "QUEUED" => ClaimStatus::Queued,
                "DECIDED" => ClaimStatus::Decided,
                _ => ClaimStatus::Failed,
            },
            reason: row.reason,
            decision: row.decision,
            warranty_date: row.warranty_date,
            requested_at: row.requested_at,
            decided_at: row.decided_at,
        }
    }
}

/// The id of a claim. It follows from the client's key, so that a claim whose answer was lost is
/// found decided when it is repeated; without a key each is a new one.
pub fn id(order: Uuid, key: Option<&str>) -> Uuid {
    key.map_or_else(Uuid::new_v4, |key| Uuid::new_v5(&order, key.as_bytes()))
}

/// Has a claim on a user's order decided.
///
/// # Errors
/// 404 `order_not_found` or `warranty_not_found`; 503 when any system on the way can't answer.
pub async fn run(
    app: &App,
    caller: &Caller,
    uid: Uuid,
    user: Uuid,
    order: Uuid,
    claim: &Claim,
) -> Result<Claimed> {
    let (cx, requested_at) = (caller.context(), Utc::now());
    let item = app.order.get(&cx, user, order).await?.item_uid;
    let decided = app.order.claim(&cx, order, &uid.to_string(), claim).await?;
    if decided.decision != Decision::Refused {
        app.known.warranty_is(item, Status::UseWarranty);
    }
    let row = ClaimRow {
        claim_uid: uid,
        order_uid: order,
        user_uid: user,
        status: "DECIDED".to_owned(),
        reason: claim.reason.clone(),
        decision: Some(name(decided.decision).to_owned()),
        warranty_date: Some(decided.warranty_date),
        requested_at,
        decided_at: Some(Utc::now()),
    };
    keep(app, row).await;
    Ok(Claimed {
        order_uid: order,
        claim_uid: uid,
        warranty_date: decided.warranty_date,
        decision: decided.decision,
    })
}

/// Keeps a claim that is decided, now or as soon as the database is back: the user is told in any
/// case.
async fn keep(app: &App, row: ClaimRow) {
    let (db, uid) = (app.db.clone(), row.claim_uid);
    let (again, kept) = (db.clone(), row.clone());
    if db.run(move |conn| Ok(row.keep(conn)?)).await.is_err() {
        // Not an undo, but like one: to be repeated until it is done.
        app.backlog.submit(Undo::new(format!("keep {uid}"), NAME, move || {
            let (db, row) = (again.clone(), kept.clone());
            async move { db.run(move |conn| Ok(row.keep(conn)?)).await }
        }));
    }
}

fn name(decision: Decision) -> &'static str {
    match decision {
        Decision::Return => "RETURN",
        Decision::Fixing => "FIXING",
        Decision::Refused => "REFUSED",
    }
}

/// The claims on a user's order, newest first.
///
/// # Errors
/// 404 `order_not_found`; 503 when there is no claim and Order can't tell whose the order is.
pub async fn list(app: &App, caller: &Caller, user: Uuid, order: Uuid) -> Result<Vec<ClaimState>> {
    let rows = app.db.run(move |conn| Ok(ClaimRow::list(conn, user, order)?)).await?;
    if rows.is_empty() {
        app.order.get(&caller.context(), user, order).await?;
    }
    Ok(rows.into_iter().map(ClaimState::from).collect())
}
