//! `/orders`: placing orders, reading them, returning them.

use axum::extract::State;
use order_api::{Order, Place, Placed};
use service::failure::code;
use service::idempotency::{Attempt, Key, leased};
use service::input::{Compensate, Fields, Ids, Page, Pattern};
use service::observe::Caller;
use service::{Answer, Result};
use uuid::Uuid;
use warehouse_api::{MODEL, SIZE};

use crate::sagas::place::NewOrder;
use crate::sagas::{give_back as returning, place as placing, take_back};
use crate::{App, ops};

static MODELS: Pattern = Pattern::new(MODEL);
static SIZES: Pattern = Pattern::new(SIZE);

/// An order of a user.
#[utoipa::path(get, path = "/api/v1/orders/{userUid}/{orderUid}", tag = "orders",
    params(
        ("userUid" = Uuid, Path, description = "The user"),
        ("orderUid" = Uuid, Path, description = "The order")),
    responses((status = 200, description = "The order", body = Order)))]
pub(super) async fn get(State(app): State<App>, Ids([user, uid]): Ids<2>) -> Result<Answer> {
    let order = app.db.run(move |conn| ops::get(conn, user, uid)).await?;
    Answer::ok(&order)
}

/// A user's orders, newest first.
#[utoipa::path(get, path = "/api/v1/orders/{uid}", tag = "orders",
    params(
        ("uid" = Uuid, Path, description = "The user"),
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 100, description = "Default 50"),
        ("offset" = Option<i64>, Query, minimum = 0, maximum = 2_147_483_647,
            description = "Default 0")),
    responses((status = 200, description = "A page of them", body = [Order],
        headers(("X-Total-Count" = i64, description = "How many there are in all")))))]
pub(super) async fn list(
    State(app): State<App>,
    Ids([user]): Ids<1>,
    Page { limit, offset }: Page,
) -> Result<Answer> {
    let (orders, total) = app.db.run(move |conn| ops::list(conn, user, limit, offset)).await?;
    Ok(Answer::ok(&orders)?.with_total(total))
}

/// Places an order: takes the item and starts its warranty, or leaves everything as it was.
#[utoipa::path(post, path = "/api/v1/orders/{uid}", tag = "orders",
    params(("uid" = Uuid, Path, description = "The user")),
    request_body = Place,
    responses((status = 200, description = "It is placed", body = Placed)))]
pub(super) async fn place(
    State(app): State<App>,
    caller: Caller,
    key: Key,
    Ids([user]): Ids<1>,
    body: Fields,
) -> Result<Answer> {
    let place = read(body)?;
    leased(&app.db, key, &place.clone(), async |attempt| {
        let uid = match place.order_uid {
            Some(uid) => {
                placing::run(&app, &caller, &new_order(uid, user, place)).await?;
                uid
            }
            None => place_attempt(&app, &caller, attempt, user, place).await?,
        };
        Answer::ok(&Placed { order_uid: uid })
    })
    .await
}

/// Places an order whose id the caller left to us: the attempt's, so that whoever comes with the same
/// key after a crash, or while it is being rolled back, goes on with the same order.
async fn place_attempt(
    app: &App,
    caller: &Caller,
    mut attempt: Attempt,
    user: Uuid,
    place: Place,
) -> Result<Uuid> {
    let mut order = new_order(attempt.id(), user, place);
    let mut placed = placing::run(app, caller, &order).await;
    if placed.as_ref().is_err_and(|failure| failure.code() == code::ALREADY_UNDONE) {
        // An earlier attempt, which was rolled back meanwhile.
        attempt.renew().await?;
        order.uid = attempt.id();
        placed = placing::run(app, caller, &order).await;
    }
    if placed.as_ref().is_err_and(|failure| failure.code() != code::ROLLED_BACK) {
        attempt.go_on();
    }
    placed.map(|()| order.uid)
}

fn new_order(uid: Uuid, user: Uuid, place: Place) -> NewOrder {
    NewOrder { uid, user, model: place.model, size: place.size }
}

fn read(mut body: Fields) -> Result<Place> {
    let model = body.text("model", &MODELS);
    let size = body.text("size", &SIZES);
    let order_uid = body.optional_uuid("orderUid");
    body.finish(model.zip(size).map(|(model, size)| Place { model, size, order_uid }))
}

/// Closes the warranty of an order and gives its item back.
#[utoipa::path(delete, path = "/api/v1/orders/{uid}", tag = "orders",
    params(
        ("uid" = Uuid, Path, description = "The order"),
        ("X-Compensate" = Option<bool>, Header, description =
            "Undoes a placing whose outcome is unknown: an unknown id is no error, and stays refused")),
    responses((status = 204, description = "It is returned")))]
pub(super) async fn give_back(
    State(app): State<App>,
    caller: Caller,
    key: Key,
    Ids([uid]): Ids<1>,
    Compensate(compensate): Compensate,
) -> Result<Answer> {
    leased(&app.db, key, &compensate, async |_| {
        if compensate {
            take_back::run(&app, &caller, uid).await?;
        } else {
            returning::run(&app, &caller, uid).await?;
        }
        Ok(Answer::no_content())
    })
    .await
}
