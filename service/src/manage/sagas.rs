//! `/manage/sagas`: the operations of a service that reach into several systems, and an operator's
//! hand on them.
//!
//! They are in the service's database: what is shown and done concerns all replicas. What a saga
//! needs to know is a user's, so all of it takes a management token, or to be on this machine.

use axum::Json;
use axum::extract::State;
use resilience::deferred::OperatorError;
use resilience::saga::{self, KindSnapshot, SagaEntry, Sagas, Stage, StepEntry};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::Trusted;
use super::rows::{Which, refused, text, value};
use super::view::millis;
use crate::failure::{Failure, Result, code};
use crate::input::Ids;

/// Its routes, with their state.
pub(crate) fn routes(sagas: Sagas) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(retry))
        .with_state(sagas)
}

/// The sagas of a service.
#[derive(Debug, Serialize, ToSchema)]
struct Journal {
    /// How many there are of each kind that have not ended.
    kinds: Vec<OpenSagas>,
    /// Those that were asked for, the newest first.
    sagas: Vec<ShownSaga>,
}

/// How many sagas of a kind there are that have not ended.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct OpenSagas {
    kind: String,
    /// Sagas under way.
    running: u64,
    /// Sagas that are being taken back.
    compensating: u64,
    /// Sagas that can neither be taken back nor be completed, until somebody retries.
    stuck: u64,
    /// Milliseconds since the oldest of these was begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_ms: Option<u64>,
}

impl From<KindSnapshot> for OpenSagas {
    fn from(kind: KindSnapshot) -> Self {
        Self {
            kind: kind.kind,
            running: kind.running,
            compensating: kind.compensating,
            stuck: kind.stuck,
            oldest_ms: kind.oldest.map(millis),
        }
    }
}

/// A saga.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ShownSaga {
    id: Uuid,
    kind: String,
    /// Of those with the same one is open at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// `running`, `compensating`, `stuck`, `committed` or `compensated`.
    #[schema(value_type = String)]
    state: Stage,
    /// Whether there is no way back any more.
    forward: bool,
    begun_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
    /// Why it is or was taken back, or is stuck.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The system at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    dependency: Option<String>,
}

/// A saga with all that is known of it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct WholeSaga {
    #[serde(flatten)]
    saga: ShownSaga,
    /// What it needs to know, as it was begun.
    input: Value,
    /// What it came to.
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<Value>,
    /// What travels with it: a request's id, a trace.
    context: Value,
    /// What it did, in this order.
    steps: Vec<SagaStep>,
}

/// A step of a saga.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SagaStep {
    name: String,
    /// `step`, `read`, `pivot` or `forward`.
    role: String,
    /// `intent`, `done`, `refused` or `unknown`; then `undo_intent`, `undone` or `undo_deferred`.
    state: String,
    begun_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    undone_at: Option<String>,
    /// Why it failed, or its undo did.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    input: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<Value>,
}

impl From<SagaEntry> for ShownSaga {
    fn from(saga: SagaEntry) -> Self {
        Self {
            id: saga.id,
            kind: saga.kind,
            key: saga.key,
            state: saga.stage,
            forward: saga.forward,
            begun_at: text(saga.begun_at),
            ended_at: saga.ended_at.map(text),
            reason: saga.reason,
            dependency: saga.dependency,
        }
    }
}

impl From<SagaEntry> for WholeSaga {
    fn from(mut saga: SagaEntry) -> Self {
        Self {
            input: value(&saga.input),
            output: saga.output.as_deref().map(value),
            context: value(&saga.context),
            steps: std::mem::take(&mut saga.steps).into_iter().map(SagaStep::from).collect(),
            saga: saga.into(),
        }
    }
}

impl From<StepEntry> for SagaStep {
    fn from(step: StepEntry) -> Self {
        Self {
            input: value(&step.input),
            output: step.output.as_deref().map(value),
            name: step.name,
            role: step.role,
            state: step.state,
            begun_at: text(step.begun_at),
            ended_at: step.ended_at.map(text),
            undone_at: step.undone_at.map(text),
            error: step.error,
        }
    }
}

impl From<Which<Stage>> for saga::Filter {
    fn from(which: Which<Stage>) -> Self {
        let filter = Self::new().limit(which.limit);
        let filter = which.stage.into_iter().fold(filter, Self::stage);
        which.kind.into_iter().fold(filter, Self::kind)
    }
}

/// How many sagas there are that have not ended, and these: the newest 100, unless something else is
/// asked for. By management token, or where there is none, from this machine only.
#[utoipa::path(
    get, path = "/manage/sagas", tag = "manage",
    params(
        ("state" = Option<String>, Query, pattern = "^(running|compensating|stuck|committed|compensated)$",
            description = "`running`, `compensating`, `stuck`, `committed` or `compensated`"),
        ("kind" = Option<String>, Query, pattern = "^[a-z0-9._-]{1,100}$",
            description = "Only sagas of this kind"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "Default 100")),
    responses(
        (status = 200, description = "The sagas", body = Journal),
        (status = 400, description = "No such state", body = crate::failure::ErrorBody),
        (status = 403, description = "From another machine, where there are no tokens", body = crate::failure::ErrorBody),
    ),
)]
async fn list(
    _: Trusted,
    State(sagas): State<Sagas>,
    which: Which<Stage>,
) -> Result<Json<Journal>> {
    let (kinds, found) = tokio::try_join!(sagas.snapshot(), sagas.list(which.into()))?;
    Ok(Json(Journal {
        kinds: kinds.into_iter().map(OpenSagas::from).collect(),
        sagas: found.into_iter().map(ShownSaga::from).collect(),
    }))
}

/// One saga, with its steps and what it needs to know. By management token, or where there is none, from this machine only.
#[utoipa::path(
    get, path = "/manage/sagas/{id}", tag = "manage",
    params(("id" = Uuid, Path, description = "The saga")),
    responses(
        (status = 200, description = "The saga", body = WholeSaga),
        (status = 403, description = "From another machine, where there are no tokens", body = crate::failure::ErrorBody),
        (status = 404, description = "No such saga", body = crate::failure::ErrorBody),
    ),
)]
async fn show(
    _: Trusted,
    State(sagas): State<Sagas>,
    Ids([id]): Ids<1>,
) -> Result<Json<WholeSaga>> {
    let unknown = || Failure::not_found(code::NOT_FOUND, "there is no such saga");
    Ok(Json(sagas.get(id).await?.ok_or_else(unknown)?.into()))
}

/// Has everything repeated that was given up of a saga, discarded or not, and at once what waits.
/// By management token, or where there is none, from this machine only.
#[utoipa::path(
    post, path = "/manage/sagas/{id}/retry", tag = "manage",
    params(("id" = Uuid, Path, description = "The saga")),
    responses(
        (status = 200, description = "It is on its way", body = WholeSaga),
        (status = 403, description = "From another machine, where there are no tokens", body = crate::failure::ErrorBody),
        (status = 404, description = "No such saga, or nothing of it is left to be repeated",
            body = crate::failure::ErrorBody),
        (status = 409, description = "`wrong_state`: what is left of it is being made",
            body = crate::failure::ErrorBody),
    ),
)]
async fn retry(
    trusted: Trusted,
    State(sagas): State<Sagas>,
    ids: Ids<1>,
) -> Result<Json<WholeSaga>> {
    sagas.retry(ids.0[0]).await.map_err(|error| match error {
        OperatorError::Unknown => {
            let message = "there is no such saga, or nothing of it is left to be repeated";
            Failure::not_found(code::NOT_FOUND, message)
        }
        error => refused(error),
    })?;
    show(trusted, State(sagas), ids).await
}
