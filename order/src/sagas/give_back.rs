//! Returning an order: close the warranty → give the item back → mark the order.
//!
//! | step | effect | undone by |
//! |---|---|---|
//! | close | Warranty closes the item's | `restore`, exactly as it was, which also disarms a late close |
//! | give back | Warehouse has the item, and may sell it again at once: the pivot | nothing |
//! | mark | the order is `CANCELED` | nothing |
//!
//! The pivot's definite *no* re-opens the warranty. *Yes* and *unknown* go forward only. One return
//! runs at a time for an order: two would close and re-open across each other. Its row is also where
//! the next one finds what a crash left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use diesel::{PgConnection, QueryResult};
use order_api::REFUND_PENDING;
use resilience::http::{CallError, Effect};
use resilience::rollback::{Rollback, Undo, UndoError};
use service::failure::code;
use service::observe::Caller;
use service::{Failure, Result, tombstone};
use uuid::Uuid;
use warranty_api::{Restore, WARRANTY_NOT_FOUND};

use crate::models::{Claimed, OrderRow, RunningReturn};
use crate::{App, ops, sagas};

/// How often somebody else's return is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

enum Begun {
    /// It is refunded already.
    Done,
    Ours {
        item: Uuid,
        run: RunningReturn,
    },
    Theirs {
        forward: bool,
    },
}

/// Closes the warranty and gives the item back. Repeating it changes nothing.
///
/// # Errors
/// 404 `order_not_found`; 503 `rolled_back` or `rollback_pending` when a system can't be reached; 503
/// `refund_pending` once there is no way back; 409 `idempotency_in_progress` while another return of
/// the order runs.
pub async fn run(app: &App, caller: &Caller, uid: Uuid) -> Result<()> {
    let cx = caller.context();
    caller.check_time()?;
    let lease = app.db.lease();
    let (item, mut run) = loop {
        match app.db.transaction(move |conn| begin(conn, uid, lease)).await? {
            Begun::Done => return Ok(()),
            Begun::Ours { item, run } => break (item, run),
            Begun::Theirs { forward } => {
                still_running(app, forward, sagas::time_left(&cx).is_zero())?;
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
    };
    if run.forward {
        // A crash left it behind its pivot.
        return forward(app, caller, item, run).await;
    }

    // A pivot that is known to be refused is refused before the warranty is closed.
    if let Err(cause) = app.warehouse.check() {
        return Err(give_up(app, caller, item, run, cause).await);
    }
    if let Some(before) = run.restore() {
        // A crash left it before its pivot: that attempt is undone first.
        if let Err(cause) = unless_refused(app.warranty.restore(&cx, item, &before).await) {
            return Err(give_up(app, caller, item, run, cause).await);
        }
        run = noted(app, caller, item, run, RunningReturn::renew).await?;
    }

    match app.warranty.get(&cx, item).await {
        Ok(warranty) => {
            // Its undo is written down before the call.
            let before = Restore {
                status: warranty.status,
                warranty_date: warranty.warranty_date,
                comment: warranty.comment,
                closed_by: None,
            };
            run = noted(app, caller, item, run, move |run, conn| run.note_before(conn, &before))
                .await?;
        }
        Err(error) if error.code() == Some(WARRANTY_NOT_FOUND) => {}
        Err(cause) => return Err(give_up(app, caller, item, run, cause).await),
    }
    if run.restore().is_some()
        && let Err(cause) = unless_refused(app.warranty.close(&cx, item, &run.close_name).await)
    {
        return Err(give_up(app, caller, item, run, cause).await);
    }

    run = noted(app, caller, item, run, |run, conn| run.go_forward(conn)).await?;

    // The pivot.
    match app.warehouse.give_back(&cx, item).await {
        Ok(()) => match mark(app, uid).await {
            Ok(()) => Ok(()),
            Err(_) => forward(app, caller, item, run).await,
        },
        Err(cause) if cause.effect() == Effect::None => {
            Err(give_up(app, caller, item, run, cause).await)
        }
        Err(_) => forward(app, caller, item, run).await,
    }
}

fn begin(conn: &mut PgConnection, uid: Uuid, lease: Duration) -> Result<Begun> {
    tombstone::lock(conn, uid)?;
    let row = OrderRow::find(conn, uid)?.ok_or_else(|| ops::unknown_order(uid))?;
    if row.is_canceled() {
        return Ok(Begun::Done);
    }
    Ok(match RunningReturn::claim(conn, uid, lease)? {
        Claimed::Ours(run) => Begun::Ours { item: row.item_uid, run },
        Claimed::Theirs { forward } => Begun::Theirs { forward },
    })
}

/// Whether somebody else's return is worth waiting for: not when it waits for a system itself, and
/// not when there is no time left.
fn still_running(app: &App, forward: bool, late: bool) -> Result<()> {
    let (waits_for, pending) = if forward {
        (app.warehouse.check(), refund_pending())
    } else {
        let message = "the warranty is being re-opened after a refund that failed";
        let pending = Failure::unavailable(code::ROLLBACK_PENDING, message);
        (app.warranty.check(), pending.with_dependency(warranty_api::NAME))
    };
    match waits_for {
        Err(cause) => Err(pending.with_retry_after(cause.retry_after())),
        Ok(()) if late && forward => Err(pending),
        Ok(()) if late => Err(in_progress()),
        Ok(()) => Ok(()),
    }
}

/// Writes to the return's row. Where somebody else took over, they decide; where the database went
/// away, what was done is undone as soon as it is back, as nothing was asked of Warehouse yet.
async fn noted(
    app: &App,
    caller: &Caller,
    item: Uuid,
    run: RunningReturn,
    write: impl FnOnce(&mut RunningReturn, &mut PgConnection) -> QueryResult<bool> + Send + 'static,
) -> Result<RunningReturn> {
    let mut written = run.clone();
    let outcome = app
        .db
        .run(move |conn| if write(&mut written, conn)? { Ok(written) } else { Err(in_progress()) })
        .await;
    if outcome.as_ref().is_err_and(|failure| failure.code() != code::IDEMPOTENCY_IN_PROGRESS) {
        app.backlog.submit(undo(app, caller, item, run, &Arc::default()));
    }
    outcome
}

/// A warranty that Warranty refuses to close or to re-open, as it doesn't know it or its start was
/// undone, needs neither.
fn unless_refused(outcome: Result<(), CallError>) -> Result<(), CallError> {
    outcome.or_else(|error| if error.is_refused() { Ok(()) } else { Err(error) })
}

/// Re-opens the warranty if it was, or may have been, closed, and ends the return: only then may
/// the next one begin.
async fn give_up(
    app: &App,
    caller: &Caller,
    item: Uuid,
    run: RunningReturn,
    cause: CallError,
) -> Failure {
    let overtaken = Arc::new(AtomicBool::new(false));
    let mut rollback = Rollback::new();
    rollback.push(undo(app, caller, item, run, &overtaken));
    let failure = sagas::roll_back(app, &caller.context(), rollback, cause).await;
    // Whoever took over decides.
    if overtaken.load(Ordering::Acquire) { in_progress() } else { failure }
}

fn undo(
    app: &App,
    caller: &Caller,
    item: Uuid,
    run: RunningReturn,
    overtaken: &Arc<AtomicBool>,
) -> Undo {
    let (app, cx, overtaken) = (app.clone(), caller.unbounded(), Arc::clone(overtaken));
    Undo::new(run.name(), warranty_api::NAME, move || {
        let (app, cx, run) = (app.clone(), cx.clone(), run.clone());
        let overtaken = Arc::clone(&overtaken);
        async move {
            let noted = run.clone();
            if !app.db.run(move |conn| Ok(noted.go_back(conn)?)).await? {
                overtaken.store(true, Ordering::Release);
                return Ok(());
            }
            if let Some(before) = run.restore() {
                unless_refused(app.warranty.restore(&cx, item, &before).await)
                    .map_err(|error| UndoError::from(error).without_retry_after())?;
            }
            app.db.run(move |conn| Ok(run.end(conn)?)).await?;
            Ok::<_, UndoError>(())
        }
    })
}

/// There is no way back: the item is given back, and the order marked, however long that takes.
async fn forward(app: &App, caller: &Caller, item: Uuid, run: RunningReturn) -> Result<()> {
    let uid = run.order_uid;
    let key = run.name();
    let (doer, cx) = (app.clone(), caller.unbounded());
    app.backlog.submit(Undo::new(key.clone(), warehouse_api::NAME, move || {
        let (app, cx, run) = (doer.clone(), cx.clone(), run.clone());
        async move {
            if !app.db.run(move |conn| Ok(run.go_forward(conn)?)).await? {
                // Somebody else goes on with it.
                return Ok(());
            }
            match app.warehouse.give_back(&cx, item).await {
                // It was taken once, so an item that isn't known any more has nothing to return.
                Err(error) if !error.is_refused() => {
                    return Err(UndoError::from(error).without_retry_after());
                }
                _ => mark(&app, uid).await?,
            }
            Ok::<_, UndoError>(())
        }
    }));
    let cx = caller.context();
    if !app.backlog.wait(&key, sagas::time_left(&cx)).await {
        return Err(refund_pending());
    }
    // It also ends when somebody else goes on with it.
    match app.db.run(move |conn| Ok(OrderRow::find(conn, uid)?)).await {
        Ok(Some(row)) if row.is_canceled() => Ok(()),
        _ => Err(refund_pending()),
    }
}

async fn mark(app: &App, uid: Uuid) -> Result<()> {
    app.db
        .transaction(move |conn| {
            // Nobody may see the order before this and its return's end after it.
            tombstone::lock(conn, uid)?;
            OrderRow::cancel(conn, uid)?;
            Ok(RunningReturn::done(conn, uid)?)
        })
        .await
}

fn refund_pending() -> Failure {
    Failure::unavailable(
        REFUND_PENDING,
        "the warranty is closed and the item's return is being completed; repeating is safe",
    )
    .with_dependency(warehouse_api::NAME)
}

fn in_progress() -> Failure {
    Failure::conflict(code::IDEMPOTENCY_IN_PROGRESS, "the order is being returned right now")
}
