//! What is deferred.

use std::collections::BTreeMap;
use std::slice::from_ref;
use std::time::Duration;

use diesel::result::Error as QueryError;
use diesel::{PgConnection, QueryResult};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::handler::Handler;
use super::ledger;

/// A call to be made later, by the [`Handler`] of its kind.
#[derive(Clone, Debug)]
pub struct Deferral {
    pub(super) id: Uuid,
    pub(super) kind: &'static str,
    pub(super) payload: Box<RawValue>,
    pub(super) context: BTreeMap<String, String>,
    pub(super) delay: Duration,
}

impl Deferral {
    /// A call for this kind of handler. The id is minted by you and is the call's idempotency key:
    /// deferring it twice is deferring it once.
    ///
    /// # Errors
    ///
    /// When the payload can't be serialized.
    pub fn new<H: Handler>(id: Uuid, payload: &H::Payload) -> Result<Self, serde_json::Error> {
        Ok(Self {
            id,
            kind: H::KIND,
            payload: serde_json::value::to_raw_value(payload)?,
            context: BTreeMap::new(),
            delay: Duration::ZERO,
        })
    }

    /// With a payload of ours, which can be serialized.
    #[cfg(feature = "saga")]
    pub(crate) fn of<H: Handler>(id: Uuid, payload: &H::Payload) -> Self {
        let payload = serde_json::value::to_raw_value(payload);
        let payload = payload.unwrap_or_else(|_| RawValue::NULL.to_owned());
        let (context, delay) = (BTreeMap::new(), Duration::ZERO);
        Self { id, kind: H::KIND, payload, context, delay }
    }

    /// Not before so much time has passed since it was written down, by the database's clock.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// What travels with the call and isn't its payload: trace headers, a request's id.
    #[must_use]
    pub fn with_context(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.context.insert(name.into(), value.into());
        self
    }

    /// Its id.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// The kind of its handler.
    pub fn kind(&self) -> &'static str {
        self.kind
    }
}

/// Writes a call down, in the transaction of this connection. From its commit on the call ends as
/// done or parked, whatever dies. False when one of this id is there already: nothing is written
/// then.
///
/// A runtime finds it within half a second; [`nudge`](super::Deferred::nudge) it after the commit,
/// and it begins at once.
///
/// # Errors
///
/// The database's.
pub fn defer(conn: &mut PgConnection, call: &Deferral) -> QueryResult<bool> {
    let written = ledger::insert(conn, from_ref(call))? == 1;
    if written {
        tracing::info!(id = %call.id, kind = call.kind, "deferred");
    }
    Ok(written)
}

/// [`defer`] for many, in one statement, at a fraction of its cost per call. Returns how many were
/// written: those of whose id there is one already are left out.
///
/// # Errors
///
/// The database's: then none is written.
pub fn defer_all(conn: &mut PgConnection, calls: &[Deferral]) -> QueryResult<usize> {
    let written = ledger::insert(conn, calls)?;
    tracing::info!(calls = calls.len(), written, "deferred");
    Ok(written)
}

/// Writes a call down that only its caller may carry out as long as the lease lasts, in the
/// transaction of this connection: what is to be done should the caller die. Before the lease is
/// over, [forget](Hold::forget) or [release](Hold::release) it; otherwise the runtime carries it
/// out.
///
/// One of this id that is held already changes hands: its former holder can do nothing with it any
/// more. One that an operator has discarded begins anew. Nothing when it is in the runtime's hands, or
/// has ended otherwise.
///
/// # Errors
///
/// The database's; and when there is a call of this id and of another kind, which is left alone.
pub fn hold(
    conn: &mut PgConnection,
    call: &Deferral,
    lease: Duration,
) -> QueryResult<Option<Hold>> {
    let token = Uuid::new_v4();
    let held = ledger::hold(conn, call, token, lease)?;
    if !held && let Some(other) = ledger::kind_of(conn, call.id)?.filter(|kind| kind != call.kind) {
        return Err(QueryError::QueryBuilderError(
            format!("{} is the id of a call of the kind {other:?}, not {:?}", call.id, call.kind)
                .into(),
        ));
    }
    Ok(held.then(|| Hold { call: call.clone(), token }))
}

/// A call that its caller [holds](hold).
#[derive(Clone, Debug)]
pub struct Hold {
    call: Deferral,
    token: Uuid,
}

impl Hold {
    /// The call's id.
    pub fn id(&self) -> Uuid {
        self.call.id
    }

    /// The call isn't needed: it is deleted, in the transaction of this connection. False when it
    /// isn't held any more: the runtime is carrying it out, or has.
    ///
    /// When nobody knows whether the transaction was committed, and the call is needed if it was
    /// not, [make sure of it](super::Deferred::make_sure).
    ///
    /// # Errors
    ///
    /// The database's.
    pub fn forget(&self, conn: &mut PgConnection) -> QueryResult<bool> {
        ledger::forget(conn, self.call.id, self.token)
    }

    /// The call is the runtime's from now on, in the transaction of this connection.
    /// [Nudge](super::Deferred::nudge) it after the commit. False when it isn't held any more: the
    /// runtime has it already, or somebody else holds it.
    ///
    /// # Errors
    ///
    /// The database's.
    pub fn release(&self, conn: &mut PgConnection) -> QueryResult<bool> {
        ledger::postpone(conn, self.call.id, self.token, None, Duration::ZERO, false)
    }

    /// The call is the runtime's, whether it was forgotten or not. False when somebody else has it.
    pub(super) fn reinstate(&self, conn: &mut PgConnection) -> QueryResult<bool> {
        Ok(self.release(conn)? || ledger::insert(conn, from_ref(&self.call))? == 1)
    }
}
