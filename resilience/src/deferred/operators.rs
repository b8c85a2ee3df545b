//! What operators do: look, repeat, discard.

use std::error::Error;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::result::Error as QueryError;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::database::DatabaseError;
use super::handle::Deferred;
use super::ledger;
use super::shared::Broker;

/// Where a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// It waits: for its time, for its turn, or for its dependency.
    Pending,
    /// The broker has it.
    Sent,
    /// It is being made.
    Running,
    /// It was made.
    Done,
    /// It was given up. An operator may have it [repeated](Deferred::retry).
    Parked,
}

impl Stage {
    /// All of them, in the order in which a call goes through them.
    pub const ALL: [Self; 5] = [Self::Pending, Self::Sent, Self::Running, Self::Done, Self::Parked];

    /// `pending`, `sent`, `running`, `done` or `parked`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Sent => "sent",
            Self::Running => "running",
            Self::Done => "done",
            Self::Parked => "parked",
        }
    }

    /// Done or parked.
    pub const fn has_ended(self) -> bool {
        matches!(self, Self::Done | Self::Parked)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Stage {
    type Err = UnknownStage;

    fn from_str(text: &str) -> Result<Self, UnknownStage> {
        Self::ALL.into_iter().find(|stage| stage.as_str() == text).ok_or(UnknownStage)
    }
}

/// A text that names no [`Stage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownStage;

impl fmt::Display for UnknownStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("pending, sent, running, done or parked")
    }
}

impl Error for UnknownStage {}

/// One call in the ledger, with all that is known of it.
#[derive(Clone, Debug, serde::Serialize)]
#[non_exhaustive]
pub struct Entry {
    /// Its id, which is its idempotency key.
    pub id: Uuid,
    /// The kind of its handler.
    pub kind: String,
    /// Where it is.
    pub stage: Stage,
    /// How often it was begun.
    pub attempts: u32,
    /// How many of these counted against its limit, and failed or were interrupted.
    pub strikes: u32,
    /// When it is due, or was.
    pub not_before: DateTime<Utc>,
    /// Until when whoever makes it, or holds it, has it at least; after that somebody else does.
    pub lease_until: Option<DateTime<Utc>>,
    /// When it was written down.
    pub created_at: DateTime<Utc>,
    /// When the broker took it, if one did.
    pub sent_at: Option<DateTime<Utc>>,
    /// When it was last begun.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
    /// When an operator discarded it.
    pub discarded_at: Option<DateTime<Utc>>,
    /// What went wrong first.
    pub first_error: Option<String>,
    /// When that was.
    pub first_error_at: Option<DateTime<Utc>>,
    /// What went wrong last: of a parked one, why it was given up.
    pub last_error: Option<String>,
    /// When that was.
    pub last_error_at: Option<DateTime<Utc>>,
    /// What the call needs to know, as it was deferred.
    pub payload: Box<RawValue>,
    /// What travels with it.
    pub context: Box<RawValue>,
}

/// Which calls to [list](Deferred::list).
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Filter {
    pub(super) stage: Option<Stage>,
    pub(super) kind: Option<String>,
    pub(super) limit: Option<u32>,
    pub(super) without_discarded: bool,
}

impl Filter {
    /// Those that have not ended, and those that are parked and not discarded; the newest 100.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only those that are there; discarded ones too.
    pub fn stage(mut self, stage: Stage) -> Self {
        self.stage = Some(stage);
        self
    }

    /// None of those that are discarded, where a stage is asked for.
    pub fn without_discarded(mut self) -> Self {
        self.without_discarded = true;
        self
    }

    /// Only those of this kind.
    pub fn kind(mut self, kind: impl Into<String>) -> Self {
        self.kind = Some(kind.into());
        self
    }

    /// At most so many, up to 1000. The default is 100.
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = Some(limit);
        self
    }
}

/// What an operator asked for can't be done.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum OperatorError {
    /// There is no such call.
    Unknown,
    /// Not with a call that is there.
    Stage(Stage),
    /// The database can't be reached, or refused.
    Database(DatabaseError),
}

impl fmt::Display for OperatorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("there is no such call"),
            Self::Stage(Stage::Running) => f.write_str("the call is being made at this moment"),
            Self::Stage(stage) => write!(f, "the call is {stage}"),
            Self::Database(error) => error.fmt(f),
        }
    }
}

impl Error for OperatorError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Database(error) => error.source(),
            Self::Unknown | Self::Stage(_) => None,
        }
    }
}

/// The deferred calls at one moment.
#[derive(Clone, Debug, serde::Serialize)]
#[non_exhaustive]
pub struct Snapshot {
    /// Who carries them.
    pub broker: Broker,
    /// Each kind that there is a handler for, or a call in the ledger that is not done or discarded.
    pub kinds: Vec<KindSnapshot>,
}

/// The deferred calls of a kind at one moment. Those that are done aren't counted, as it would take
/// too long, nor those that are discarded.
#[derive(Clone, Debug, Default, serde::Serialize)]
#[non_exhaustive]
pub struct KindSnapshot {
    /// The kind.
    pub kind: String,
    /// Calls that wait.
    pub pending: u64,
    /// Calls that the broker has.
    pub sent: u64,
    /// Calls that are being made.
    pub running: u64,
    /// Calls that were given up, and that nobody has discarded.
    pub parked: u64,
    /// Since when the oldest call that has not ended is written down.
    pub oldest: Option<Duration>,
    /// Since when the call is due that has been for the longest, of those that wait and of those that
    /// the broker has. Nothing when none is.
    pub late: Option<Duration>,
}

/// The reason of what an operator discards before it was given up by itself.
pub(crate) const DISCARDED: &str = "discarded by an operator";

/// Has a call made that is to be made, whatever became of it, in the transaction of this connection:
/// from the beginning one that was given up or is gone, and at once one that waits. Where it is, when
/// it is nowhere of these.
#[cfg(feature = "saga")]
pub(crate) fn renew(
    conn: &mut diesel::PgConnection,
    call: &super::call::Deferral,
) -> diesel::QueryResult<Result<(), Stage>> {
    ledger::insert(conn, std::slice::from_ref(call))?;
    let Some(entry) = ledger::lock(conn, call.id)? else { return Err(QueryError::NotFound) };
    Ok(match entry.stage {
        Stage::Parked => Ok(ledger::resume(conn, call.id)?),
        Stage::Pending => Ok(ledger::hasten(conn, call.id)?),
        stage => Err(stage),
    })
}

/// The call with this id, in the transaction of this connection.
#[cfg(feature = "saga")]
pub(crate) fn find(
    conn: &mut diesel::PgConnection,
    id: Uuid,
) -> diesel::QueryResult<Option<Entry>> {
    ledger::get(conn, id)
}

impl Deferred {
    /// The calls that fit, the newest first.
    ///
    /// # Errors
    ///
    /// When the database can't be reached.
    pub async fn list(&self, filter: Filter) -> Result<Vec<Entry>, DatabaseError> {
        self.shared.door.run(move |conn| ledger::list(conn, &filter)).await
    }

    /// A call by its id; nothing when there is none.
    ///
    /// # Errors
    ///
    /// When the database can't be reached.
    pub async fn get(&self, id: Uuid) -> Result<Option<Entry>, DatabaseError> {
        self.shared.door.run(move |conn| ledger::get(conn, id)).await
    }

    /// Has a parked call repeated from the beginning, in one transaction with
    /// [`Handler::resumed`](super::Handler::resumed); one that is pending is due at once. Where this
    /// process has no handler of its kind, there is no hook, and it waits for a process that has one.
    ///
    /// # Errors
    ///
    /// When it is elsewhere, or the database can't be reached.
    pub async fn retry(&self, id: Uuid) -> Result<(), OperatorError> {
        self.operate(id, |conn, entry, handler| match entry.stage {
            Stage::Parked => {
                ledger::resume(conn, entry.id)?;
                if let Some(handler) = handler {
                    handler.resumed(conn, entry.id)?;
                }
                ledger::unbroken(conn).map(|()| true)
            }
            Stage::Pending => ledger::hasten(conn, entry.id).map(|()| true),
            Stage::Sent | Stage::Running | Stage::Done => Ok(false),
        })
        .await?;
        tracing::info!(%id, "a deferred call is repeated by an operator");
        self.nudge();
        Ok(())
    }

    /// Marks a parked call as one that nobody needs to look after any more, in one transaction with
    /// [`Handler::discarded`](super::Handler::discarded). One that isn't begun is parked before, with
    /// [`Handler::parked`](super::Handler::parked). It is kept as long as one that is done. Where
    /// this process has no handler of its kind, there are no hooks: what they would have written is
    /// left to the operator.
    ///
    /// # Errors
    ///
    /// When it is being made or done, or the database can't be reached.
    pub async fn discard(&self, id: Uuid) -> Result<(), OperatorError> {
        self.operate(id, |conn, entry, handler| {
            let reason = match entry.stage {
                Stage::Parked if entry.discarded_at.is_some() => return Ok(true),
                Stage::Parked => None,
                Stage::Pending | Stage::Sent => Some(DISCARDED),
                Stage::Running | Stage::Done => return Ok(false),
            };
            ledger::discard(conn, entry.id, reason)?;
            if let Some(handler) = handler {
                if let Some(reason) = reason {
                    handler.parked(conn, entry.id, reason)?;
                }
                handler.discarded(conn, entry.id)?;
            }
            ledger::unbroken(conn).map(|()| true)
        })
        .await?;
        tracing::info!(%id, "a deferred call is discarded by an operator");
        let _ = self.shared.ended.send(id);
        Ok(())
    }

    /// How much there is of what, and who carries it.
    ///
    /// # Errors
    ///
    /// When the database can't be reached.
    pub async fn snapshot(&self) -> Result<Snapshot, DatabaseError> {
        self.shared.snapshot().await
    }

    /// Does something with a call while nobody else can, and with its handler, where there is one.
    async fn operate(
        &self,
        id: Uuid,
        work: impl FnOnce(
            &mut diesel::PgConnection,
            &Entry,
            Option<&dyn super::kind::Carries>,
        ) -> diesel::QueryResult<bool>
        + Send
        + 'static,
    ) -> Result<(), OperatorError> {
        let shared = Arc::clone(&self.shared);
        let worked = self.shared.door.run(move |conn| {
            let Some(entry) = ledger::lock(conn, id)? else {
                return Ok(Err(OperatorError::Unknown));
            };
            let handler = shared.kinds.get(entry.kind.as_str()).map(|kind| &*kind.handler);
            Ok::<_, QueryError>(if work(conn, &entry, handler)? {
                Ok(())
            } else {
                Err(OperatorError::Stage(entry.stage))
            })
        });
        worked.await.map_err(OperatorError::Database)?
    }
}

impl super::shared::Shared {
    /// How much there is of what.
    pub(super) async fn snapshot(&self) -> Result<Snapshot, DatabaseError> {
        let depths = self.door.run(ledger::depths).await?;
        let mut kinds: std::collections::BTreeMap<String, KindSnapshot> = self
            .names()
            .into_iter()
            .map(|name| {
                (name.to_owned(), KindSnapshot { kind: name.to_owned(), ..KindSnapshot::default() })
            })
            .collect();
        for depth in depths {
            let kind = kinds.entry(depth.kind.clone()).or_insert_with(|| KindSnapshot {
                kind: depth.kind.clone(),
                ..KindSnapshot::default()
            });
            let count = u64::try_from(depth.count).unwrap_or_default();
            match depth.stage()? {
                Stage::Pending => kind.pending = count,
                Stage::Sent => kind.sent = count,
                Stage::Running => kind.running = count,
                Stage::Parked => kind.parked = count,
                Stage::Done => {}
            }
            kind.oldest = kind.oldest.max(depth.oldest());
            kind.late = kind.late.max(depth.late());
        }
        Ok(Snapshot { broker: self.broker(), kinds: kinds.into_values().collect() })
    }
}
