//! Taking a saga back: its steps are undone, the last one first. What can't be undone at once is left
//! to the ledger of deferred calls, and the others go on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use diesel::{PgConnection, QueryResult};
use serde::{Deserialize, Serialize};
use tracing::Instrument as _;
use uuid::Uuid;

use super::call::Stage;
use super::counts;
use super::journal::{self, StepEnd, StepState};
use super::run::{Ended, Run, Stop};
use super::shared::Definitions;
use super::step::Failure;
use crate::deferred::{Attempt, Deferral, Handler, HandlerError, defer};

/// Where a saga that failed may be when it is taken back. That one undo is given up stops no other.
const OPEN: &[Stage] = &[Stage::Running, Stage::Compensating, Stage::Stuck];

/// A step that was undone, or not.
enum Undone {
    Yes(i32),
    Later(i32, String, Deferral),
}

/// What is left when all was tried once.
struct Left {
    /// Nothing.
    compensated: bool,
    /// The first step that could not be undone at once.
    step: Option<String>,
}

impl Run {
    /// Takes back what was done, or may have been.
    pub(super) async fn take_back<T>(mut self, cause: Failure) -> Ended<T> {
        match self.undo_all(&cause).await {
            Ok(left) if left.compensated => Ended::Compensated(cause),
            Ok(left) => {
                self.shared.nudge();
                Ended::Compensating(cause, left.step)
            }
            Err(Stop(())) => Ended::Lost,
        }
    }

    async fn undo_all(&mut self, cause: &Failure) -> Result<Left, Stop> {
        let mut left: Vec<_> =
            self.entries.iter().filter(|entry| entry.to_undo()).cloned().collect();
        let (mut undone, mut first_left) = (None, None);
        loop {
            // The last one first.
            let next = left.pop();
            let number = next.as_ref().map(|entry| entry.number);
            let compensated = self.note(cause, undone.take(), number).await?;
            self.watch.goes_back();
            let Some(entry) = next else { return Ok(Left { compensated, step: first_left }) };
            let (shared, context) = (Arc::clone(&self.shared), self.context.clone());
            let (id, kind) = (self.id, self.kind);
            let given = (entry.input.clone(), &context);
            let attempt = shared.attempt(id, (entry.number, &entry.name), (1, None), given);
            let span = tracing::info_span!("undo", step = entry.name);
            let undoing = shared.undo((kind, &entry.name), attempt).instrument(span);
            undone = Some(match self.while_ours(undoing).await? {
                Ok(()) => {
                    counts::step(kind, &entry.name, "undone");
                    Undone::Yes(entry.number)
                }
                Err(error) => {
                    counts::step(kind, &entry.name, "undo_deferred");
                    let (step, reason) = (&entry.name, error.reason());
                    tracing::warn!(step, reason, "an undo failed, and is repeated");
                    first_left.get_or_insert_with(|| entry.name.clone());
                    let call = undo(id, entry.number, &context);
                    Undone::Later(entry.number, reason.to_owned(), call)
                }
            });
        }
    }

    /// What has become of one undo, and that the next one is begun, are one commit. Whether all of
    /// them are confirmed.
    async fn note(
        &mut self,
        cause: &Failure,
        undone: Option<Undone>,
        next: Option<i32>,
    ) -> Result<bool, Stop> {
        let (id, due) = (self.id, self.due.take());
        let (reason, dependency) = (cause.reason().to_owned(), cause.dependency.clone());
        let compensated = Arc::new(AtomicBool::new(false));
        let whole = Arc::clone(&compensated);
        self.write(OPEN, move |conn| {
            if let Some(due) = &due {
                journal::end_step(conn, id, due)?;
            }
            journal::go_back(conn, id, &reason, dependency.as_deref())?;
            match &undone {
                None => {}
                Some(Undone::Yes(number)) => end(conn, id, *number, StepState::Undone, None)?,
                Some(Undone::Later(number, error, call)) => {
                    end(conn, id, *number, StepState::UndoDeferred, Some(error.clone()))?;
                    defer(conn, call)?;
                }
            }
            match next {
                Some(number) => end(conn, id, number, StepState::UndoIntent, None),
                None if journal::compensated(conn, id)? => {
                    whole.store(true, Ordering::Relaxed);
                    Ok(())
                }
                None => journal::release(conn, id),
            }
        })
        .await?;
        Ok(compensated.load(Ordering::Relaxed))
    }
}

fn end(
    conn: &mut PgConnection,
    saga: Uuid,
    number: i32,
    state: StepState,
    error: Option<String>,
) -> QueryResult<()> {
    journal::end_step(conn, saga, &StepEnd { number, state, output: None, error })
}

/// An undo in the ledger of deferred calls.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct UndoCall {
    pub(super) saga: Uuid,
    pub(super) step: i32,
}

/// A step that was undone, and what is said of it.
pub(super) struct StepUndone {
    saga: Uuid,
    step: i32,
    kind: String,
    name: String,
}

/// Of one step there is one.
pub(super) fn undo_id(saga: Uuid, step: i32) -> Uuid {
    Uuid::new_v5(&saga, format!("undo {step}").as_bytes())
}

pub(super) fn undo(saga: Uuid, step: i32, context: &BTreeMap<String, String>) -> Deferral {
    let call = Deferral::of::<UndoHandler>(undo_id(saga, step), &UndoCall { saga, step });
    context.iter().fold(call, |call, (name, value)| call.with_context(name, value))
}

/// Undoes what could not be undone at once.
pub(super) struct UndoHandler(pub(super) Arc<Definitions>);

impl Handler for UndoHandler {
    const KIND: &'static str = "saga.undo";
    type Payload = UndoCall;
    type Output = StepUndone;

    async fn run(&self, attempt: Attempt<UndoCall>) -> Result<StepUndone, HandlerError> {
        let UndoCall { saga, step } = attempt.payload;
        let found = self.0.door.run(move |conn| journal::step(conn, saga, step)).await;
        let found = found.map_err(|error| HandlerError::not_yet(error.to_string()))?;
        let Some((kind, context, entry)) = found else {
            return Err(HandlerError::permanent("there is no such step"));
        };
        let (number, limit) = (attempt.number, Some(attempt.deadline));
        let given = (entry.input, &context);
        let again = self.0.attempt(saga, (step, &entry.name), (number, limit), given);
        let span = tracing::info_span!("undo", step = entry.name);
        let undoing = self.0.undo((&kind, &entry.name), again).instrument(span);
        undoing.await.map_err(patient)?;
        Ok(StepUndone { saga, step, kind, name: entry.name })
    }

    fn done(&self, conn: &mut PgConnection, _: Uuid, undone: &StepUndone) -> QueryResult<()> {
        let StepUndone { saga, step, ref kind, ref name } = *undone;
        if journal::lock(conn, saga)?.is_none() {
            return Ok(());
        }
        end(conn, saga, step, StepState::Undone, None)?;
        let kind = self.0.kinds.get(kind.as_str()).map_or("unknown", |kind| kind.name);
        counts::step(kind, name, StepState::Undone.as_str());
        // Not when another undo is left, or somebody is still undoing.
        if journal::compensated(conn, saga)? {
            tracing::info!(%saga, kind, "compensated");
            counts::ended(kind, Stage::Compensated, Duration::ZERO);
        }
        Ok(())
    }

    fn parked(&self, conn: &mut PgConnection, id: Uuid, reason: &str) -> QueryResult<()> {
        self.0.stuck(conn, id, reason)
    }

    fn discarded(&self, conn: &mut PgConnection, id: Uuid) -> QueryResult<()> {
        Definitions::discarded(conn, id)
    }

    fn resumed(&self, conn: &mut PgConnection, id: Uuid) -> QueryResult<()> {
        Definitions::resumed(conn, id)
    }
}

/// One system that is away must not keep the sagas of all others waiting: what is unavailable is
/// repeated, and says nothing of the kind. The calls have breakers of their own.
pub(super) fn patient(error: HandlerError) -> HandlerError {
    match error {
        HandlerError::Unavailable { reason, retry_after } => {
            HandlerError::NotYet { reason, retry_after }
        }
        other => other,
    }
}
