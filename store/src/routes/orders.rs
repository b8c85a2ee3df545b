//! `/store/{userUid}/orders`: what a user has bought.

use std::sync::Arc;

use axum::extract::State;
use order_api::ORDER_NOT_FOUND;
use service::input::{Ids, Page};
use service::observe::Caller;
use service::{Answer, Failure, Result};

use crate::degrade::Element;
use crate::{App, degrade};

/// A user's orders, newest first.
#[utoipa::path(get, path = "/api/v1/store/{userUid}/orders", tag = "store",
    params(
        ("userUid" = Uuid, Path, description = "The user"),
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 100, description = "Default 50"),
        ("offset" = Option<i64>, Query, minimum = 0, maximum = 2_147_483_647,
            description = "Default 0")),
    responses((status = 200, description = "A page of them", body = [Element],
        headers(("X-Total-Count" = i64, description = "How many there are in all")))))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Ids([user]): Ids<1>,
    Page { limit, offset }: Page,
) -> Result<Answer> {
    app.check_user(user).await?;
    let (elements, total) = degrade::list(&app, &caller.context(), user, limit, offset).await?;
    Ok(Answer::ok(&elements)?.with_total(total))
}

/// One order of a user.
#[utoipa::path(get, path = "/api/v1/store/{userUid}/{orderUid}", tag = "store",
    params(
        ("userUid" = Uuid, Path, description = "The user"),
        ("orderUid" = Uuid, Path, description = "The order")),
    responses((status = 200, description = "The order", body = Element)))]
pub(super) async fn get(
    State(app): State<Arc<App>>,
    caller: Caller,
    Ids([user, order]): Ids<2>,
) -> Result<Answer> {
    app.check_user(user).await?;
    let found = degrade::get(&app, &caller.context(), user, order).await?;
    let missing = || Failure::not_found(ORDER_NOT_FOUND, format!("there is no order {order}"));
    Answer::ok(&found.ok_or_else(missing)?)
}
