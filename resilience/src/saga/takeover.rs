//! What becomes of a saga when whoever ran it has died: its lease runs out, somebody takes it over,
//! and the ledger of deferred calls carries it to its end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use diesel::{PgConnection, QueryResult};
use serde::{Deserialize, Serialize};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::back::{UndoHandler, patient, undo, undo_id};
use super::call::Stage;
use super::counts;
use super::journal::{self, Left, Taken};
use super::run::{Ended, Run};
use super::settings::Settings;
use super::shared::{Definitions, in_task};
use super::step::Failure;
use crate::breaker::Breaker;
use crate::deferred::{
    self, Attempt, Builder, DatabaseError, Deferral, Handler, HandlerError, defer_all,
};

/// How often it looks for leases that ran out: every so often a lease, at most once a second.
const LOOKS_PER_LEASE: u32 = 3;
const LONGEST_LOOK: Duration = Duration::from_secs(1);

/// How often what the journal holds is counted for the metrics, and what ended long ago deleted.
const SWEEP: u32 = 10;

/// So many actions or undos of an interrupted saga have time to take as long as they may.
const ACTIONS: u32 = 4;

/// Rows per statement: none locks many of them for long.
const BATCH: u16 = 1000;

/// The rest of a saga in the ledger of deferred calls.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ResumeCall {
    pub(super) saga: Uuid,
}

/// Of one saga there is one.
fn resume_id(saga: Uuid) -> Uuid {
    Uuid::new_v5(&saga, b"resume")
}

pub(super) fn resume(saga: Uuid, context: &BTreeMap<String, String>) -> Deferral {
    let call = Deferral::of::<ResumeHandler>(resume_id(saga), &ResumeCall { saga });
    context.iter().fold(call, |call, (name, value)| call.with_context(name, value))
}

/// Whatever of a saga with so many steps the ledger may have, or have had.
pub(super) fn call_ids(saga: Uuid, steps: usize) -> impl Iterator<Item = Uuid> {
    let steps = i32::try_from(steps).unwrap_or(i32::MAX);
    (0..steps).map(move |step| undo_id(saga, step)).chain([resume_id(saga)])
}

/// What of a saga the ledger has, or should have. In the order of their ids, in which they are locked.
pub(super) fn calls(conn: &mut PgConnection, saga: Uuid) -> QueryResult<Vec<Deferral>> {
    let Some(Left { context, undos, rest }) = journal::left(conn, saga)? else {
        return Ok(Vec::new());
    };
    let undos = undos.into_iter().map(|step| undo(saga, step, &context));
    let mut calls: Vec<_> = undos.chain(rest.then(|| resume(saga, &context))).collect();
    calls.sort_unstable_by_key(Deferral::id);
    Ok(calls)
}

/// Looks for sagas that nobody runs any more, until it is told to stop. Every replica does; they skip
/// each other's.
pub(crate) async fn recover(
    shared: Arc<Definitions>,
    retention: Duration,
    stop: CancellationToken,
) {
    let mut tick = interval((shared.settings.lease / LOOKS_PER_LEASE).min(LONGEST_LOOK));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut looked, mut more) = (0_u32, false);
    #[cfg(feature = "metrics")]
    let mut seen = std::collections::BTreeSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        while let Ok(taken @ 1..) = take_over(&shared).await {
            tracing::warn!(taken, "interrupted sagas were taken over");
            shared.nudge();
        }
        // Batch by batch: whoever waits for a take-over waits for no more than one.
        if more || looked.is_multiple_of(SWEEP) {
            let deleted =
                shared.door.run(move |conn| journal::delete_ended(conn, retention, BATCH.into()));
            more = match deleted.await {
                Ok(rows) => rows >= usize::from(BATCH),
                Err(error) => {
                    tracing::debug!(error = error.cause(), "the journal is out of reach");
                    false
                }
            };
        }
        #[cfg(feature = "metrics")]
        if looked.is_multiple_of(SWEEP)
            && let Ok(snapshot) = shared.snapshot().await
        {
            counts::publish(&snapshot, &mut seen);
        }
        looked = looked.wrapping_add(1);
    }
}

async fn take_over(shared: &Definitions) -> Result<usize, DatabaseError> {
    let taken = shared.door.run(|conn| {
        let taken = journal::take_over(conn, BATCH.into())?;
        let calls: Vec<_> = taken.iter().map(|saga| resume(saga.id, &saga.context)).collect();
        if !calls.is_empty() {
            defer_all(conn, &calls)?;
        }
        Ok(taken.len())
    });
    taken.await
}

/// Carries an interrupted saga to its end: back, or behind its pivot forward.
pub(super) struct ResumeHandler(pub(super) Arc<Definitions>);

impl Handler for ResumeHandler {
    const KIND: &'static str = "saga.resume";
    type Payload = ResumeCall;
    type Output = ();

    async fn run(&self, attempt: Attempt<ResumeCall>) -> Result<(), HandlerError> {
        let shared = Arc::clone(&self.0);
        let id = attempt.payload.saga;
        let taken = shared.door.run(move |conn| journal::take(conn, id)).await;
        let taken = taken.map_err(|error| HandlerError::not_yet(error.to_string()))?;
        // It has ended.
        let Some(taken) = taken else { return Ok(()) };
        let Taken { known, kind, .. } = &taken;
        let Some(found) = shared.kinds.get(kind.as_str()) else {
            return Err(HandlerError::failed(format!("nobody knows the sagas of the kind {kind}")));
        };
        let (forward, input, stage) = (known.forward, known.input.clone(), known.stage);
        let reason = known.reason.clone().unwrap_or_else(|| "it was interrupted".to_owned());
        let mut cause = Failure::none(HandlerError::failed(reason));
        if let Some(dependency) = &known.dependency {
            cause = cause.with_dependency(dependency.clone());
        }
        let within = (attempt.number, attempt.deadline);
        let run = Run::resumed(Arc::clone(&shared), found.name, taken, within);
        if !forward {
            tracing::warn!(saga = %id, kind = found.name, %stage, "an interrupted saga is taken back");
            return match run.take_back::<()>(cause).await {
                Ended::Lost => Err(HandlerError::not_yet("the journal can't be written to")),
                Ended::Compensated(_) => {
                    counts::ended(found.name, Stage::Compensated, Duration::ZERO);
                    Ok(())
                }
                _ => Ok(()),
            };
        }
        tracing::warn!(saga = %id, kind = found.name, "an interrupted saga goes on");
        let resumed = found.saga.resume(run, &input).map_err(|error| {
            HandlerError::permanent(format!("the input of {} can't be read: {error}", found.name))
        })?;
        let limit = attempt.deadline.remaining();
        in_task(limit, resumed).await.unwrap_or_else(Err).map_err(patient)
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

impl Definitions {
    /// What the ledger had of a saga was given up: whoever looks after sagas has to look.
    pub(super) fn stuck(
        &self,
        conn: &mut PgConnection,
        call: Uuid,
        reason: &str,
    ) -> QueryResult<()> {
        let Some((saga, kind)) = journal::saga_of_call(conn, call)? else { return Ok(()) };
        let kind = self.kinds.get(kind.as_str()).map_or("unknown", |kind| kind.name);
        tracing::error!(%saga, kind, reason, "a saga is stuck");
        counts::ended(kind, Stage::Stuck, Duration::ZERO);
        journal::stick(conn, saga, reason)
    }

    /// Nobody looks after it in the ledger any more. In the journal somebody has to: its saga stays
    /// stuck until it is retried.
    pub(super) fn discarded(conn: &mut PgConnection, call: Uuid) -> QueryResult<()> {
        match journal::saga_of_call(conn, call)? {
            Some((saga, _)) => journal::discarded(conn, saga, deferred::DISCARDED),
            None => Ok(()),
        }
    }

    /// It is tried again: its saga is stuck no more, unless something else of it is.
    pub(super) fn resumed(conn: &mut PgConnection, call: Uuid) -> QueryResult<()> {
        let Some((saga, _)) = journal::saga_of_call(conn, call)? else { return Ok(()) };
        // Of two that are tried again at once, the second sees the first.
        journal::lock(conn, saga)?;
        let calls: Vec<_> = calls(conn, saga)?.iter().map(Deferral::id).collect();
        if deferred::are_open(conn, &calls)? { journal::unstick(conn, saga) } else { Ok(()) }
    }
}

/// The runtime with what carries to their ends the sagas that could not be ended at once.
pub(crate) fn handlers(builder: Builder, sagas: &Arc<Definitions>) -> Builder {
    let Settings { lease, timeout, attempts, backoff, concurrency } = sagas.settings.clone();
    let settings = |name: &str, timeout: Duration| {
        deferred::Settings::new()
            .attempts(attempts)
            .backoff(backoff.clone())
            .concurrency(concurrency)
            .timeout(timeout)
            // Whoever has it from the ledger dies as whoever began it does.
            .lease(lease)
            // One saga that fails says nothing of the others. The calls have breakers of their own.
            .breaker(
                Breaker::builder(name).consecutive_failures(u32::MAX).without_slow_call().build(),
            )
    };
    // All that is left of a saga, one after the other.
    let whole = settings(ResumeHandler::KIND, timeout.saturating_mul(ACTIONS));
    // Longer than the undo itself, which is cut off as something that is away, and not as a defect.
    let one = settings(UndoHandler::KIND, timeout.saturating_add(timeout / 4));
    builder
        .handler(UndoHandler(Arc::clone(sagas)), one)
        .handler(ResumeHandler(Arc::clone(sagas)), whole)
}
