//! `/warehouse`: taking items and giving them back.

use axum::extract::State;
use service::idempotency::{Key, once};
use service::input::{Compensate, Fields, Ids, ItemUids, Pattern};
use service::{Answer, Failure, Result};
use uuid::Uuid;
use warehouse_api::{Item, MODEL, SIZE, Take, Taken};

use crate::App;
use crate::ops::{self, Line};

static MODELS: Pattern = Pattern::new(MODEL);
static SIZES: Pattern = Pattern::new(SIZE);

/// One item.
#[utoipa::path(get, path = "/api/v1/warehouse/{itemUid}", tag = "items",
    params(("itemUid" = Uuid, Path, description = "The item")),
    responses((status = 200, description = "The item", body = Item)))]
pub(super) async fn get(State(app): State<App>, Ids([uid]): Ids<1>) -> Result<Answer> {
    let item = app.db.run(move |conn| ops::get(conn, uid)).await?;
    Answer::ok(&item)
}

/// Up to 100 items at once. Unknown ids are left out.
#[utoipa::path(get, path = "/api/v1/warehouse", tag = "items",
    params(("itemUid" = String, Query,
        pattern = "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}(,[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}){0,99}$",
        description = "Ids, separated by commas; may be repeated")),
    responses((status = 200, description = "Those that are known", body = [Item])))]
pub(super) async fn list(State(app): State<App>, ItemUids(uids): ItemUids) -> Result<Answer> {
    let items = app.db.run(move |conn| ops::list(conn, &uids)).await?;
    Answer::ok(&items)
}

/// Takes an item for an order. Repeating it with the same `orderItemUid` takes one item only.
#[utoipa::path(post, path = "/api/v1/warehouse", tag = "items", request_body = Take,
    responses((status = 200, description = "It is taken", body = Taken)))]
pub(super) async fn take(State(app): State<App>, key: Key, body: Fields) -> Result<Answer> {
    let take = read(body)?;
    app.db
        .run(move |conn| {
            once(conn, &key, &take, |conn| {
                let line = Line {
                    uid: take.order_item_uid.unwrap_or_else(Uuid::new_v4),
                    order: take.order_uid,
                    model: take.model.clone(),
                    size: take.size.clone(),
                };
                // A list of one.
                let taken = ops::reserve(conn, &[line])?;
                Answer::ok(&taken.first().ok_or_else(|| Failure::internal("nothing was taken"))?)
            })
        })
        .await
}

fn read(mut body: Fields) -> Result<Take> {
    let order_uid = body.uuid("orderUid");
    let model = body.text("model", &MODELS);
    let size = body.text("size", &SIZES);
    let order_item_uid = body.optional_uuid("orderItemUid");
    body.finish(order_uid.zip(model).zip(size).map(|((order_uid, model), size)| Take {
        order_uid,
        model,
        size,
        order_item_uid,
    }))
}

/// Gives an item back. Stock goes up once, however often it is repeated.
#[utoipa::path(delete, path = "/api/v1/warehouse/{itemUid}", tag = "items",
    params(
        ("itemUid" = Uuid, Path, description = "The item"),
        ("X-Compensate" = Option<bool>, Header, description =
            "Undoes a take whose outcome is unknown: an unknown id is no error, and stays refused")),
    responses((status = 204, description = "It is back")))]
pub(super) async fn give_back(
    State(app): State<App>,
    key: Key,
    Ids([uid]): Ids<1>,
    Compensate(compensate): Compensate,
) -> Result<Answer> {
    app.db
        .run(move |conn| {
            once(conn, &key, &compensate, |conn| {
                ops::give_back(conn, uid, compensate)?;
                Ok(Answer::no_content())
            })
        })
        .await
}
