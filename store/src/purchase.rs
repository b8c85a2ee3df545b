//! Purchases: one remote step, on an id minted here.
//!
//! | Order's answer | the user's | what happens |
//! |---|---|---|
//! | 200 | 201 | |
//! | a refusal | the same | nothing was done |
//! | known to have had no effect | 503 `rolled_back` | nothing was done, or Order undid it |
//! | lost, or not known | 503 `rolled_back` or `rollback_pending` | undone by the id, until it is |
//!
//! Under an `Idempotency-Key` the id is kept with the key before the call. Whoever takes over after a
//! crash goes on with the same id, unless its undo has begun: then that is finished first.

use std::time::Duration;

use order_api::Place;
use resilience::deadline::Deadline;
use resilience::http::{CallError, Context, Effect};
use resilience::rollback::UndoError;
use service::failure::code;
use service::idempotency::Attempt;
use service::observe::Caller;
use service::{Failure, Result};
use uuid::Uuid;

use crate::{App, nothing_done, with_cause};

/// What an answer takes to get back to the user.
const MARGIN: Duration = Duration::from_millis(50);

/// What is bought, by whom.
#[derive(Clone, Debug)]
pub struct Purchase {
    /// Who buys.
    pub user: Uuid,
    /// What.
    pub model: String,
    /// In which size.
    pub size: String,
}

/// Buys one item, or leaves everything as it was; returns the order's id.
///
/// # Errors
/// 404 `item_not_found`, 409 `sold_out`, 503 as in the table above.
pub async fn run(
    app: &App,
    caller: &Caller,
    mut attempt: Attempt,
    purchase: &Purchase,
) -> Result<Uuid> {
    let cx = caller.context();
    caller.check_time()?;
    if attempt.is_undoing() {
        clear(app, caller, &mut attempt).await?;
    }
    let mut outcome = place(app, &cx, attempt.id(), purchase).await;
    if outcome.as_ref().is_err_and(|error| error.code() == Some(code::ALREADY_UNDONE)) {
        // A crash ended an attempt that Order has rolled back.
        clear(app, caller, &mut attempt).await?;
        outcome = place(app, &cx, attempt.id(), purchase).await;
    }
    match outcome {
        Ok(()) => Ok(attempt.id()),
        // Of an attempt that was taken over this says nothing: it may have had its effect before.
        Err(error) if error.effect() == Effect::None && !attempt.is_taken_over() => {
            Err(nothing_done(error))
        }
        Err(error) => Err(undo(app, caller, &attempt, &error).await),
    }
}

async fn place(app: &App, cx: &Context, uid: Uuid, purchase: &Purchase) -> Result<(), CallError> {
    let place =
        Place { model: purchase.model.clone(), size: purchase.size.clone(), order_uid: Some(uid) };
    app.order.place(cx, purchase.user, &place).await.map(drop)
}

/// Makes sure that an earlier attempt under the same key left nothing, and begins anew.
async fn clear(app: &App, caller: &Caller, attempt: &mut Attempt) -> Result<()> {
    match app.order.undo_place(&caller.context(), attempt.id()).await {
        Ok(()) => attempt.renew().await,
        Err(error) => {
            submit_undo(app, caller, attempt).await?;
            Err(pending(&error))
        }
    }
}

/// Undoes by the id, in the background; says what has become of it within the user's time.
async fn undo(app: &App, caller: &Caller, attempt: &Attempt, error: &CallError) -> Failure {
    let key = match submit_undo(app, caller, attempt).await {
        Ok(key) => key,
        Err(lost) => return lost,
    };
    let left = caller.deadline().map_or(Duration::ZERO, Deadline::remaining);
    if !app.backlog.wait(&key, left.saturating_sub(MARGIN)).await {
        pending(error)
    } else if error.is_refused() {
        nothing_done(error.clone())
    } else {
        // Order's own words may be of a rollback that is still pending.
        let message = format!("the purchase was rolled back: {} failed", error.dependency());
        with_cause(code::ROLLED_BACK, message, error)
    }
}

/// Has it undone in the background; returns the name by which that can be waited for.
async fn submit_undo(app: &App, caller: &Caller, attempt: &Attempt) -> Result<String> {
    // Before the answer goes out, with which the key would be given back.
    match attempt.begin_undo(order_api::NAME).await {
        // Whoever took over decides.
        Err(lost) if lost.code() == code::IDEMPOTENCY_IN_PROGRESS => return Err(lost),
        // Not noted: it is before the undo, in the background.
        Err(_) | Ok(()) => {}
    }
    let (order, cx) = (app.order.clone(), caller.unbounded());
    let undo = attempt.undo(order_api::NAME, move |uid| {
        let (order, cx) = (order.clone(), cx.clone());
        async move { order.undo_place(&cx, uid).await.map_err(UndoError::from) }
    });
    let key = undo.key().to_owned();
    app.backlog.submit(undo);
    Ok(key)
}

fn pending(error: &CallError) -> Failure {
    let message = match error.code() {
        // Those are its own words.
        Some(code::ROLLBACK_PENDING) => error.to_string(),
        _ => format!("{error}; what was done is being undone"),
    };
    with_cause(code::ROLLBACK_PENDING, message, error)
}
