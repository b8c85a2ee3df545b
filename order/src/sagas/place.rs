//! Placing an order: take the item → start the warranty → commit.
//!
//! | step | effect | undone by |
//! |---|---|---|
//! | take | Warehouse holds the item for the order | `undo_take` |
//! | start | Warranty knows the item | `undo_start` |
//! | commit | the order exists: the pivot | [`undo`], for a caller that never got the answer |
//!
//! Until the pivot nothing is written here: an order that is being placed can't be seen. Deciding
//! that it will *never* be is a commit too, a tombstone, so that of two attempts with the same id one
//! can't undo what the other has just committed.

use order_api::Place;
use resilience::http::{CallError, Context, Effect};
use resilience::rollback::{Rollback, RolledBack, Undo};
use service::failure::code;
use service::observe::Caller;
use service::{Failure, Result};
use uuid::Uuid;
use warehouse_api::Take;

use crate::models::OrderRow;
use crate::ops::item_of;
use crate::{App, ops, sagas};

/// What is placed, for whom.
#[derive(Clone, Debug)]
pub struct NewOrder {
    /// The order's id, minted by the caller: the same id places one order only.
    pub uid: Uuid,
    /// Who buys.
    pub user: Uuid,
    /// What is wanted.
    pub place: Place,
}

impl NewOrder {
    fn take(&self) -> Take {
        Take {
            order_uid: self.uid,
            model: self.place.model.clone(),
            size: self.place.size.clone(),
            order_item_uid: Some(item_of(self.uid)),
        }
    }
}

/// Places an order, or leaves everything as it was.
///
/// # Errors
/// What Warehouse refuses (404, 409); 422 for an id that is another order; 409 `already_undone`; 503
/// `rolled_back` or `rollback_pending`; 503 `database_unavailable` when nobody knows whether it was
/// committed: repeating it, or undoing it by its id, is safe.
pub async fn run(app: &App, caller: &Caller, order: &NewOrder) -> Result<()> {
    let cx = caller.context();
    caller.check_time()?;
    let (uid, user) = (order.uid, order.user);
    if let Some(placed) = app.db.run(move |conn| Ok(OrderRow::find(conn, uid)?)).await? {
        return repeated(app, &cx, order, &placed).await;
    }
    // A later step that is known to be refused is refused before the first: nobody sees an item
    // go and come back.
    app.warranty.check().map_err(sagas::rolled_back)?;

    let item = item_of(uid);
    let mut rollback = Rollback::new();

    let taken = app.warehouse.take(&cx, &order.take()).await;
    if effect(&taken) {
        rollback.push(undo_take(app, caller, item));
    }
    if let Err(cause) = taken {
        return abort(app, caller, order, rollback, cause).await;
    }

    let started = app.warranty.start(&cx, item).await;
    if effect(&started) {
        rollback.push(undo_start(app, caller, item));
    }
    if let Err(cause) = started {
        return abort(app, caller, order, rollback, cause).await;
    }

    // The pivot.
    let committed = app.db.transaction(move |conn| ops::commit(conn, uid, user)).await;
    if let Err(failure) = &committed {
        // An undo was faster, or the database went away and nobody knows: settled in the background,
        // one way or the other, and for the caller's own undo by the order's id.
        tracing::warn!(order = %uid, %failure, "a purchase was not committed");
        app.backlog.submit(settle(app, caller, order));
    }
    committed
}

/// Whether there is, or may be, something to undo.
fn effect<T>(outcome: &std::result::Result<T, CallError>) -> bool {
    outcome.as_ref().err().is_none_or(|error| error.effect() != Effect::None)
}

/// The id is an order already. That is fine for the same order, and Warehouse knows what was bought.
async fn repeated(app: &App, cx: &Context, order: &NewOrder, placed: &OrderRow) -> Result<()> {
    if placed.user_uid != order.user {
        return Err(ops::another_order(order.uid));
    }
    match app.warehouse.take(cx, &order.take()).await {
        Err(error) if error.code() == Some(code::IDEMPOTENCY_KEY_REUSED) => {
            Err(ops::another_order(order.uid))
        }
        // Whatever else Warehouse says, or can't say now, the order is there, or was.
        _ => Ok(()),
    }
}

/// Undoes what was done, unless the same order was committed meanwhile by a repetition.
async fn abort(
    app: &App,
    caller: &Caller,
    order: &NewOrder,
    rollback: Rollback,
    cause: CallError,
) -> Result<()> {
    let cx = caller.context();
    if rollback.is_empty() {
        return Err(sagas::rolled_back(cause));
    }
    let (uid, user) = (order.uid, order.user);
    match app.db.transaction(move |conn| ops::abort(conn, uid, user)).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(sagas::roll_back(app, &cx, rollback, cause).await),
        Err(failure) if failure.code() == code::IDEMPOTENCY_KEY_REUSED => Err(failure),
        Err(_) => {
            // Without our own tombstone nothing may be undone yet.
            app.backlog.submit(settle(app, caller, order));
            let dependency = cause.dependency().to_owned();
            Err(sagas::pending(&cause, dependency))
        }
    }
}

fn undo_take(app: &App, caller: &Caller, item: Uuid) -> Undo {
    let (warehouse, cx) = (app.warehouse.clone(), caller.unbounded());
    Undo::new(format!("take {item}"), warehouse_api::NAME, move || {
        let (warehouse, cx) = (warehouse.clone(), cx.clone());
        async move { warehouse.undo_take(&cx, item).await }
    })
}

fn undo_start(app: &App, caller: &Caller, item: Uuid) -> Undo {
    let (warranty, cx) = (app.warranty.clone(), caller.unbounded());
    Undo::new(format!("start {item}"), warranty_api::NAME, move || {
        let (warranty, cx) = (warranty.clone(), cx.clone());
        async move { warranty.undo_start(&cx, item).await }
    })
}

fn undos(app: &App, caller: &Caller, uid: Uuid) -> Rollback {
    let mut rollback = Rollback::new();
    rollback.push(undo_take(app, caller, item_of(uid)));
    rollback.push(undo_start(app, caller, item_of(uid)));
    rollback
}

/// For when our own database was away: finds out whether the order was committed, and undoes all of
/// it if not.
fn settle(app: &App, caller: &Caller, order: &NewOrder) -> Undo {
    let (app, caller) = (app.clone(), caller.clone());
    let (uid, user) = (order.uid, order.user);
    Undo::new(format!("settle {uid}"), order_api::NAME, move || {
        let (app, caller) = (app.clone(), caller.clone());
        async move {
            match app.db.transaction(move |conn| ops::abort(conn, uid, user)).await {
                // What fails is in the backlog by itself.
                Ok(false) => drop(undos(&app, &caller, uid).run(&app.backlog).await),
                Ok(true) => {}
                Err(failure) if failure.code() == code::IDEMPOTENCY_KEY_REUSED => {}
                Err(failure) => return Err(failure),
            }
            Ok(())
        }
    })
}

/// Takes back an order whose outcome the caller doesn't know: committed, still being placed, or
/// never seen. Done when everything is as if it had never been.
///
/// # Errors
/// 503 `rollback_pending`: the rest is undone in the background.
pub async fn undo(app: &App, caller: &Caller, uid: Uuid) -> Result<()> {
    app.db.transaction(move |conn| ops::erase(conn, uid)).await?;
    let (rollback, backlog) = (undos(app, caller, uid), app.backlog.clone());
    let limit = sagas::time_left(&caller.context());
    let undone = app.lifecycle.detach_within(limit, async move { rollback.run(&backlog).await });
    let dependency = match undone.await {
        Some(RolledBack::Complete) => return Ok(()),
        Some(RolledBack::Pending { dependency }) => dependency,
        None => warehouse_api::NAME.to_owned(),
    };
    let message = format!("{dependency} can't be reached; what was done is being undone");
    Err(Failure::unavailable(code::ROLLBACK_PENDING, message).with_dependency(dependency))
}
