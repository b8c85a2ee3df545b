//! `/orders/{orderUid}/warranty`: claims.

use axum::extract::State;
use service::idempotency::{Key, leased};
use service::input::{Fields, Ids, Pattern};
use service::observe::Caller;
use service::{Answer, Result};
use warranty_api::{Claim, Decided, REASON};

use crate::{App, ops};

static REASONS: Pattern = Pattern::new(REASON);

/// Claims on the warranty of an order.
#[utoipa::path(post, path = "/api/v1/orders/{uid}/warranty", tag = "orders",
    params(("uid" = Uuid, Path, description = "The order")),
    request_body = Claim,
    responses((status = 200, description = "What was decided", body = Decided)))]
pub(super) async fn claim(
    State(app): State<App>,
    caller: Caller,
    key: Key,
    Ids([uid]): Ids<1>,
    mut body: Fields,
) -> Result<Answer> {
    let reason = body.text("reason", &REASONS);
    let claim = body.finish(reason.map(|reason| Claim { reason }))?;
    let name = key.as_str().map(str::to_owned);
    leased(&app.db, key, &claim.clone(), async |attempt| {
        // The caller's name for the claim goes on to Warranty, so that it is decided once.
        let name = name.unwrap_or_else(|| attempt.id().to_string());
        let cx = caller.context();
        Answer::ok(&ops::claim(&app.db, &app.warehouse, &cx, uid, &name, &claim).await?)
    })
    .await
}
