//! Now, or else later.

use std::error::Error;
use std::fmt;
use std::slice::from_ref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use diesel::PgConnection;
use diesel::result::Error as QueryError;
use tokio::time::Instant;
use tracing::Instrument as _;
use uuid::Uuid;

use super::call::Deferral;
use super::database::DatabaseError;
use super::executor::{Carried, First, Refusal};
use super::handle::Deferred;
use super::handler::{Handler, HandlerError};
use super::ledger::{self, Row};
use super::operators::Stage;
use crate::breaker::Permit;
use crate::deadline::Deadline;

/// What became of a call that was [submitted](Deferred::submit).
#[derive(Clone, Debug)]
pub enum Submitted<T> {
    /// It was made, and this is what it came to.
    Done(Arc<T>),
    /// It was refused for good, and is forgotten.
    Refused(HandlerError),
    /// It is in the ledger, and will be made.
    Deferred,
    /// A call of this id is there already, and this is where it is: nothing was written.
    Known(Stage),
}

/// Why a call could not be submitted: nothing was promised.
#[derive(Clone, Debug)]
pub enum SubmitError<E> {
    /// The database can't be reached, or didn't say what became of it: should the call be written
    /// down all the same, it will be made. Submit it again under the same id.
    Database(DatabaseError),
    /// The caller's own part of the transaction failed; all of it is taken back.
    Prepare(E),
}

impl<E> fmt::Display for SubmitError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database(error) => error.fmt(f),
            Self::Prepare(_) => f.write_str("the call could not be prepared"),
        }
    }
}

impl<E: Error + 'static> Error for SubmitError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Database(error) => error.source(),
            Self::Prepare(error) => Some(error),
        }
    }
}

/// What the first transaction came to.
enum Written {
    New,
    Known(Stage),
}

impl Deferred {
    /// Makes the call now, or else later.
    ///
    /// In one transaction, `prepare` writes what belongs to the call, and the call is written down.
    /// While the kind's [breaker](Self::breaker) rejects calls, that is all: it is
    /// [`Submitted::Deferred`]. Otherwise the handler makes the first attempt at once. When that
    /// succeeds, its end and [`Handler::done`] are one transaction. When it is refused for good, the
    /// call is forgotten, in one transaction with `refused`, which takes back what `prepare` wrote.
    /// After any other failure the call is the runtime's.
    ///
    /// With a deadline before the kind's [`timeout`](super::Settings::timeout) the first attempt
    /// ends there; that it did says nothing about the dependency.
    ///
    /// The first attempt is under a lease. The future may be dropped at any point: the attempt goes
    /// on. Should the process die, or the database be away when it has ended, the runtime makes the
    /// call again. Whoever submits it under the same id meanwhile learns where it is.
    ///
    /// # Errors
    ///
    /// When nothing is promised.
    ///
    /// # Panics
    ///
    /// When the call is of another kind than the handler, or the runtime was built without it.
    pub async fn submit<H, E>(
        &self,
        call: Deferral,
        deadline: Option<Deadline>,
        prepare: impl FnOnce(&mut PgConnection) -> Result<(), E> + Send + 'static,
        refused: impl Fn(&mut PgConnection, &HandlerError) -> Result<(), QueryError>
        + Send
        + Sync
        + 'static,
    ) -> Result<Submitted<H::Output>, SubmitError<E>>
    where
        H: Handler,
        E: Send + 'static,
    {
        assert_eq!(call.kind, H::KIND, "the call is for another handler");
        let kind = Arc::clone(self.kind::<H>());
        let Ok(permit) = kind.gate.acquire_owned() else {
            return Ok(match self.write_down(call, None, prepare).await? {
                Written::New => {
                    self.nudge();
                    Submitted::Deferred
                }
                Written::Known(stage) => Submitted::Known(stage),
            });
        };
        // Ended as ignored, not abandoned, wherever this is dropped before the attempt begins.
        let permit = Unused(Some(permit));
        let (token, since) = (Uuid::new_v4(), Instant::now());
        let row = Row::held(&call, token);
        match self.write_down(call, Some((token, kind.settings.lease)), prepare).await? {
            Written::New => {}
            Written::Known(stage) => return Ok(Submitted::Known(stage)),
        }
        let Some(permit) = permit.take() else { return Ok(Submitted::Deferred) };
        let refusal: Refusal = Arc::new(refused);
        let shared = Arc::clone(&self.shared);
        let first = First { deadline, refusal };
        let attempt = async move { shared.execute(&kind, row, permit, since, Some(first)).await };
        // A task of its own: it goes on when the caller is dropped.
        let carried = self.shared.running.spawn(attempt.in_current_span()).await;
        Ok(match carried {
            Ok(Carried::Done(output)) => {
                let output = output.downcast().ok();
                Submitted::Done(output.unwrap_or_else(|| panic!("two handlers of {}", H::KIND)))
            }
            Ok(Carried::Refused(error)) => Submitted::Refused(error),
            // It is in the ledger, whoever has it now.
            Ok(Carried::Postponed | Carried::Parked | Carried::Stale | Carried::Lost) | Err(_) => {
                Submitted::Deferred
            }
        })
    }

    /// Runs the caller's part and writes the call down: to be held when there is a token and a
    /// lease, else for the runtime.
    async fn write_down<E: Send + 'static>(
        &self,
        call: Deferral,
        held: Option<(Uuid, Duration)>,
        prepare: impl FnOnce(&mut PgConnection) -> Result<(), E> + Send + 'static,
    ) -> Result<Written, SubmitError<E>> {
        let failed = Arc::new(Mutex::new(None));
        let failure = Arc::clone(&failed);
        let work = move |conn: &mut PgConnection| {
            let written = match held {
                Some((token, lease)) => ledger::begin(conn, &call, token, lease)?,
                None => ledger::insert(conn, from_ref(&call))? == 1,
            };
            if !written {
                let stage = ledger::stage(conn, call.id)?;
                return Ok(Written::Known(stage.ok_or(QueryError::NotFound)?));
            }
            prepare(conn).map_err(|error| {
                *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                QueryError::RollbackTransaction
            })?;
            ledger::unbroken(conn)?;
            tracing::info!(id = %call.id, kind = call.kind, "deferred");
            Ok(Written::New)
        };
        let result = self.shared.door.run(work).await;
        let failed = failed.lock().unwrap_or_else(PoisonError::into_inner).take();
        match failed {
            Some(error) => Err(SubmitError::Prepare(error)),
            None => result.map_err(SubmitError::Database),
        }
    }
}

/// A permit that was not used yet.
struct Unused(Option<Permit<'static>>);

impl Unused {
    fn take(mut self) -> Option<Permit<'static>> {
        self.0.take()
    }
}

impl Drop for Unused {
    fn drop(&mut self) {
        if let Some(permit) = self.0.take() {
            permit.ignored();
        }
    }
}
