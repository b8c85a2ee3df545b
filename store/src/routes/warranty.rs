//! `/store/{userUid}/{orderUid}/warranty`: claims.

use std::sync::Arc;

use axum::extract::State;
use service::failure::ErrorBody;
use service::idempotency::{Key, leased};
use service::input::{Fields, Ids, Pattern};
use service::observe::Caller;
use service::{Answer, Result};
use warranty_api::{Claim, REASON};

use crate::claims::{ClaimState, Claimed, Queued};
use crate::{App, claims};

static REASONS: Pattern = Pattern::new(REASON);

/// Claims on the warranty of an order. Without an `Idempotency-Key` each is a new claim; with one,
/// repeating it tells what has become of the claim by then, however late.
#[utoipa::path(post, path = "/api/v1/store/{userUid}/{orderUid}/warranty", tag = "store",
    params(
        ("userUid" = Uuid, Path, description = "The user"),
        ("orderUid" = Uuid, Path, description = "The order")),
    request_body = Claim,
    responses(
        (status = 200, description = "What was decided", body = Claimed),
        (status = 202, description = "It will be decided when the systems that it takes are back",
            body = Queued,
            headers(("Location" = String, description = "Where to see what has become of it"))),
        (status = 404, description = "Unknown, or refused: also on repeating a claim that was \
            refused after it had been queued", body = ErrorBody),
        (status = 503, description = "Nobody knows whose order it is: nothing is queued. \
            `outcome_unknown` on repeating a claim that was given up", body = ErrorBody)))]
pub(super) async fn claim(
    State(app): State<Arc<App>>,
    caller: Caller,
    key: Key,
    Ids([user, order]): Ids<2>,
    mut body: Fields,
) -> Result<Answer> {
    let reason = body.text("reason", &REASONS);
    let claim = body.finish(reason.map(|reason| Claim { reason }))?;
    app.check_user(user).await?;
    let uid = claims::id(order, key.as_str());
    leased(&app.db, key, &claim.clone(), async |attempt| {
        claims::run(&app, &caller, &attempt, uid, user, order, &claim).await
    })
    .await
}

/// The claims on an order, newest first.
#[utoipa::path(get, path = "/api/v1/store/{userUid}/{orderUid}/warranty", tag = "store",
    params(
        ("userUid" = Uuid, Path, description = "The user"),
        ("orderUid" = Uuid, Path, description = "The order")),
    responses((status = 200, description = "All that were accepted", body = [ClaimState])))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Ids([user, order]): Ids<2>,
) -> Result<Answer> {
    app.check_user(user).await?;
    Answer::ok(&claims::list(&app, &caller, user, order).await?)
}
