//! Purchases: one remote step, on an id minted here, whose undo is written down before it is taken.
//!
//! The undo is a deferred call that this request holds: should this process die, it is carried out
//! when its lease is over. It is forgotten in the transaction that remembers the answer, so 201 means
//! that nobody will undo the order.
//!
//! | Order's answer | the user's | what happens |
//! |---|---|---|
//! | 200 | 201 | the undo is forgotten |
//! | a refusal | the same | the undo is forgotten |
//! | known to have had no effect | 503 `rolled_back` | the undo is forgotten |
//! | lost, or not known | 503 `rolled_back` or `rollback_pending` | undone by the id, until it is |
//!
//! Under an `Idempotency-Key` the id is kept with the key before the call. Whoever takes over after a
//! crash goes on with the same id, unless its undo has begun: then that is finished first. Where an
//! operator has discarded the undo, the key goes on with the same id as well.

use std::time::Duration;

use diesel::{Connection as _, PgConnection, QueryResult};
use order_api::{OrderClient, Place, Placed};
use resilience::deadline::Deadline;
use resilience::deferred::{Attempt as Call, Handler, HandlerError, Hold, Settings, Stage, hold};
use resilience::http::{CallError, Context, Effect};
use serde::{Deserialize, Serialize};
use service::failure::code;
use service::idempotency::{self, Attempt};
use service::observe::Caller;
use service::{Answer, Failure, Result, deferred};
use uuid::Uuid;

use crate::claims::Claims;
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

/// What it takes to undo a purchase, besides its id, which is the order's.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Payload {
    /// For operators.
    user: Uuid,
}

/// Undoes purchases.
#[derive(Clone, Debug)]
pub(crate) struct UndoPurchase(pub(crate) OrderClient);

impl UndoPurchase {
    pub(crate) fn settings() -> Settings {
        Claims::settings()
    }
}

impl Handler for UndoPurchase {
    const KIND: &'static str = "undo-purchase";
    type Payload = Payload;
    type Output = ();

    async fn run(&self, call: Call<Payload>) -> Result<(), HandlerError> {
        let cx = deferred::context(&call);
        self.0.undo_place(&cx, call.id).await.map_err(|error| match deferred::failed(&error) {
            // Nothing that Order may say to an undo is a reason to leave a purchase half done.
            HandlerError::Permanent { reason } => HandlerError::Failed { reason },
            other => other,
        })
    }

    fn done(&self, conn: &mut PgConnection, id: Uuid, (): &()) -> QueryResult<()> {
        idempotency::give_back(conn, id)
    }

    /// What is left of the purchase stays, by an operator's word. Whoever repeats it is told what Order
    /// knows of it: it is there, or is made, once.
    fn discarded(&self, conn: &mut PgConnection, id: Uuid) -> QueryResult<()> {
        idempotency::leave_as_it_is(conn, id)
    }
}

/// Buys one item, or leaves everything as it was.
///
/// # Errors
/// 404 `item_not_found`, 409 `sold_out`, 503 as in the table above.
pub async fn run(
    app: &App,
    caller: &Caller,
    mut attempt: Attempt,
    purchase: &Purchase,
) -> Result<Answer> {
    let cx = caller.context();
    caller.check_time()?;
    let mut undo = begin(app, caller, &mut attempt, purchase).await?;
    let mut outcome = place(app, &cx, attempt.id(), purchase).await;
    if outcome.as_ref().is_err_and(|error| error.code() == Some(code::ALREADY_UNDONE)) {
        // A crash ended an attempt that Order has rolled back.
        release(app, &attempt, undo).await?;
        renew(app, caller, &mut attempt).await?;
        undo = begin(app, caller, &mut attempt, purchase).await?;
        outcome = place(app, &cx, attempt.id(), purchase).await;
    }
    match outcome {
        Ok(()) => bought(app, caller, &attempt, undo, purchase.user).await,
        // Of an attempt that was taken over this says nothing: it may have had its effect before.
        Err(error) if error.effect() == Effect::None && !attempt.is_taken_over() => {
            if let Err(failure) = app.db.run(move |conn| Ok(undo.forget(conn)?)).await {
                // It is undone in vain then.
                tracing::warn!(order = %attempt.id(), %failure, "an undo is not forgotten");
            }
            Err(nothing_done(error))
        }
        Err(error) => Err(undone(app, caller, &attempt, undo, &error).await),
    }
}

/// Writes the undo down, before there is anything to undo. What an earlier attempt under the same
/// key may have left is undone first.
async fn begin(
    app: &App,
    caller: &Caller,
    attempt: &mut Attempt,
    purchase: &Purchase,
) -> Result<Hold> {
    let lease = app.db.lease();
    for _ in 0..2 {
        let payload = Payload { user: purchase.user };
        let call = deferred::call::<UndoPurchase>(caller, attempt.id(), &payload)?;
        let undoing = attempt.is_undoing();
        let held = app.db.run(move |conn| {
            if !undoing {
                // One statement is a transaction by itself.
                return Ok(hold(conn, &call, lease)?);
            }
            conn.transaction(|conn| {
                // Its undo is known to the key alone.
                if let Some(hold) = hold(conn, &call, lease)? {
                    hold.release(conn)?;
                }
                Ok(None)
            })
        });
        if let Some(held) = held.await? {
            return Ok(held);
        }
        app.deferred.nudge();
        renew(app, caller, attempt).await?;
    }
    Err(Failure::internal("a new id is in the ledger already"))
}

async fn place(app: &App, cx: &Context, uid: Uuid, purchase: &Purchase) -> Result<(), CallError> {
    let place =
        Place { model: purchase.model.clone(), size: purchase.size.clone(), order_uid: Some(uid) };
    app.order.place(cx, purchase.user, &place).await.map(drop)
}

/// A new attempt, after the earlier one is undone; waits for that within the user's time.
async fn renew(app: &App, caller: &Caller, attempt: &mut Attempt) -> Result<()> {
    match ended(app, caller, attempt.id()).await? {
        Some(Stage::Done) => return attempt.renew().await,
        // It is an operator's now, who may have said already what becomes of the key.
        Some(Stage::Parked) => {}
        _ => {
            let left = attempt.clone();
            let noted =
                move |conn: &mut PgConnection| Ok(left.leave_undoing(conn, order_api::NAME)?);
            app.db.run(noted).await?;
        }
    }
    let message = "an earlier attempt is still being rolled back; repeat the request later";
    Err(Failure::unavailable(code::ROLLBACK_PENDING, message).with_dependency(order_api::NAME))
}

/// Where an undo is, at the end of the user's time at the latest. None when there is nothing to undo.
async fn ended(app: &App, caller: &Caller, order: Uuid) -> Result<Option<Stage>> {
    let left = caller.deadline().map_or(Duration::ZERO, Deadline::remaining);
    Ok(app.deferred.ended(order, left.saturating_sub(MARGIN)).await?)
}

/// Nobody will undo it: that and the answer are one commit.
async fn bought(
    app: &App,
    caller: &Caller,
    attempt: &Attempt,
    undo: Hold,
    user: Uuid,
) -> Result<Answer> {
    let order_uid = attempt.id();
    let location = format!("/api/v1/store/{user}/{order_uid}");
    let answer = Answer::created(&Placed { order_uid }, location)?;
    let (mine, remembered, held) = (attempt.clone(), answer.clone(), undo.clone());
    let forgotten = app.db.run(move |conn| {
        if !mine.has_key() {
            // One statement is a transaction by itself.
            return Ok(held.forget(conn)?);
        }
        conn.transaction(|conn| {
            if !held.forget(conn)? {
                return Ok(false);
            }
            if !mine.remember(conn, &remembered)? {
                // They will take over the undo as well: it stays.
                let message = "a request with this Idempotency-Key has taken over";
                return Err(Failure::conflict(code::IDEMPOTENCY_IN_PROGRESS, message));
            }
            Ok(true)
        })
    });
    // Whatever came of that, nobody may begin anew under the key before the undo is over.
    attempt.leave();
    match forgotten.await {
        Ok(true) => return Ok(answer),
        Ok(false) => {}
        Err(failure) => {
            // It may be committed all the same. Under a key a repetition finds that out; without
            // one nobody would ever hear of the order.
            if !attempt.has_key() {
                app.deferred.make_sure(undo);
            }
            return Err(failure);
        }
    }
    // This took longer than its lease: whoever has taken over the key goes on with the order, or it
    // is being undone.
    match ended(app, caller, order_uid).await? {
        None => Ok(answer),
        Some(Stage::Done) => Err(too_slow(code::ROLLED_BACK, "took too long and was rolled back")),
        Some(_) => Err(too_slow(code::ROLLBACK_PENDING, "took too long and is being rolled back")),
    }
}

fn too_slow(code: &'static str, what: &str) -> Failure {
    Failure::unavailable(code, format!("the purchase {what}")).with_dependency(order_api::NAME)
}

/// Undoes by the id, in the background; says what has become of it within the user's time.
async fn undone(
    app: &App,
    caller: &Caller,
    attempt: &Attempt,
    undo: Hold,
    error: &CallError,
) -> Failure {
    if let Err(failure) = release(app, attempt, undo).await {
        // It is undone when its lease is over.
        tracing::warn!(order = %attempt.id(), %failure, "an undo waits for its lease");
        return pending(error);
    }
    match ended(app, caller, attempt.id()).await {
        Ok(Some(Stage::Done)) if error.is_refused() => nothing_done(error.clone()),
        Ok(Some(Stage::Done)) => {
            // Order's own words may be of a rollback that is still pending.
            let message = format!("the purchase was rolled back: {} failed", error.dependency());
            with_cause(code::ROLLED_BACK, message, error)
        }
        Ok(_) | Err(_) => pending(error),
    }
}

/// Has the undo carried out now; the key is given back with its end.
async fn release(app: &App, attempt: &Attempt, undo: Hold) -> Result<()> {
    attempt.leave();
    let mine = attempt.clone();
    app.db
        .transaction(move |conn| {
            undo.release(conn)?;
            mine.leave_undoing(conn, order_api::NAME)?;
            Ok(())
        })
        .await?;
    app.deferred.nudge();
    Ok(())
}

fn pending(error: &CallError) -> Failure {
    let message = match error.code() {
        // Those are its own words.
        Some(code::ROLLBACK_PENDING) => error.to_string(),
        _ => format!("{error}; what was done is being undone"),
    };
    with_cause(code::ROLLBACK_PENDING, message, error)
}
