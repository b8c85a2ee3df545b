//! `/store/{userUid}/purchase` and its refund.

use std::sync::Arc;

use axum::extract::State;
use order_api::Placed;
use serde::Serialize;
use service::idempotency::{Key, leased};
use service::input::{Fields, Ids, Pattern};
use service::observe::Caller;
use service::{Answer, Result};
use utoipa::ToSchema;
use warehouse_api::{MODEL, SIZE};

use crate::{App, purchase as purchasing, refund as refunding};

static MODELS: Pattern = Pattern::new(MODEL);
static SIZES: Pattern = Pattern::new(SIZE);

/// What a user wants to buy.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Wish {
    /// What.
    #[schema(pattern = r"^[\p{L}\p{N}][\p{L}\p{N} .,:+/()'&_-]{0,254}$")]
    model: String,
    /// In which size.
    #[schema(pattern = "^[A-Z0-9]{1,8}$")]
    size: String,
}

/// Buys one item, or leaves everything as it was.
#[utoipa::path(post, path = "/api/v1/store/{userUid}/purchase", tag = "store",
    params(("userUid" = Uuid, Path, description = "The user")),
    request_body = Wish,
    responses((status = 201, description = "It is bought", body = Placed,
        headers(("Location" = String, description = "The order")))))]
pub(super) async fn purchase(
    State(app): State<Arc<App>>,
    caller: Caller,
    key: Key,
    Ids([user]): Ids<1>,
    mut body: Fields,
) -> Result<Answer> {
    let (model, size) = (body.text("model", &MODELS), body.text("size", &SIZES));
    let wish = body.finish(model.zip(size).map(|(model, size)| Wish { model, size }))?;
    app.check_user(user).await?;
    leased(&app.db, key, &wish.clone(), async |attempt| {
        let purchase = purchasing::Purchase { user, model: wish.model, size: wish.size };
        purchasing::run(&app, &caller, attempt, &purchase).await
    })
    .await
}

/// Refunds an order. Repeating it changes nothing.
#[utoipa::path(delete, path = "/api/v1/store/{userUid}/{orderUid}/refund", tag = "store",
    params(
        ("userUid" = Uuid, Path, description = "The user"),
        ("orderUid" = Uuid, Path, description = "The order")),
    responses((status = 204, description = "It is refunded")))]
pub(super) async fn refund(
    State(app): State<Arc<App>>,
    caller: Caller,
    key: Key,
    Ids([user, order]): Ids<2>,
) -> Result<Answer> {
    app.check_user(user).await?;
    leased(&app.db, key, &(), async |_| {
        refunding::run(&app, &caller, user, order).await?;
        Ok(Answer::no_content())
    })
    .await
}
