//! Placing an order: take the item → start the warranty → commit.
//!
//! | step | effect | undone by |
//! |---|---|---|
//! | take | Warehouse holds the item for the order | `undo_take` |
//! | start | Warranty knows the item | `undo_start` |
//! | commit | the order exists: the pivot | [`take_back`](super::take_back), for a caller that never got the answer |
//!
//! Until the pivot nothing is written to `orders`: an order that is being placed can't be seen.
//! Deciding that it will *never* be is a commit too, a tombstone, so that a placing that still runs
//! can't commit what was taken back meanwhile.

use diesel::PgConnection;
use resilience::deadline::Deadline;
use resilience::deferred::{Attempt, HandlerError};
use resilience::http::Context;
use resilience::saga::{
    Action, Committed, Failure as StepFailure, Known, Outcome, Run, Saga, Stage, StartError,
    Started, Step, Steps, Stop,
};
use serde::{Deserialize, Serialize};
use service::failure::code;
use service::observe::Caller;
use service::{Failure, Result, deferred, saga, tombstone};
use uuid::Uuid;
use warehouse_api::{Take, WarehouseClient};
use warranty_api::WarrantyClient;

use crate::models::OrderRow;
use crate::ops::item_of;
use crate::{App, ops, sagas};

/// What is placed, for whom.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NewOrder {
    /// The order's id, minted by the caller: the same id places one order only.
    pub uid: Uuid,
    /// Who buys.
    pub user: Uuid,
    /// What is wanted.
    pub model: String,
    /// In which size.
    pub size: String,
}

impl NewOrder {
    fn take(&self) -> Take {
        Take {
            order_uid: self.uid,
            model: self.model.clone(),
            size: self.size.clone(),
            order_item_uid: Some(item_of(self.uid)),
        }
    }
}

/// Places orders.
#[derive(Clone, Debug)]
pub struct Place {
    take: TakeItem,
    start: StartWarranty,
}

impl Place {
    pub(crate) fn new(warehouse: &WarehouseClient, warranty: &WarrantyClient) -> Self {
        Self { take: TakeItem(warehouse.clone()), start: StartWarranty(warranty.clone()) }
    }
}

impl Saga for Place {
    const KIND: &'static str = "place";
    type Input = NewOrder;
    type Output = ();

    fn steps(&self) -> Steps {
        Steps::new().and(self.take.clone()).and(self.start.clone())
    }

    async fn run(&self, run: &mut Run, order: &NewOrder) -> Result<Committed<()>, Stop> {
        run.step(&self.take, order.take()).await?;
        run.step(&self.start, item_of(order.uid)).await?;
        let (uid, user) = (order.uid, order.user);
        run.commit(move |conn| ops::commit(conn, uid, user)).await
    }
}

#[derive(Clone, Debug)]
struct TakeItem(WarehouseClient);

impl Action for TakeItem {
    const NAME: &'static str = "take";
    type Input = Take;
    type Output = ();

    async fn act(&self, attempt: Attempt<Take>) -> Result<(), StepFailure> {
        let taken = self.0.take(&deferred::context(&attempt), &attempt.payload).await;
        taken.map(drop).map_err(saga::failed)
    }
}

impl Step for TakeItem {
    async fn undo(&self, attempt: Attempt<Take>) -> Result<(), HandlerError> {
        let item = item_of(attempt.payload.order_uid);
        let undone = self.0.undo_take(&deferred::context(&attempt), item).await;
        undone.map_err(|error| deferred::failed(&error))
    }
}

#[derive(Clone, Debug)]
struct StartWarranty(WarrantyClient);

impl Action for StartWarranty {
    const NAME: &'static str = "start";
    type Input = Uuid;
    type Output = ();

    async fn act(&self, attempt: Attempt<Uuid>) -> Result<(), StepFailure> {
        let started = self.0.start(&deferred::context(&attempt), attempt.payload).await;
        started.map_err(saga::failed)
    }
}

impl Step for StartWarranty {
    async fn undo(&self, attempt: Attempt<Uuid>) -> Result<(), HandlerError> {
        let undone = self.0.undo_start(&deferred::context(&attempt), attempt.payload).await;
        undone.map_err(|error| deferred::failed(&error))
    }
}

/// Why an order is not begun to be placed.
enum Not {
    /// It is an order already.
    Placed(OrderRow),
    Refused(Failure),
}

/// Places an order, or leaves everything as it was.
///
/// # Errors
/// What Warehouse refuses (404, 409); 422 for an id that is another order; 409 `already_undone`; 409
/// `idempotency_in_progress` while the same order is being placed; 503 `rolled_back` or
/// `rollback_pending`; 503 `database_unavailable` when nobody knows whether it was committed:
/// repeating it, or undoing it by its id, is safe.
pub async fn run(app: &App, caller: &Caller, order: &NewOrder) -> Result<()> {
    caller.check_time()?;
    let deadline = sagas::deadline(caller);
    loop {
        let start = sagas::start::<Place>(caller, order.uid, order)?;
        let (doer, uid) = (app.clone(), order.uid);
        let started = app.sagas.run(start, deadline, move |conn| may_begin(conn, &doer, uid)).await;
        match started {
            Ok(Started::Begun(outcome)) => return answer(outcome),
            Ok(Started::Known(known)) => ended(app, order, &known, deadline).await?,
            Err(StartError::Prepare(Not::Placed(row))) => {
                return repeated(app, &caller.context(), order, &row).await;
            }
            Err(StartError::Prepare(Not::Refused(failure))) => return Err(failure),
            Err(StartError::Database(error)) => return Err(error.into()),
            Err(StartError::Invalid(reason)) => return Err(Failure::internal(reason)),
        }
    }
}

fn may_begin(conn: &mut PgConnection, app: &App, uid: Uuid) -> Result<(), Not> {
    let refused = |error| Not::Refused(Failure::from(error));
    if tombstone::stands(conn, uid).map_err(refused)? {
        return Err(Not::Refused(Failure::already_undone(uid)));
    }
    if let Some(row) = OrderRow::find(conn, uid).map_err(refused)? {
        return Err(Not::Placed(row));
    }
    sagas::check(app).map_err(Not::Refused)
}

fn answer(outcome: Outcome<()>) -> Result<()> {
    Err(match outcome {
        Outcome::Committed(()) => return Ok(()),
        Outcome::Compensated(failure) => sagas::rolled_back(&failure),
        Outcome::Compensating { cause, step } => sagas::pending(&cause, step.as_deref().map(of)),
        // It ends with its pivot: there is nothing to complete.
        Outcome::Completing(_) | Outcome::Unknown => sagas::unknown(),
    })
}

/// Who undoes a step.
fn of(step: &str) -> &'static str {
    if step == StartWarranty::NAME { warranty_api::NAME } else { warehouse_api::NAME }
}

/// Somebody places an order with this id: waits for its end, where that is worth it.
async fn ended(
    app: &App,
    order: &NewOrder,
    known: &Known,
    deadline: Option<Deadline>,
) -> Result<()> {
    if !known.has_input(order) {
        return Err(ops::another_order(order.uid));
    }
    let known = match known.stage {
        Stage::Running => app.sagas.ended::<Place>(known.id, sagas::time_left(deadline)).await?,
        _ => Some(known.clone()),
    };
    match known.as_ref().map(|known| known.stage) {
        Some(Stage::Running) => Err(sagas::in_progress(order.uid, "placed")),
        Some(Stage::Compensating | Stage::Stuck) => {
            let message = "an earlier attempt is still being rolled back; repeat the request later";
            let failure = Failure::unavailable(code::ROLLBACK_PENDING, message);
            Err(sagas::blamed(
                failure,
                known.as_ref().and_then(|known| known.dependency.as_deref()),
            ))
        }
        Some(Stage::Committed | Stage::Compensated) | None => Ok(()),
    }
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
