//! Carries one row out, from its claim to its written outcome. The one way for RabbitMQ's
//! deliveries, for what is claimed straight from the ledger, and for first attempts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use diesel::{PgConnection, QueryResult};
use tokio::sync::{RwLockReadGuard, RwLockWriteGuard};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tracing::{Instrument as _, Span};

use super::attempt::{Made, attempt, settle};
use super::counts;
use super::database::{DatabaseError, waits};
use super::handler::HandlerError;
use super::kind::{Finished, Kind, Output, Place};
use super::ledger::{self, Row};
use super::operators::Stage;
use super::shared::Shared;
use crate::breaker::Permit;
use crate::deadline::Deadline;
use crate::retry::Backoff;

/// What became of a row. Unless it is `Lost`, it is written in the ledger.
pub(super) enum Carried {
    /// It is done.
    Done(Output),
    /// A first attempt was refused for good, and is forgotten.
    Refused(HandlerError),
    /// It is to be repeated.
    Postponed,
    /// It is given up.
    Parked,
    /// Somebody else had taken over: nothing was written.
    Stale,
    /// The lease ran out, and nothing could be written: whoever comes next takes it over.
    Lost,
}

/// What a first attempt writes in place of parking: the caller hears of the refusal itself.
pub(super) type Refusal =
    Arc<dyn Fn(&mut PgConnection, &HandlerError) -> QueryResult<()> + Send + Sync>;

/// A first attempt, by whoever defers the call.
pub(super) struct First {
    pub(super) deadline: Option<Deadline>,
    pub(super) refusal: Refusal,
}

/// What is to be written.
#[derive(Clone)]
enum Plan {
    Done(Output),
    Refused(HandlerError, Refusal),
    Postpone { error: Option<String>, delay: Duration, counts: bool },
    Park(String),
}

impl Plan {
    /// Whether a row that is there, or nowhere, looks as if this was written.
    fn is_written(&self, stage: Option<Stage>) -> bool {
        match self {
            Self::Done(_) => stage == Some(Stage::Done),
            Self::Refused(..) => stage.is_none(),
            Self::Park(_) => stage == Some(Stage::Parked),
            Self::Postpone { .. } => false,
        }
    }
}

/// So often may a handler's hook fail until the call itself counts as failed.
const HOOK_TRIES: u32 = 3;

impl Shared {
    /// Carries out a row that was claimed, and returns when its outcome is written, or can't be.
    /// `since` is a moment before the claim was sent: the lease counts from there. The place is free
    /// again when this returns.
    ///
    /// Run it in a task of [`Shared::running`], so that a shutdown waits for it.
    pub(super) async fn carry(
        &self,
        kind: &Kind,
        row: Row,
        place: Place,
        since: Instant,
    ) -> Carried {
        let Place { slot, permit } = place;
        let carried = self.execute(kind, row, permit, since, None).await;
        drop(slot);
        carried
    }

    pub(super) async fn execute(
        &self,
        kind: &Kind,
        row: Row,
        permit: Permit<'static>,
        since: Instant,
        first: Option<First>,
    ) -> Carried {
        counts::begun(kind.name, row.lateness());
        let span = self.span(kind, &row, first.is_some());
        let carried = self.carry_out(kind, row, permit, since, first);
        carried.instrument(span).await
    }

    /// By OpenTelemetry's conventions for whoever processes a message; the first attempt is a part of what
    /// its request does.
    fn span(&self, kind: &Kind, row: &Row, first: bool) -> Span {
        let (id, kind, attempt) = (row.id, kind.name, row.attempts);
        if first {
            let name = format_args!("process {kind}");
            return tracing::info_span!("deferred", kind, %id, attempt, otel.name = %name);
        }
        let span = tracing::info_span!(
            "deferred",
            kind,
            %id,
            attempt,
            otel.name = %format_args!("process {kind}"),
            otel.kind = "consumer",
        );
        if let Some(told) = self.on_attempt {
            // What can't be read is said to be so where the call is made.
            told(&span, &serde_json::from_str(&row.context).unwrap_or_default());
        }
        span
    }

    async fn carry_out(
        &self,
        kind: &Kind,
        row: Row,
        permit: Permit<'static>,
        since: Instant,
        first: Option<First>,
    ) -> Carried {
        let until = since + kind.settings.lease;
        let mut run = Run { shared: self, kind, row: &row, until, turn: None };
        let plan = match run.attempt(permit, first).await {
            Ok(plan) => plan,
            Err(carried) => return carried,
        };
        let carried = run.write(plan).await;
        if matches!(carried, Carried::Stale) {
            counts::stale(kind.name);
        }
        if matches!(carried, Carried::Done(_) | Carried::Parked | Carried::Refused(_)) {
            // Nobody may be waiting.
            let _ = self.ended.send(row.id);
        }
        carried
    }
}

/// Beside which others a call is made. Held for as long.
#[expect(dead_code, reason = "held, not read")]
enum Turn<'a> {
    Own,
    Among(RwLockReadGuard<'a, ()>),
    Alone(RwLockWriteGuard<'a, ()>),
}

/// A row under way.
struct Run<'a> {
    shared: &'a Shared,
    kind: &'a Kind,
    row: &'a Row,
    /// Until when the lease lasts at least, by this process's clock.
    until: Instant,
    /// Kept until the outcome is written: until then, the end of the process would be its own.
    turn: Option<Turn<'a>>,
}

impl Run<'_> {
    /// Makes the attempt, under the lease. What is to be written then; or nothing is any more.
    async fn attempt(
        &mut self,
        permit: Permit<'static>,
        first: Option<First>,
    ) -> Result<Plan, Carried> {
        let (id, kind, shared, row) = (self.row.id, self.kind, self.shared, self.row);
        let limit = kind.settings.attempts;
        let strikes = strikes(row);
        let interrupted = row.last_error.as_deref() == Some(ledger::INTERRUPTED);
        if strikes > limit && (row.alone || !interrupted) {
            permit.ignored();
            counts::attempt(kind.name, "given_up");
            let last = row.last_error.as_deref().unwrap_or("nothing is known");
            return Ok(Plan::Park(format!("given up after {} attempts: {last}", strikes - 1)));
        }
        let asked = first.as_ref().map(|first| first.deadline);
        let made = async {
            let turn = match asked {
                // Whoever makes it waits for it, and its interruption isn't held against it.
                Some(_) => Turn::Own,
                // Whose process died so often may be the cause, or have been beside it. Alone it
                // shows.
                None if strikes > limit => {
                    let turn = Turn::Alone(shared.turns.write().await);
                    let token = row.token;
                    let alone = shared.door.lend(move |conn| ledger::begin_alone(conn, id, token));
                    if !matches!(alone.await, Ok(true)) {
                        return (turn, Made::Not);
                    }
                    turn
                }
                None => Turn::Among(shared.turns.read().await),
            };
            (turn, attempt(kind, row, asked.flatten()).await)
        };
        let (turn, made) = tokio::select! {
            biased;
            made = made => made,
            carried = self.beat() => {
                permit.ignored();
                let outcome = if matches!(carried, Carried::Stale) { "stale" } else { "lost" };
                counts::attempt(kind.name, outcome);
                tracing::warn!(%id, kind = kind.name, outcome, "a deferred call lost its lease");
                return Err(carried);
            }
            () = shared.cut.cancelled() => {
                permit.ignored();
                counts::attempt(kind.name, "cut_off");
                return Ok(Plan::Postpone { error: None, delay: Duration::ZERO, counts: false });
            }
        };
        self.turn = Some(turn);
        let result = match made {
            Made::Result(result) => result,
            Made::Unreadable(error) => {
                permit.ignored();
                counts::attempt(kind.name, "unreadable");
                return Ok(Plan::Park(format!("the payload can't be read: {error}")));
            }
            Made::Not => {
                permit.ignored();
                counts::attempt(kind.name, "lost");
                return Err(Carried::Lost);
            }
        };
        settle(kind, permit, &result);
        Ok(match result {
            Ok(output) => Plan::Done(output),
            Err(error @ HandlerError::Permanent { .. }) => match first {
                Some(first) => Plan::Refused(error, first.refusal),
                None => Plan::Park(error.reason().to_owned()),
            },
            Err(error) => self.again(&error),
        })
    }

    /// Extends the lease every third of it. Ends when it is lost.
    async fn beat(&mut self) -> Carried {
        let lease = self.kind.settings.lease;
        let (id, token) = (self.row.id, self.row.token);
        let mut wait = lease / 3;
        let mut next = self.until - lease + wait;
        loop {
            sleep_until(next.min(self.until)).await;
            let asked = Instant::now();
            let beat = self.shared.door.lend(move |conn| ledger::heartbeat(conn, id, token, lease));
            match timeout_at(self.until, beat).await {
                Ok(Ok(true)) => {
                    self.until = asked + lease;
                    wait = lease / 3;
                }
                Ok(Ok(false)) => return Carried::Stale,
                Ok(Err(_)) if Instant::now() < self.until => wait = lease / 20,
                Ok(Err(_)) | Err(_) => return Carried::Lost,
            }
            next = asked + wait;
        }
    }

    /// When a call that failed is to be repeated, if it is.
    fn again(&self, error: &HandlerError) -> Plan {
        let settings = &self.kind.settings;
        let reason = error.reason();
        let strikes = strikes(self.row);
        let asked = |retry_after: &Option<Duration>| {
            retry_after.unwrap_or_default().min(settings.longest_retry_after)
        };
        let (delay, counts) = match error {
            HandlerError::Unavailable { retry_after, .. } => match self.kind.gated() {
                // Everything waits for the probe, and may have to be it.
                Some(rejection) => (rejection.retry_after(), false),
                // By the strikes, which an outage doesn't add to: or the first failures of the next
                // one would wait for long after it.
                None => (wait(&settings.backoff, strikes).max(asked(retry_after)), false),
            },
            HandlerError::NotYet { retry_after, .. } => {
                let attempts = u32::try_from(self.row.attempts).unwrap_or_default();
                (wait(&settings.backoff, attempts).max(asked(retry_after)), false)
            }
            HandlerError::Failed { .. } | HandlerError::Permanent { .. } => {
                if strikes >= settings.attempts {
                    return Plan::Park(format!("given up after {strikes} attempts: {reason}"));
                }
                (wait(&settings.backoff, strikes), true)
            }
        };
        Plan::Postpone { error: Some(reason.to_owned()), delay, counts }
    }

    /// Writes what came out, as long as the lease lasts: the database may be away.
    async fn write(&self, mut plan: Plan) -> Carried {
        let (id, kind) = (self.row.id, self.kind.name);
        let mut delays = waits().delays();
        let hooks_failed = Arc::new(AtomicU32::new(0));
        // Whether an earlier try had no answer: it may be committed.
        let mut unknown = false;
        loop {
            let error = match self.try_write(&plan, &hooks_failed, unknown).await {
                Ok(true) => return self.written(plan),
                Ok(false) => {
                    tracing::warn!(%id, kind, "overtaken: the outcome of a deferred call is stale");
                    return Carried::Stale;
                }
                Err(error) => error,
            };
            unknown = true;
            if hooks_failed.load(Ordering::Relaxed) >= HOOK_TRIES
                && let Some(instead) = self.instead(&plan, &error)
            {
                hooks_failed.store(0, Ordering::Relaxed);
                plan = instead;
                continue;
            }
            let wait = delays.next().unwrap_or_default();
            if Instant::now() + wait >= self.until {
                let error = error.cause();
                tracing::warn!(%id, kind, error, "the outcome of a deferred call can't be written");
                return Carried::Lost;
            }
            sleep(wait).await;
        }
    }

    async fn try_write(
        &self,
        plan: &Plan,
        hooks_failed: &Arc<AtomicU32>,
        mut unknown: bool,
    ) -> Result<bool, DatabaseError> {
        let (id, token) = (self.row.id, self.row.token);
        let ends = self.until.max(Instant::now() + Duration::from_millis(100));
        if let Plan::Done(output) = plan {
            let made = Finished { id, token, output: Arc::clone(output) };
            let together = self.kind.ends.ask(&self.shared.door, made);
            match timeout_at(ends, together).await {
                Ok(Some(Some(mine))) if mine || !unknown => return Ok(mine),
                // Locked: only this call waits for whoever has it.
                Ok(Some(None)) => {}
                _ => unknown = true,
            }
        }
        let handler = Arc::clone(&self.kind.handler);
        let hooks_failed = Arc::clone(hooks_failed);
        let plan = plan.clone();
        let work = move |conn: &mut PgConnection| {
            let mine = match &plan {
                Plan::Done(_) => ledger::finish(conn, id, token)?,
                Plan::Refused(..) => ledger::forget(conn, id, token)?,
                Plan::Park(reason) => ledger::park(conn, id, token, reason)?,
                Plan::Postpone { error, delay, counts } => {
                    ledger::postpone(conn, id, token, error.as_deref(), *delay, *counts)?
                }
            };
            if !mine {
                // It may be what an earlier try has written.
                return Ok(unknown && plan.is_written(ledger::stage(conn, id)?));
            }
            let hook = match &plan {
                Plan::Done(output) => handler.done(conn, id, output),
                Plan::Refused(error, refusal) => refusal(conn, error),
                Plan::Park(reason) => handler.parked(conn, id, reason),
                Plan::Postpone { .. } => Ok(()),
            };
            let hook = hook.and_then(|()| ledger::unbroken(conn));
            if hook.is_err() {
                hooks_failed.fetch_add(1, Ordering::Relaxed);
            }
            hook.map(|()| true)
        };
        match timeout_at(ends, self.shared.door.run(work)).await {
            Ok(result) => result,
            Err(late) => Err(DatabaseError::new(late)),
        }
    }

    /// What to write when a hook goes on failing: the call is made again, so that whoever repairs
    /// the hook loses nothing.
    fn instead(&self, plan: &Plan, error: &DatabaseError) -> Option<Plan> {
        let reason = format!("its end could not be written: {}", error.cause());
        match plan {
            Plan::Done(_) | Plan::Refused(..) => Some(self.again(&HandlerError::Failed { reason })),
            Plan::Park(_) => {
                let delay = wait(&self.kind.settings.backoff, u32::MAX);
                Some(Plan::Postpone { error: Some(reason), delay, counts: true })
            }
            Plan::Postpone { .. } => None,
        }
    }

    fn written(&self, plan: Plan) -> Carried {
        let (id, kind, attempt) = (self.row.id, self.kind.name, self.row.attempts);
        match plan {
            Plan::Done(output) => {
                tracing::info!(%id, kind, attempt, "deferred call done");
                Carried::Done(output)
            }
            Plan::Refused(error, _) => Carried::Refused(error),
            Plan::Postpone { error, delay, .. } => {
                let wait_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
                let error = error.as_deref().unwrap_or("cut off by a shutdown");
                tracing::warn!(%id, kind, attempt, error, wait_ms, "deferred call failed");
                self.kind.wake();
                self.shared.relay.notify_one();
                Carried::Postponed
            }
            Plan::Park(reason) => {
                tracing::error!(%id, kind, attempt, reason, "deferred call parked");
                Carried::Parked
            }
        }
    }
}

/// The attempts that count, this one included. None for a first attempt.
fn strikes(row: &Row) -> u32 {
    u32::try_from(row.strikes).unwrap_or_default()
}

/// The wait after the n-th attempt.
fn wait(backoff: &Backoff, n: u32) -> Duration {
    // By then any wait has grown to its maximum.
    let n = usize::try_from(n.saturating_sub(1).min(64)).unwrap_or_default();
    backoff.delays().nth(n).unwrap_or_default()
}
