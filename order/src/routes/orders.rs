//! `/orders`: placing orders, reading them, returning them.

use axum::extract::State;
use order_api::{Order, Place, Placed};
use service::failure::code;
use service::idempotency::{Attempt, Key, leased};
use service::input::{Compensate, Fields, Ids, Page, Pattern};
use service::observe::Caller;
use service::{Answer, Failure, Result};
use uuid::Uuid;
use warehouse_api::{MODEL, SIZE};

use crate::sagas::place::NewOrder;
use crate::sagas::{give_back as returning, place as placing};
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
        ("offset" = Option<i64>, Query, minimum = 0, description = "Default 0")),
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
                placing::run(&app, &caller, &NewOrder { uid, user, place }).await?;
                uid
            }
            None => place_attempt(&app, &caller, attempt, user, place).await?,
        };
        Answer::ok(&Placed { order_uid: uid })
    })
    .await
}

/// Places an order whose id the caller left to us: the attempt's, so that whoever takes over after a
/// crash goes on with the same order.
async fn place_attempt(
    app: &App,
    caller: &Caller,
    mut attempt: Attempt,
    user: Uuid,
    place: Place,
) -> Result<Uuid> {
    if attempt.is_undoing() {
        clear(app, caller, &mut attempt).await?;
    }
    let mut order = NewOrder { uid: attempt.id(), user, place };
    let mut placed = placing::run(app, caller, &order).await;
    if placed.as_ref().is_err_and(|failure| failure.code() == code::ALREADY_UNDONE) {
        // Left by a crash in the middle of its rollback.
        clear(app, caller, &mut attempt).await?;
        order.uid = attempt.id();
        placed = placing::run(app, caller, &order).await;
    }
    match &placed {
        Err(failure) if failure.code() == code::ROLLBACK_PENDING => {
            undo_later(app, caller, &attempt, failure).await?;
        }
        // Somebody else may have done more under this id than we have.
        Err(_) if attempt.is_taken_over() => clear(app, caller, &mut attempt).await?,
        _ => {}
    }
    placed.map(|()| order.uid)
}

/// Makes sure that an earlier attempt under the same key left nothing, and begins anew.
async fn clear(app: &App, caller: &Caller, attempt: &mut Attempt) -> Result<()> {
    match placing::undo(app, caller, attempt.id()).await {
        Ok(()) => attempt.renew().await,
        Err(failure) => {
            undo_later(app, caller, attempt, &failure).await?;
            Err(failure)
        }
    }
}

/// Keeps the key until the rollback is confirmed, so that nothing is begun anew before that.
async fn undo_later(
    app: &App,
    caller: &Caller,
    attempt: &Attempt,
    failure: &Failure,
) -> Result<()> {
    let waits_for = match failure.dependency() {
        Some(warranty_api::NAME) => warranty_api::NAME,
        _ => warehouse_api::NAME,
    };
    // Before the answer goes out, with which the key would be given back.
    match attempt.begin_undo(waits_for).await {
        // Whoever took over decides.
        Err(lost) if lost.code() == code::IDEMPOTENCY_IN_PROGRESS => return Err(lost),
        // Not noted: it is before the undo, in the background.
        Err(_) | Ok(()) => {}
    }
    let (app, caller) = (app.clone(), caller.clone());
    app.backlog.clone().submit(attempt.undo(waits_for, move |uid| {
        let (app, caller) = (app.clone(), caller.clone());
        async move { Ok(placing::undo(&app, &caller, uid).await?) }
    }));
    Ok(())
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
            placing::undo(&app, &caller, uid).await?;
        } else {
            returning::run(&app, &caller, uid).await?;
        }
        Ok(Answer::no_content())
    })
    .await
}
