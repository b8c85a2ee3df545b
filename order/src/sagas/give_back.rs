//! Returning an order: close the warranty → give the item back → mark the order.
//!
//! | step | effect | undone by |
//! |---|---|---|
//! | look | none: what the warranty is | |
//! | close | Warranty closes the item's | `restore`, exactly as it was, which also disarms a late close |
//! | give back | Warehouse has the item, and may sell it again at once: the pivot | nothing |
//! | mark | the order is `CANCELED` | nothing |
//!
//! The pivot's definite *no* re-opens the warranty. *Yes* and *unknown* go forward only. One return
//! runs at a time for an order: two would close and re-open across each other.

use std::time::Duration;

use diesel::PgConnection;
use order_api::REFUND_PENDING;
use resilience::deferred::{Attempt, HandlerError};
use resilience::http::CallError;
use resilience::saga::{
    Action, Committed, Failure as StepFailure, Known, Outcome, Run, Saga, Stage, StartError,
    Started, Step, Steps, Stop,
};
use serde::{Deserialize, Serialize};
use service::failure::code;
use service::observe::Caller;
use service::{Failure, Result, deferred, saga, tombstone};
use uuid::Uuid;
use warehouse_api::WarehouseClient;
use warranty_api::{Restore, WARRANTY_NOT_FOUND, WarrantyClient};

use crate::models::OrderRow;
use crate::{App, ops, sagas};

/// How often it is asked whether somebody else's return is still worth waiting for.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The order that is returned.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Bought {
    /// Its id.
    pub order: Uuid,
    /// What was bought.
    pub item: Uuid,
}

/// A warranty that is closed.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct ToClose {
    item: Uuid,
    /// By what name.
    name: String,
    /// What re-opens it exactly as it was.
    before: Restore,
}

/// Returns orders.
#[derive(Clone, Debug)]
pub struct Return {
    look: Look,
    close: Close,
    give_back: GiveBack,
}

impl Return {
    pub(crate) fn new(warehouse: &WarehouseClient, warranty: &WarrantyClient) -> Self {
        Self {
            look: Look(warranty.clone()),
            close: Close(warranty.clone()),
            give_back: GiveBack(warehouse.clone()),
        }
    }
}

impl Saga for Return {
    const KIND: &'static str = "return";
    type Input = Bought;
    type Output = ();

    fn steps(&self) -> Steps {
        Steps::new().and(self.close.clone())
    }

    async fn run(&self, run: &mut Run, bought: &Bought) -> Result<Committed<()>, Stop> {
        let Bought { order, item } = *bought;
        // Another one each time.
        let name = run.id().to_string();
        if let Some(before) = run.read(&self.look, item).await? {
            let before = Restore { closed_by: Some(name.clone()), ..before };
            run.step(&self.close, ToClose { item, name, before }).await?;
        }
        run.pivot(&self.give_back, item).await?;
        run.commit(move |conn| {
            // Nobody may see the order before this and its return's end after it.
            tombstone::lock(conn, order)?;
            Ok(OrderRow::cancel(conn, order)?)
        })
        .await
    }
}

#[derive(Clone, Debug)]
struct Look(WarrantyClient);

impl Action for Look {
    const NAME: &'static str = "look";
    type Input = Uuid;
    type Output = Option<Restore>;

    async fn act(&self, attempt: Attempt<Uuid>) -> Result<Option<Restore>, StepFailure> {
        match self.0.get(&deferred::context(&attempt), attempt.payload).await {
            Ok(warranty) => Ok(Some(Restore {
                status: warranty.status,
                warranty_date: warranty.warranty_date,
                comment: warranty.comment,
                closed_by: None,
            })),
            Err(error) if error.code() == Some(WARRANTY_NOT_FOUND) => Ok(None),
            Err(error) => Err(saga::failed(error)),
        }
    }
}

#[derive(Clone, Debug)]
struct Close(WarrantyClient);

impl Action for Close {
    const NAME: &'static str = "close";
    type Input = ToClose;
    type Output = ();

    async fn act(&self, attempt: Attempt<ToClose>) -> Result<(), StepFailure> {
        let ToClose { item, name, .. } = &attempt.payload;
        let closed = self.0.close(&deferred::context(&attempt), *item, name).await;
        unless_refused(closed).map_err(saga::failed)
    }
}

impl Step for Close {
    async fn undo(&self, attempt: Attempt<ToClose>) -> Result<(), HandlerError> {
        let ToClose { item, before, .. } = &attempt.payload;
        let restored = self.0.restore(&deferred::context(&attempt), *item, before).await;
        unless_refused(restored).map_err(|error| deferred::failed(&error))
    }
}

/// A warranty that Warranty refuses to close or to re-open, as it doesn't know it or its start was
/// undone, needs neither.
fn unless_refused(outcome: Result<(), CallError>) -> Result<(), CallError> {
    outcome.or_else(|error| if error.is_refused() { Ok(()) } else { Err(error) })
}

#[derive(Clone, Debug)]
struct GiveBack(WarehouseClient);

impl Action for GiveBack {
    const NAME: &'static str = "give-back";
    type Input = Uuid;
    type Output = ();

    async fn act(&self, attempt: Attempt<Uuid>) -> Result<(), StepFailure> {
        match self.0.give_back(&deferred::context(&attempt), attempt.payload).await {
            // It was taken once, so an item that isn't known any more has nothing to return.
            Err(error) if error.is_refused() && attempt.number > 1 => Ok(()),
            given => given.map_err(saga::failed),
        }
    }
}

/// Why a return is not begun.
enum Not {
    /// It is refunded already.
    Due,
    Refused(Failure),
}

/// Closes the warranty and gives the item back. Repeating it changes nothing.
///
/// # Errors
/// 404 `order_not_found`; 503 `rolled_back` or `rollback_pending` when a system can't be reached; 503
/// `refund_pending` once there is no way back; 409 `idempotency_in_progress` while another return of
/// the order runs.
pub async fn run(app: &App, caller: &Caller, uid: Uuid) -> Result<()> {
    caller.check_time()?;
    let deadline = sagas::deadline(caller);
    let row = app.db.run(move |conn| Ok(OrderRow::find(conn, uid)?)).await?;
    let row = row.ok_or_else(|| ops::unknown_order(uid))?;
    if row.is_canceled() {
        return Ok(());
    }
    let bought = Bought { order: uid, item: row.item_uid };
    loop {
        let start = sagas::start::<Return>(caller, uid, &bought)?;
        let doer = app.clone();
        let started = app.sagas.run(start, deadline, move |conn| may_begin(conn, &doer, uid)).await;
        let known = match started {
            Ok(Started::Begun(outcome)) => return answer(outcome),
            Ok(Started::Known(known)) => known,
            Err(StartError::Prepare(Not::Due)) => return Ok(()),
            Err(StartError::Prepare(Not::Refused(failure))) => return Err(failure),
            Err(StartError::Database(error)) => return Err(error.into()),
            Err(StartError::Invalid(reason)) => return Err(Failure::internal(reason)),
        };
        let left = sagas::time_left(deadline);
        still_running(app, uid, &known, left < LOOK_AGAIN)?;
        app.sagas.ended::<Return>(known.id, LOOK_AGAIN).await?;
    }
}

fn may_begin(conn: &mut PgConnection, app: &App, uid: Uuid) -> Result<(), Not> {
    let row = OrderRow::find(conn, uid).map_err(|error| Not::Refused(error.into()))?;
    match row {
        None => return Err(Not::Refused(ops::unknown_order(uid))),
        Some(row) if row.is_canceled() => return Err(Not::Due),
        Some(_) => {}
    }
    sagas::check(app).map_err(Not::Refused)
}

fn answer(outcome: Outcome<()>) -> Result<()> {
    Err(match outcome {
        Outcome::Committed(()) => return Ok(()),
        Outcome::Compensated(failure) => sagas::rolled_back(&failure),
        Outcome::Compensating { cause, step } => {
            sagas::pending(&cause, step.is_some().then_some(warranty_api::NAME))
        }
        Outcome::Completing(_) => refund_pending(),
        Outcome::Unknown => sagas::unknown(),
    })
}

/// Whether somebody else's return is worth waiting for: not when it waits for a system itself, and
/// not when there is no time left.
fn still_running(app: &App, uid: Uuid, known: &Known, late: bool) -> Result<()> {
    if known.forward {
        return match app.warehouse.check() {
            Err(cause) => Err(refund_pending().with_retry_after(cause.retry_after())),
            Ok(()) if late || known.stage == Stage::Stuck => Err(refund_pending()),
            Ok(()) => Ok(()),
        };
    }
    let reopening = || {
        let message = "the warranty is being re-opened after a refund that failed";
        Failure::unavailable(code::ROLLBACK_PENDING, message).with_dependency(warranty_api::NAME)
    };
    match app.warranty.check() {
        Err(cause) => Err(reopening().with_retry_after(cause.retry_after())),
        Ok(()) if known.stage == Stage::Stuck => Err(reopening()),
        Ok(()) if late && known.stage == Stage::Compensating => Err(reopening()),
        Ok(()) if late => Err(sagas::in_progress(uid, "returned")),
        Ok(()) => Ok(()),
    }
}

fn refund_pending() -> Failure {
    Failure::unavailable(
        REFUND_PENDING,
        "the warranty is closed and the item's return is being completed; repeating is safe",
    )
    .with_dependency(warehouse_api::NAME)
}
