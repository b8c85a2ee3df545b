//! Claims on a warranty.
//!
//! A claim is accepted with a row in `claims`, in the same transaction as the deferred call that will
//! get it decided. That is tried at once; when it can't be done now the user gets 202, and the claim
//! is decided when the system is back. The claim's id is its key on the whole way to Warranty, so that
//! it is decided once, whatever was lost between.
//!
//! | the first attempt | the user's answer | the claim |
//! |---|---|---|
//! | decided | 200 | `DECIDED` |
//! | refused | the refusal | there is none |
//! | anything else, or none while the kind's breaker is open | 202 | `QUEUED`, then `DECIDED`, or `FAILED` with the refusal |
//! | Order can't say whose order it is | 503 | there is none |
//!
//! Under an `Idempotency-Key` the id follows from the key: who repeats it is told what has become of
//! the claim by then.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::{PgConnection, QueryResult};
use order_api::OrderClient;
use resilience::Backoff;
use resilience::deadline::Deadline;
use resilience::deferred::{Attempt, Handler, HandlerError, Settings, SubmitError, Submitted};
use serde::{Deserialize, Serialize};
use service::failure::code;
use service::observe::Caller;
use service::{Answer, Failure, Result, deferred, idempotency};
use utoipa::ToSchema;
use uuid::Uuid;
use warranty_api::{Claim, Decided, Decision, Status};

use crate::App;
use crate::degrade::Known;
use crate::models::ClaimRow;

/// How long one attempt may take.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);

/// How long a claim is idle after a crash. Shorter than the lease of its key, so that whoever comes
/// with that again finds nobody else at it.
const LEASE: Duration = Duration::from_secs(3);

/// What it takes to write down how the first attempt ended, and to answer.
const MARGIN: Duration = Duration::from_millis(100);

/// What the user is told of a claim that was given up for anything but a refusal.
const GIVEN_UP: &str = "the claim could not be decided and was given up";

/// The answer to a claim.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Claimed {
    order_uid: Uuid,
    claim_uid: Uuid,
    /// When the warranty began.
    warranty_date: DateTime<Utc>,
    #[schema(value_type = Decision)]
    decision: String,
}

/// The answer to a claim that will be decided later.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Queued {
    order_uid: Uuid,
    claim_uid: Uuid,
    /// `QUEUED`.
    status: ClaimStatus,
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
    /// Why it was made.
    reason: String,
    decision: Option<String>,
    /// When the warranty began.
    warranty_date: Option<DateTime<Utc>>,
    requested_at: DateTime<Utc>,
    decided_at: Option<DateTime<Utc>>,
    /// Why it could not be decided, where it could not.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
}

impl From<ClaimRow> for ClaimState {
    fn from(row: ClaimRow) -> Self {
        Self {
            claim_uid: row.claim_uid,
            status: status(&row),
            failure: row.failure.as_deref().map(|text| failure(text).message().to_owned()),
            reason: row.reason,
            decision: row.decision,
            warranty_date: row.warranty_date,
            requested_at: row.requested_at,
            decided_at: row.decided_at,
        }
    }
}

fn status(row: &ClaimRow) -> ClaimStatus {
    match row.status.as_str() {
        "QUEUED" => ClaimStatus::Queued,
        "DECIDED" => ClaimStatus::Decided,
        _ => ClaimStatus::Failed,
    }
}

/// The refusal that was written down; of anything else the user is told no more than that.
fn failure(text: &str) -> Failure {
    Failure::read(text).unwrap_or_else(|| {
        // Nobody knows whether Warranty has decided: an operator may have it tried again.
        Failure::unavailable(code::OUTCOME_UNKNOWN, GIVEN_UP)
    })
}

/// What it takes to have a claim decided.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Payload {
    order: Uuid,
    reason: String,
    /// Whose warranty it is, where that was looked up.
    item: Option<Uuid>,
}

/// Has claims decided.
#[derive(Clone, Debug)]
pub(crate) struct Claims {
    order: OrderClient,
    known: Arc<Known>,
}

impl Claims {
    pub(crate) fn new(order: OrderClient, known: Arc<Known>) -> Self {
        Self { order, known }
    }

    /// What fails is tried again soon: it is the breaker that spares a system that is away.
    pub(crate) fn settings() -> Settings {
        let waits = Backoff::new()
            .initial(Duration::from_millis(250))
            .max_interval(Duration::from_secs(10));
        Settings::new().attempts(20).backoff(waits).timeout(TIMEOUT).lease(LEASE)
    }
}

impl Handler for Claims {
    const KIND: &'static str = "claim";
    type Payload = Payload;
    type Output = Decided;

    async fn run(&self, attempt: Attempt<Payload>) -> Result<Decided, HandlerError> {
        let (cx, key) = (deferred::context(&attempt), attempt.id.to_string());
        let Payload { order, reason, item } = attempt.payload;
        let decided = self.order.claim(&cx, order, &key, &Claim { reason }).await;
        let decided = decided.map_err(|error| deferred::failed(&error))?;
        if let (Some(item), true) = (item, decided.decision != Decision::Refused) {
            self.known.warranty_is(item, Status::UseWarranty);
        }
        Ok(decided)
    }

    fn done(&self, conn: &mut PgConnection, id: Uuid, decided: &Decided) -> QueryResult<()> {
        ClaimRow::decided(conn, id, name(decided.decision), decided.warranty_date)
    }

    fn parked(&self, conn: &mut PgConnection, id: Uuid, reason: &str) -> QueryResult<()> {
        // What isn't a refusal is for operators: the ledger has it.
        ClaimRow::failed(conn, id, if Failure::read(reason).is_some() { reason } else { GIVEN_UP })
    }

    fn resumed(&self, conn: &mut PgConnection, id: Uuid) -> QueryResult<()> {
        ClaimRow::requeued(conn, id)
    }
}

/// The id of a claim. It follows from the client's key, so that a claim whose answer was lost is
/// found when it is repeated; without a key each is a new one.
pub fn id(order: Uuid, key: Option<&str>) -> Uuid {
    key.map_or_else(Uuid::new_v4, |key| Uuid::new_v5(&order, key.as_bytes()))
}

/// Has a claim on a user's order decided, now or later.
///
/// # Errors
/// 404 `order_not_found` or `warranty_not_found`; 503 when Order can't tell whose the order is.
pub async fn run(
    app: &App,
    caller: &Caller,
    attempt: &idempotency::Attempt,
    uid: Uuid,
    user: Uuid,
    order: Uuid,
    claim: &Claim,
) -> Result<Answer> {
    let known = if attempt.has_key() {
        app.db.run(move |conn| Ok(ClaimRow::find(conn, user, uid)?)).await?
    } else {
        None
    };
    let item = match known {
        Some(row) if row.reason != claim.reason => {
            return Err(Failure::key_reused("this Idempotency-Key was used for another claim"));
        }
        // A crash may have ended the first attempt: this one goes on with it.
        Some(row) if attempt.is_taken_over() && status(&row) == ClaimStatus::Queued => None,
        Some(row) => return answer(attempt, row),
        None => Some(app.order.get(&caller.context(), user, order).await?.item_uid),
    };
    caller.check_time()?;
    let row = ClaimRow::queued(uid, order, user, &claim.reason);
    let payload = Payload { order, reason: claim.reason.clone(), item };
    let call = deferred::call::<Claims>(caller, uid, &payload)?;
    let first =
        caller.deadline().map(|end| Deadline::after(end.remaining().saturating_sub(MARGIN)));
    let submitted = app.deferred.submit::<Claims, Failure>(
        call,
        first,
        move |conn| Ok(row.keep(conn)?),
        move |conn, _| ClaimRow::forget(conn, uid),
    );
    let left = caller.deadline().map_or(Duration::MAX, Deadline::remaining);
    let Ok(submitted) = tokio::time::timeout(left, submitted).await else {
        // The database hangs. The attempt may go on for a while; nobody else begins before its end.
        attempt.leave();
        let message = "the database gives no answer; repeat the request later";
        return Err(Failure::unavailable(code::DATABASE_UNAVAILABLE, message));
    };
    match submitted {
        Ok(Submitted::Done(decided)) => Answer::ok(&Claimed {
            order_uid: order,
            claim_uid: uid,
            warranty_date: decided.warranty_date,
            decision: name(decided.decision).to_owned(),
        }),
        Ok(Submitted::Refused(error)) => Err(failure(error.reason())),
        Ok(Submitted::Deferred) => queued(attempt, user, order, uid),
        Ok(Submitted::Known(_)) => {
            let row = app.db.run(move |conn| Ok(ClaimRow::find(conn, user, uid)?)).await?;
            row.map_or_else(|| queued(attempt, user, order, uid), |row| answer(attempt, row))
        }
        Err(SubmitError::Prepare(failure)) => Err(failure),
        Err(SubmitError::Database(error)) => Err(error.into()),
    }
}

/// What has become of a claim. It stands in its row, for longer than any key is remembered.
fn answer(attempt: &idempotency::Attempt, row: ClaimRow) -> Result<Answer> {
    attempt.keep_elsewhere();
    match (status(&row), row.decision, row.warranty_date) {
        (ClaimStatus::Decided, Some(decision), Some(warranty_date)) => Answer::ok(&Claimed {
            order_uid: row.order_uid,
            claim_uid: row.claim_uid,
            warranty_date,
            decision,
        }),
        (ClaimStatus::Failed, ..) => Err(failure(row.failure.as_deref().unwrap_or_default())),
        _ => queued(attempt, row.user_uid, row.order_uid, row.claim_uid),
    }
}

/// 202: it is written down, and will be decided.
fn queued(
    attempt: &idempotency::Attempt,
    user: Uuid,
    order_uid: Uuid,
    claim_uid: Uuid,
) -> Result<Answer> {
    attempt.keep_elsewhere();
    let location = format!("/api/v1/store/{user}/{order_uid}/warranty");
    Answer::accepted(&Queued { order_uid, claim_uid, status: ClaimStatus::Queued }, location)
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
