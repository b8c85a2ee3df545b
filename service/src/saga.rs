//! Sagas of a service: what travels with one, and what the failure of a peer means for its step.

use resilience::http::CallError;
use resilience::saga::{Failure as StepFailure, Saga, Start};
use uuid::Uuid;

use crate::deferred;
use crate::failure::{Failure, Result};
use crate::observe::Caller;

/// A saga on behalf of a request, with the ids that travel with it.
///
/// # Errors
/// 500 when the input can't be written as JSON.
pub fn start<S: Saga>(caller: &Caller, id: Uuid, input: &S::Input) -> Result<Start<S>> {
    let start = Start::new(id, input).map_err(Failure::internal)?;
    let ids = deferred::travelling(caller).into_iter();
    Ok(ids.fold(start, |start, (name, id)| start.with_context(name, id)))
}

/// What follows from the failure of a call to a peer for the step that made it. The call's error is
/// its [cause](StepFailure::cause).
pub fn failed(error: CallError) -> StepFailure {
    let follows = deferred::failed(&error);
    StepFailure::of_call(error, follows)
}

/// What must not be, for this reason, which is its [cause](StepFailure::cause). It had no effect.
pub fn refused(failure: Failure) -> StepFailure {
    let reason = failure.to_string();
    let error = resilience::deferred::HandlerError::permanent(reason);
    StepFailure::none(error).with_cause(failure)
}
