//! `/manage/deferred`: the calls that a service makes later, and an operator's hand on them.
//!
//! They are in the service's database: what is shown and done concerns all replicas. What a call
//! needs to know is a user's, so all of it takes a management token, or to be on this machine.

use axum::Json;
use axum::extract::State;
use resilience::deferred::{self, Broker, Deferred, KindSnapshot, OperatorError, Stage};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::Trusted;
use super::rows::{Which, refused, text, value};
use super::view::millis;
use crate::failure::Result;
use crate::health::Status;
use crate::input::Ids;

/// Its routes, with their state.
pub(crate) fn routes(deferred: Deferred) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(retry))
        .routes(routes!(discard))
        .with_state(deferred)
}

/// The deferred calls of a service.
#[derive(Debug, Serialize, ToSchema)]
struct Ledger {
    /// Who carries them: RabbitMQ, or the database alone.
    broker: Status,
    /// How many there are of each kind that are neither done nor discarded.
    kinds: Vec<Depth>,
    /// Those that were asked for, the newest first.
    calls: Vec<Call>,
}

/// How many calls of a kind there are that are neither done nor discarded.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Depth {
    kind: String,
    /// Calls that wait.
    pending: u64,
    /// Calls that the broker has.
    sent: u64,
    /// Calls that are being made.
    running: u64,
    /// Calls that were given up, without those that were discarded.
    parked: u64,
    /// Milliseconds since the oldest that has not ended was accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_ms: Option<u64>,
    /// Milliseconds since the one was due that has been for the longest, of those that are not begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    late_ms: Option<u64>,
}

impl From<KindSnapshot> for Depth {
    fn from(kind: KindSnapshot) -> Self {
        Self {
            kind: kind.kind,
            pending: kind.pending,
            sent: kind.sent,
            running: kind.running,
            parked: kind.parked,
            oldest_ms: kind.oldest.map(millis),
            late_ms: kind.late.map(millis),
        }
    }
}

/// A deferred call.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Call {
    /// Also its idempotency key.
    id: Uuid,
    kind: String,
    /// `pending`, `sent`, `running`, `done` or `parked`.
    #[schema(value_type = String)]
    state: Stage,
    /// How often it was begun.
    attempts: u32,
    /// How many of these count against its limit.
    strikes: u32,
    /// When it is due, or was.
    not_before: String,
    created_at: String,
    /// When the broker took it.
    #[serde(skip_serializing_if = "Option::is_none")]
    sent_at: Option<String>,
    /// When it was last begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
    /// When an operator discarded it.
    #[serde(skip_serializing_if = "Option::is_none")]
    discarded_at: Option<String>,
    /// What went wrong first.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_error_at: Option<String>,
    /// What went wrong last: of a parked one, why it was given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error_at: Option<String>,
}

/// A deferred call with all that is known of it.
#[derive(Debug, Serialize, ToSchema)]
struct Detailed {
    #[serde(flatten)]
    call: Call,
    /// What the call needs to know, as it was deferred.
    payload: Value,
    /// What travels with it: a request's id, a trace.
    context: Value,
}

impl From<deferred::Entry> for Detailed {
    fn from(entry: deferred::Entry) -> Self {
        Self { payload: value(&entry.payload), context: value(&entry.context), call: entry.into() }
    }
}

impl From<deferred::Entry> for Call {
    fn from(entry: deferred::Entry) -> Self {
        Self {
            id: entry.id,
            kind: entry.kind,
            state: entry.stage,
            attempts: entry.attempts,
            strikes: entry.strikes,
            not_before: text(entry.not_before),
            created_at: text(entry.created_at),
            sent_at: entry.sent_at.map(text),
            started_at: entry.started_at.map(text),
            ended_at: entry.ended_at.map(text),
            discarded_at: entry.discarded_at.map(text),
            first_error: entry.first_error,
            first_error_at: entry.first_error_at.map(text),
            last_error: entry.last_error,
            last_error_at: entry.last_error_at.map(text),
        }
    }
}

impl From<Which<Stage>> for deferred::Filter {
    fn from(which: Which<Stage>) -> Self {
        let filter = Self::new().limit(which.limit);
        let filter = which.stage.into_iter().fold(filter, Self::stage);
        which.kind.into_iter().fold(filter, Self::kind)
    }
}

/// How many calls wait, and those that have not ended or are parked: the newest 100, unless
/// something else is asked for. By management token, or where there is none, from this machine only.
#[utoipa::path(
    get, path = "/manage/deferred", tag = "manage",
    params(
        ("state" = Option<String>, Query, pattern = "^(pending|sent|running|done|parked)$",
            description = "`pending`, `sent`, `running`, `done` or `parked`, discarded ones too"),
        ("kind" = Option<String>, Query, pattern = "^[a-z0-9._-]{1,100}$",
            description = "Only calls of this kind"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "Default 100")),
    responses(
        (status = 200, description = "The calls", body = Ledger),
        (status = 400, description = "No such state", body = crate::failure::ErrorBody),
        (status = 403, description = "From another machine, where there are no tokens", body = crate::failure::ErrorBody),
    ),
)]
async fn list(
    _: Trusted,
    State(deferred): State<Deferred>,
    which: Which<Stage>,
) -> Result<Json<Ledger>> {
    let (seen, calls) = tokio::try_join!(deferred.snapshot(), deferred.list(which.into()))?;
    Ok(Json(Ledger {
        broker: seen.broker.into(),
        kinds: seen.kinds.into_iter().map(Depth::from).collect(),
        calls: calls.into_iter().map(Call::from).collect(),
    }))
}

/// One call, with what it needs to know. By management token, or where there is none, from this machine only.
#[utoipa::path(
    get, path = "/manage/deferred/{id}", tag = "manage",
    params(("id" = Uuid, Path, description = "The call")),
    responses(
        (status = 200, description = "The call", body = Detailed),
        (status = 403, description = "From another machine, where there are no tokens", body = crate::failure::ErrorBody),
        (status = 404, description = "No such call", body = crate::failure::ErrorBody),
    ),
)]
async fn show(
    _: Trusted,
    State(deferred): State<Deferred>,
    Ids([id]): Ids<1>,
) -> Result<Json<Detailed>> {
    let found = deferred.get(id).await?;
    Ok(Json(found.ok_or_else(|| refused(OperatorError::Unknown))?.into()))
}

/// Has a parked call made again, or one that waits made now. By management token, or where there is none, from this machine only.
#[utoipa::path(
    post, path = "/manage/deferred/{id}/retry", tag = "manage",
    params(("id" = Uuid, Path, description = "The call")),
    responses(
        (status = 200, description = "It is on its way", body = Detailed),
        (status = 403, description = "From another machine, where there are no tokens", body = crate::failure::ErrorBody),
        (status = 404, description = "No such call", body = crate::failure::ErrorBody),
        (status = 409, description = "`wrong_state`: it is neither parked nor pending",
            body = crate::failure::ErrorBody),
    ),
)]
async fn retry(
    trusted: Trusted,
    State(deferred): State<Deferred>,
    ids: Ids<1>,
) -> Result<Json<Detailed>> {
    deferred.retry(ids.0[0]).await.map_err(refused)?;
    show(trusted, State(deferred), ids).await
}

/// Gives a call up that waits, or marks a parked one as seen to. A saga that it was the rest of is
/// stuck until it is retried. By management token, or where there is none, from this machine only.
#[utoipa::path(
    post, path = "/manage/deferred/{id}/discard", tag = "manage",
    params(("id" = Uuid, Path, description = "The call")),
    responses(
        (status = 200, description = "It is discarded", body = Detailed),
        (status = 403, description = "From another machine, where there are no tokens", body = crate::failure::ErrorBody),
        (status = 404, description = "No such call", body = crate::failure::ErrorBody),
        (status = 409, description = "`wrong_state`: it is being made, or done",
            body = crate::failure::ErrorBody),
    ),
)]
async fn discard(
    trusted: Trusted,
    State(deferred): State<Deferred>,
    ids: Ids<1>,
) -> Result<Json<Detailed>> {
    deferred.discard(ids.0[0]).await.map_err(refused)?;
    show(trusted, State(deferred), ids).await
}

impl From<Broker> for Status {
    fn from(broker: Broker) -> Self {
        match broker {
            Broker::Work => Self::Work,
            Broker::Down => Self::Down,
            Broker::Absent => Self::Absent,
        }
    }
}
