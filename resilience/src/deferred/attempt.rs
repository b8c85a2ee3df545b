//! One attempt at a call, and what it says of the call's dependency.

use tokio::time::timeout;
use tracing::Instrument as _;

use super::counts;
use super::handler::HandlerError;
use super::kind::{Kind, Output};
use super::ledger::Row;
use crate::breaker::{Permit, State};
use crate::deadline::Deadline;

/// What came of an attempt.
pub(super) enum Made {
    Result(Result<Output, HandlerError>),
    Unreadable(serde_json::Error),
    /// The ledger could not be told of it first.
    Not,
}

/// Makes the call, in a task of its own: a handler that blocks or panics takes nothing else with it.
pub(super) async fn attempt(kind: &Kind, row: &Row, asked: Option<Deadline>) -> Made {
    let own = Deadline::after(kind.settings.timeout);
    let shorter = asked.filter(|asked| asked.moment() < own.moment());
    let deadline = shorter.unwrap_or(own);
    let call = match kind.handler.call(row, deadline) {
        Ok(call) => call,
        Err(error) => return Made::Unreadable(error),
    };
    let mut task = Task(tokio::spawn(call.in_current_span()));
    let limit = deadline.remaining();
    Made::Result(match timeout(limit, &mut task.0).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(HandlerError::failed("the handler panicked")),
        // Whoever made the first attempt had less time than the call may take.
        Err(_) if shorter.is_some() => {
            Err(HandlerError::not_yet("no result in the time that there was"))
        }
        Err(_) => Err(HandlerError::failed(format!("no result within {limit:.1?}"))),
    })
}

struct Task(tokio::task::JoinHandle<Result<Output, HandlerError>>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Tells the gate and the places what the result says of the dependency.
pub(super) fn settle(kind: &Kind, permit: Permit<'static>, result: &Result<Output, HandlerError>) {
    let outcome = match result {
        Ok(_) => "done",
        Err(HandlerError::Unavailable { .. }) => "unavailable",
        Err(HandlerError::NotYet { .. }) => "not_yet",
        Err(HandlerError::Failed { .. }) => "failed",
        Err(HandlerError::Permanent { .. }) => "permanent",
    };
    counts::attempt(kind.name, outcome);
    match result {
        Ok(_) | Err(HandlerError::Permanent { .. }) => {
            permit.success();
            kind.slots.grow();
        }
        Err(HandlerError::Unavailable { reason, .. } | HandlerError::Failed { reason }) => {
            permit.failure(reason.clone());
            kind.slots.shrink();
        }
        Err(HandlerError::NotYet { .. }) => permit.ignored(),
    }
    if !matches!(kind.gate.state(), State::Closed | State::ForcedClosed) {
        kind.slots.narrow();
    }
    // It may have opened, closed, or have room for a probe.
    kind.wake();
}
