//! A kind of calls in this process: its handler, its gate and its places.

use std::any::Any;
#[cfg(feature = "rabbitmq")]
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
#[cfg(feature = "rabbitmq")]
use std::sync::{Mutex, MutexGuard, PoisonError};

use diesel::{Connection as _, PgConnection, QueryResult};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde::de::{DeserializeOwned, Error as _};
use tokio::sync::Notify;
use uuid::Uuid;

use super::combine::Combiner;
use super::handler::{Attempt, Handler, HandlerError, storable};
use super::ledger::{self, Row};
use super::settings::Settings;
use super::slots::{Slot, Slots};
use crate::breaker::{Breaker, Permit, Rejection, State};
use crate::deadline::Deadline;

/// One kind of calls, as everything in the runtime sees it.
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) settings: Settings,
    /// While it is open, nothing of the kind is claimed or consumed, but one row as the probe.
    pub(super) gate: Breaker,
    pub(super) slots: Arc<Slots>,
    /// Told when there may be something to do: a row was deferred, the gate may have opened.
    pub(super) wake: Notify,
    pub(super) handler: Arc<dyn Carries>,
    /// Of messages, by id and token.
    #[cfg(feature = "rabbitmq")]
    pub(super) claims: Arc<Combiner<(Uuid, Uuid), Claim>>,
    /// Messages that were dropped because of a locked row: it is to be taken back when it can be.
    #[cfg(feature = "rabbitmq")]
    dropped: Mutex<Vec<(Uuid, Uuid)>>,
    /// Of calls that were made. False when somebody else has taken over; nothing when somebody has
    /// locked the row: ask by yourself then.
    pub(super) ends: Arc<Combiner<Finished, Option<bool>>>,
}

/// What a message was good for.
#[cfg(feature = "rabbitmq")]
pub(super) enum Claim {
    /// Its row is to be carried out.
    Row(Box<Row>),
    /// Somebody else has locked the row, whatever for.
    Locked,
    /// None: somebody else has taken over, or it is over.
    Stale,
}

/// A call that was made.
pub(super) struct Finished {
    pub(super) id: Uuid,
    pub(super) token: Uuid,
    pub(super) output: Output,
}

/// Leave to carry out one row: from the gate, and a place. Get it *before* the row is claimed, so
/// that no attempt is burnt.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) slot: Slot,
    pub(super) permit: Permit<'static>,
}

impl Place {
    /// There was nothing to carry out.
    pub(super) fn unused(self) {
        self.permit.ignored();
    }
}

impl Kind {
    pub(super) fn new<H: Handler>(handler: H, settings: Settings) -> Self {
        let own = || {
            let lease = settings.timeout.saturating_mul(2);
            Breaker::builder(H::KIND).probe_lease(lease).build()
        };
        let gate = settings.breaker.clone().unwrap_or_else(own);
        let name = H::KIND;
        #[cfg(feature = "rabbitmq")]
        let lease = settings.lease;
        let handler: Arc<dyn Carries> = Arc::new(Typed(Arc::new(handler)));
        let ending = Arc::clone(&handler);
        Self {
            name,
            slots: Arc::new(Slots::new(settings.concurrency)),
            settings,
            gate,
            wake: Notify::new(),
            handler,
            #[cfg(feature = "rabbitmq")]
            claims: Combiner::new(move |conn, messages| claim(conn, name, messages, lease)),
            #[cfg(feature = "rabbitmq")]
            dropped: Mutex::default(),
            ends: Combiner::new(move |conn, made| {
                conn.transaction(|conn| end(conn, &*ending, made))
            }),
        }
    }

    /// Whether nothing of the kind is to be carried out now: its breaker is open, or half-open with
    /// its probe under way. When its wait is over, it isn't gated, and who is
    /// [admitted](Self::admit) first is the probe.
    pub(super) fn gated(&self) -> Option<Rejection> {
        self.gate.check().err()
    }

    /// As many places as the gate lets through now, at most one for each slot. While the breaker
    /// probes that is one; while it is open there is none, but the reason.
    pub(super) fn admit(&self, slots: Vec<Slot>) -> Result<Vec<Place>, Rejection> {
        let mut places = Vec::with_capacity(slots.len());
        for slot in slots {
            match self.gate.acquire_owned() {
                Ok(permit) => places.push(Place { slot, permit }),
                Err(rejection) if places.is_empty() => {
                    self.slots.narrow();
                    return Err(rejection);
                }
                Err(_) => break,
            }
        }
        if !matches!(self.gate.state(), State::Closed | State::ForcedClosed) {
            self.slots.narrow();
        }
        Ok(places)
    }

    /// Locked for no longer than it takes to look.
    #[cfg(feature = "rabbitmq")]
    pub(super) fn dropped(&self) -> MutexGuard<'_, Vec<(Uuid, Uuid)>> {
        self.dropped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kind").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A message that came twice gets its row once.
#[cfg(feature = "rabbitmq")]
fn claim(
    conn: &mut PgConnection,
    kind: &str,
    messages: &[(Uuid, Uuid)],
    lease: std::time::Duration,
) -> QueryResult<Vec<Claim>> {
    let rows = ledger::claim_sent(conn, kind, messages, lease)?;
    let mut rows: HashMap<_, _> = rows.into_iter().map(|row| ((row.id, row.token), row)).collect();
    let locked = if rows.len() < messages.len() {
        ledger::locked(conn, kind, messages)?
    } else {
        HashSet::new()
    };
    let claim = |message: &(Uuid, Uuid)| match rows.remove(message) {
        Some(row) => Claim::Row(Box::new(row)),
        None if locked.contains(message) => Claim::Locked,
        None => Claim::Stale,
    };
    Ok(messages.iter().map(claim).collect())
}

fn end(
    conn: &mut PgConnection,
    handler: &dyn Carries,
    made: &[Finished],
) -> QueryResult<Vec<Option<bool>>> {
    let calls: Vec<_> = made.iter().map(|made| (made.id, made.token)).collect();
    let (finished, locked) = ledger::finish_all(conn, &calls)?;
    let end = |made: &Finished| {
        if finished.contains(&made.id) {
            handler.done(conn, made.id, &made.output).map(|()| Some(true))
        } else {
            Ok((!locked.contains(&made.id)).then_some(false))
        }
    };
    let ended = made.iter().map(end).collect::<QueryResult<_>>()?;
    ledger::unbroken(conn)?;
    Ok(ended)
}

/// What a handler's call came to, without its type.
pub(super) type Output = Arc<dyn Any + Send + Sync>;

/// A [`Handler`] without its types.
pub(super) trait Carries: Send + Sync {
    /// The call of this row, not yet begun; an error when the row can't be read.
    fn call(
        &self,
        row: &Row,
        deadline: Deadline,
    ) -> Result<BoxFuture<'static, Result<Output, HandlerError>>, serde_json::Error>;
    fn done(&self, conn: &mut PgConnection, id: Uuid, output: &Output) -> QueryResult<()>;
    fn parked(&self, conn: &mut PgConnection, id: Uuid, reason: &str) -> QueryResult<()>;
    fn discarded(&self, conn: &mut PgConnection, id: Uuid) -> QueryResult<()>;
    fn resumed(&self, conn: &mut PgConnection, id: Uuid) -> QueryResult<()>;
}

/// What is in a row. The error quotes it, and is to be written down in its turn.
fn read<T: DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    serde_json::from_str(text)
        .map_err(|error| serde_json::Error::custom(storable(error.to_string())))
}

struct Typed<H>(Arc<H>);

impl<H: Handler> Carries for Typed<H> {
    fn call(
        &self,
        row: &Row,
        deadline: Deadline,
    ) -> Result<BoxFuture<'static, Result<Output, HandlerError>>, serde_json::Error> {
        let attempt = Attempt {
            id: row.id,
            number: u32::try_from(row.attempts).unwrap_or_default(),
            deadline,
            payload: read(&row.payload)?,
            context: read(&row.context)?,
        };
        let handler = Arc::clone(&self.0);
        let made = async move {
            match handler.run(attempt).await {
                Ok(output) => Ok(Arc::new(output) as Output),
                Err(error) => Err(error.storable()),
            }
        };
        Ok(made.boxed())
    }

    fn done(&self, conn: &mut PgConnection, id: Uuid, output: &Output) -> QueryResult<()> {
        match output.downcast_ref() {
            Some(output) => self.0.done(conn, id, output),
            // It came out of `call`, just above.
            None => Err(diesel::result::Error::RollbackTransaction),
        }
    }

    fn parked(&self, conn: &mut PgConnection, id: Uuid, reason: &str) -> QueryResult<()> {
        self.0.parked(conn, id, reason)
    }

    fn discarded(&self, conn: &mut PgConnection, id: Uuid) -> QueryResult<()> {
        self.0.discarded(conn, id)
    }

    fn resumed(&self, conn: &mut PgConnection, id: Uuid) -> QueryResult<()> {
        self.0.resumed(conn, id)
    }
}
