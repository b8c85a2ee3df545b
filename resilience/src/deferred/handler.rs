//! Who carries deferred calls out.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use diesel::{PgConnection, QueryResult};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::deadline::Deadline;

/// Carries out the calls of one kind.
///
/// A call may be carried out more than once: after a crash nobody knows how far it came. What it
/// does elsewhere must happen once per [`Attempt::id`], by passing that on as the idempotency key.
/// What it does in the ledger's own database belongs into [`done`](Self::done), which is one commit
/// with the end of the call.
pub trait Handler: Send + Sync + 'static {
    /// Names the kind in the ledger and in the broker, for good: rows and queues outlive releases.
    /// Lower case letters, digits, `-`, `_` and `.`, at most 100 bytes.
    const KIND: &'static str;
    /// What a call of this kind needs to know.
    type Payload: Serialize + DeserializeOwned + Send + Sync + 'static;
    /// What it comes to.
    type Output: Send + Sync + 'static;

    /// Makes the call. Never holds a connection to the ledger's database meanwhile.
    fn run(
        &self,
        attempt: Attempt<Self::Payload>,
    ) -> impl Future<Output = Result<Self::Output, HandlerError>> + Send;

    /// The call was made: what else is to be written, in the same transaction. An error takes the
    /// end of the call back with it: `done` is asked again, and in the end the call is made again.
    ///
    /// Calls that end at the same time may share a transaction: what waits for locks here makes them
    /// wait.
    ///
    /// # Errors
    ///
    /// The database's.
    fn done(&self, conn: &mut PgConnection, id: Uuid, output: &Self::Output) -> QueryResult<()> {
        let _ = (conn, id, output);
        Ok(())
    }

    /// The call is given up, for this reason: what else is to be written, in the same transaction.
    ///
    /// # Errors
    ///
    /// The database's.
    fn parked(&self, conn: &mut PgConnection, id: Uuid, reason: &str) -> QueryResult<()> {
        let _ = (conn, id, reason);
        Ok(())
    }

    /// An operator has discarded the call: nobody will make it, unless it is
    /// [resumed](Self::resumed). What was to follow from its end follows from nothing else any more.
    /// Of a call that was not parked yet, after [`parked`](Self::parked), in the same transaction.
    ///
    /// # Errors
    ///
    /// The database's.
    fn discarded(&self, conn: &mut PgConnection, id: Uuid) -> QueryResult<()> {
        let _ = (conn, id);
        Ok(())
    }

    /// An operator has what was parked tried again: takes back what [`parked`](Self::parked) wrote,
    /// in the same transaction.
    ///
    /// # Errors
    ///
    /// The database's.
    fn resumed(&self, conn: &mut PgConnection, id: Uuid) -> QueryResult<()> {
        let _ = (conn, id);
        Ok(())
    }
}

/// A call under way.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Attempt<P> {
    /// The call's id: its idempotency key wherever it has an effect.
    pub id: Uuid,
    /// One for the first attempt.
    pub number: u32,
    /// When it is cut off.
    pub deadline: Deadline,
    /// What the call needs to know.
    pub payload: P,
    /// What travels with it.
    pub context: BTreeMap<String, String>,
}

#[cfg(feature = "saga")]
impl<P> Attempt<P> {
    /// Another one at the same call.
    #[cfg(feature = "testkit")]
    pub(crate) fn clone_with<T>(&self, payload: T) -> Attempt<T> {
        let Self { id, number, deadline, payload: _, context } = self;
        let (id, number, deadline) = (*id, *number, *deadline);
        Attempt { id, number, deadline, payload, context: context.clone() }
    }

    /// The same attempt, with what its payload was read as.
    pub(crate) fn with_payload<T>(self, payload: T) -> Attempt<T> {
        let Self { id, number, deadline, payload: _, context } = self;
        Attempt { id, number, deadline, payload, context }
    }
}

/// Why a call could not be carried out, and what follows from it.
///
/// The reason is kept in the ledger, up to 4000 characters of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandlerError {
    /// The dependency can't answer: counts against the kind's breaker and not against the call,
    /// which is repeated for as long as it takes.
    Unavailable {
        /// Why, for people.
        reason: String,
        /// Trying again before this has passed makes no sense.
        retry_after: Option<Duration>,
    },
    /// The dependency is there, and it is too early: counts against nothing. Repeated.
    NotYet {
        /// Why, for people.
        reason: String,
        /// Trying again before this has passed makes no sense.
        retry_after: Option<Duration>,
    },
    /// It failed, and may succeed when it is repeated: counts against the breaker and the call,
    /// which is parked when its schedule's attempts are used up.
    Failed {
        /// Why, for people.
        reason: String,
    },
    /// It was refused for good: parked. For the breaker a success, the dependency has answered.
    Permanent {
        /// Why, for people.
        reason: String,
    },
}

impl HandlerError {
    /// [`Unavailable`](Self::Unavailable), for this reason.
    pub fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable { reason: reason.into(), retry_after: None }
    }

    /// [`NotYet`](Self::NotYet), for this reason.
    pub fn not_yet(reason: impl Into<String>) -> Self {
        Self::NotYet { reason: reason.into(), retry_after: None }
    }

    /// [`Failed`](Self::Failed), for this reason.
    pub fn failed(reason: impl Into<String>) -> Self {
        Self::Failed { reason: reason.into() }
    }

    /// [`Permanent`](Self::Permanent), for this reason.
    pub fn permanent(reason: impl Into<String>) -> Self {
        Self::Permanent { reason: reason.into() }
    }

    /// Why, for people.
    pub fn reason(&self) -> &str {
        match self {
            Self::Unavailable { reason, .. }
            | Self::NotYet { reason, .. }
            | Self::Failed { reason }
            | Self::Permanent { reason } => reason,
        }
    }
}

impl HandlerError {
    /// With a reason that the ledger can hold, whosever words it is.
    pub(super) fn storable(mut self) -> Self {
        let (Self::Unavailable { reason, .. }
        | Self::NotYet { reason, .. }
        | Self::Failed { reason }
        | Self::Permanent { reason }) = &mut self;
        *reason = storable(std::mem::take(reason));
        self
    }
}

/// The most characters of a reason that are kept.
const LONGEST_REASON: usize = 4000;

/// PostgreSQL has no text with a NUL: what can't be written down would be lost with the attempt.
pub(crate) fn storable(reason: String) -> String {
    let end = reason.char_indices().nth(LONGEST_REASON).map_or(reason.len(), |(end, _)| end);
    if end == reason.len() && !reason.contains('\0') {
        return reason;
    }
    reason[..end].replace('\0', "\u{fffd}")
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for HandlerError {}
