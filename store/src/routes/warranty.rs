//! `/store/{userUid}/{orderUid}/warranty`: claims.

use axum::extract::State;
use service::idempotency::{Key, leased};
use service::input::{Fields, Ids, Pattern};
use service::observe::Caller;
use service::{Answer, Result};
use warranty_api::{Claim, REASON};

use crate::claims::{ClaimState, Claimed};
use crate::{App, claims};

static REASONS: Pattern = Pattern::new(REASON);

/// Claims on the warranty of an order. Without an `Idempotency-Key` each is a new claim.
#[utoipa::path(post, path = "/api/v1/store/{userUid}/{orderUid}/warranty", tag = "store",
    params(
        ("userUid" = Uuid, Path, description = "The user"),
        ("orderUid" = Uuid, Path, description = "The order")),
    request_body = Claim,
    responses((status = 200, description = "What was decided", body = Claimed)))]
pub(super) async fn claim(
    State(app): State<App>,
    caller: Caller,
    key: Key,
    Ids([user, order]): Ids<2>,
    mut body: Fields,
) -> Result<Answer> {
    let reason = body.text("reason", &REASONS);
    let claim = body.finish(reason.map(|reason| Claim { reason }))?;
    app.check_user(user).await?;
    let uid = claims::id(order, key.as_str());
    leased(&app.db, key, &claim.clone(), async |_| {
        Answer::ok(&claims::run(&app, &caller, uid, user, order, &claim).await?)
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
    State(app): State<App>,
    caller: Caller,
    Ids([user, order]): Ids<2>,
) -> Result<Answer> {
    app.check_user(user).await?;
    Answer::ok(&claims::list(&app, &caller, user, order).await?)
}
