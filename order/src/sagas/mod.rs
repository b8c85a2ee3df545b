//! What reaches into several systems: [`place`], [`take_back`] and [`give_back`], one file each.
//!
//! Each is a [saga](resilience::saga): steps from top to bottom, undos beside them. All that is known
//! of one that has not ended is in the journal, whose ledger completes it or takes it back, whatever
//! dies. Of one order one saga of a kind is open at a time: the order's id is its key. What makes
//! repeating right is in the other systems: ids minted here make each effect happen once, and a
//! tombstone refuses a call that arrives after its undo.

pub mod give_back;
pub mod place;
pub mod take_back;

use std::time::Duration;

use resilience::deadline::Deadline;
use resilience::deferred::Builder;
use resilience::http::CallError;
use resilience::saga::{Failure as StepFailure, Saga, Start, StartError};
use service::failure::code;
use service::observe::Caller;
use service::{Failure, Result, saga};
use uuid::Uuid;
use warehouse_api::WarehouseClient;
use warranty_api::WarrantyClient;

use give_back::Return;
use place::Place;
use take_back::TakeBack;

use crate::App;

/// What an answer takes to get back to a caller that stops waiting.
const MARGIN: Duration = Duration::from_millis(250);

/// A quarter of a caller's time is left for the answer at the most.
const SHARE: u32 = 4;

/// A runtime that carries all of them out.
pub fn all(builder: Builder, warehouse: &WarehouseClient, warranty: &WarrantyClient) -> Builder {
    builder
        .saga(Place::new(warehouse, warranty))
        .saga(TakeBack::new(warehouse, warranty))
        .saga(Return::new(warehouse, warranty))
}

/// One that is begun for an order.
fn start<S: Saga>(caller: &Caller, order: Uuid, input: &S::Input) -> Result<Start<S>> {
    Ok(saga::start::<S>(caller, Uuid::new_v4(), input)?.key(order.to_string()))
}

/// What is known to be refused later is refused before anything is done: nobody sees an item go and
/// come back, or a warranty.
fn check(app: &App) -> Result<()> {
    let checked = app.warehouse.check().and_then(|()| app.warranty.check());
    checked.map_err(nothing_done)
}

/// Until when a handler may wait.
fn deadline(caller: &Caller) -> Option<Deadline> {
    caller.deadline().map(|deadline| {
        let left = deadline.remaining();
        Deadline::after(left.saturating_sub(MARGIN.min(left / SHARE)))
    })
}

/// How long it may wait still.
fn time_left(deadline: Option<Deadline>) -> Duration {
    deadline.map_or(MARGIN, Deadline::remaining)
}

fn not_begun(error: StartError<Failure>) -> Failure {
    match error {
        StartError::Prepare(failure) => failure,
        StartError::Database(error) => error.into(),
        StartError::Invalid(reason) => Failure::internal(reason),
    }
}

/// Everything is as it was. A business answer, of another system or of our own, stays what it is; a
/// system that failed is named.
fn rolled_back(failure: &StepFailure) -> Failure {
    if let Some(call) = failure.cause::<CallError>() {
        return nothing_done(call.clone());
    }
    if let Some(refused) = failure.cause::<Failure>() {
        return refused.clone();
    }
    let message = format!("nothing was done: {failure}");
    blamed(Failure::unavailable(code::ROLLED_BACK, message), failure.dependency())
}

fn nothing_done(cause: CallError) -> Failure {
    if cause.is_refused() {
        return cause.into();
    }
    let dependency = cause.dependency().to_owned();
    let message = format!("nothing was done: {cause}");
    Failure::from(cause).recoded(code::ROLLED_BACK, message).with_dependency(dependency)
}

/// What was done is being undone, by the system that is to blame for that, or for all of it.
fn pending(cause: &StepFailure, undoing: Option<&str>) -> Failure {
    let message = format!("{cause}; what was done is being undone");
    let failure = Failure::unavailable(code::ROLLBACK_PENDING, message);
    let wait = cause.cause::<CallError>().and_then(CallError::retry_after);
    blamed(failure, undoing.or(cause.dependency())).with_retry_after(wait)
}

/// Nobody can say now what has become of it.
fn unknown() -> Failure {
    let message = "the database can't be reached; repeating is safe";
    Failure::unavailable(code::DATABASE_UNAVAILABLE, message)
}

fn in_progress(uid: Uuid, what: &str) -> Failure {
    let message = format!("the order {uid} is being {what} right now");
    Failure::conflict(code::IDEMPOTENCY_IN_PROGRESS, message)
}

fn blamed(failure: Failure, dependency: Option<&str>) -> Failure {
    match dependency {
        Some(dependency) => failure.with_dependency(dependency),
        None => failure,
    }
}
