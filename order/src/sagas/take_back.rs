//! Taking an order back by its id, for a caller that doesn't know what became of it: committed, still
//! being placed, or never seen.
//!
//! | step | effect |
//! |---|---|
//! | erase | the order is not there, and never will be: a tombstone, and the pivot |
//! | give back | Warehouse holds nothing for it, and never will |
//! | forget | Warranty knows nothing of its item, and never will |
//!
//! Behind the pivot it is repeated until it is done. It may be asked for as often as you like.

use resilience::deferred::Attempt;
use resilience::saga::{
    Action, Committed, Failure as StepFailure, Outcome, Run, Saga, Stage, Started, Steps, Stop,
};
use service::failure::code;
use service::observe::Caller;
use service::{Failure, Result, deferred, saga};
use uuid::Uuid;
use warehouse_api::WarehouseClient;
use warranty_api::WarrantyClient;

use crate::ops::item_of;
use crate::{App, ops, sagas};

/// Takes orders back.
#[derive(Clone, Debug)]
pub struct TakeBack {
    give_back: GiveBack,
    forget: Forget,
}

impl TakeBack {
    pub(crate) fn new(warehouse: &WarehouseClient, warranty: &WarrantyClient) -> Self {
        Self { give_back: GiveBack(warehouse.clone()), forget: Forget(warranty.clone()) }
    }
}

impl Saga for TakeBack {
    const KIND: &'static str = "take-back";
    /// The order.
    type Input = Uuid;
    type Output = ();

    fn steps(&self) -> Steps {
        Steps::new()
    }

    async fn run(&self, run: &mut Run, order: &Uuid) -> Result<Committed<()>, Stop> {
        let uid = *order;
        run.decide("erase", move |conn| Ok(ops::erase(conn, uid)?)).await?;
        // The item first: others wait for it, and nobody for the warranty of what was never bought.
        run.forward(&self.give_back, item_of(uid)).await?;
        run.forward(&self.forget, item_of(uid)).await?;
        run.commit(|_| Ok(())).await
    }
}

#[derive(Clone, Debug)]
struct GiveBack(WarehouseClient);

impl Action for GiveBack {
    const NAME: &'static str = "give-back";
    type Input = Uuid;
    type Output = ();

    async fn act(&self, attempt: Attempt<Uuid>) -> Result<(), StepFailure> {
        let undone = self.0.undo_take(&deferred::context(&attempt), attempt.payload).await;
        undone.map_err(saga::failed)
    }
}

#[derive(Clone, Debug)]
struct Forget(WarrantyClient);

impl Action for Forget {
    const NAME: &'static str = "forget";
    type Input = Uuid;
    type Output = ();

    async fn act(&self, attempt: Attempt<Uuid>) -> Result<(), StepFailure> {
        let undone = self.0.undo_start(&deferred::context(&attempt), attempt.payload).await;
        undone.map_err(saga::failed)
    }
}

/// Takes an order back. Done when everything is as if it had never been.
///
/// # Errors
/// 503 `rollback_pending`: the rest is undone in the background.
pub async fn run(app: &App, caller: &Caller, uid: Uuid) -> Result<()> {
    let deadline = sagas::deadline(caller);
    loop {
        let start = sagas::start::<TakeBack>(caller, uid, &uid)?;
        let started = app.sagas.run(start, deadline, |_| Ok(())).await;
        let known = match started.map_err(sagas::not_begun)? {
            Started::Begun(outcome) => return answer(outcome),
            Started::Known(known) => known,
        };
        // Somebody is at it: that is as good.
        let ended = app.sagas.ended::<TakeBack>(known.id, sagas::time_left(deadline)).await?;
        match ended.unwrap_or(known) {
            known if known.stage == Stage::Committed => return Ok(()),
            known if !known.stage.has_ended() => {
                return Err(pending(known.dependency.as_deref()));
            }
            // It was not decided.
            _ => {}
        }
    }
}

fn answer(outcome: Outcome<()>) -> Result<()> {
    Err(match outcome {
        Outcome::Committed(()) => return Ok(()),
        // It was never decided.
        Outcome::Compensated(_) | Outcome::Compensating { .. } => Failure::deadline_exceeded(),
        Outcome::Completing(failure) => {
            pending(failure.as_ref().and_then(|failure| failure.dependency()))
        }
        Outcome::Unknown => sagas::unknown(),
    })
}

fn pending(dependency: Option<&str>) -> Failure {
    let message = match dependency {
        Some(name) => format!("{name} can't be reached; what was done is being undone"),
        None => "what was done is being undone".to_owned(),
    };
    sagas::blamed(Failure::unavailable(code::ROLLBACK_PENDING, message), dependency)
}
