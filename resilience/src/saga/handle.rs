//! What a service does with its sagas.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use diesel::PgConnection;
use diesel::result::Error as QueryError;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::Instrument as _;
use uuid::Uuid;

use super::call::{Known, Outcome, Stage, Start, StartError, Started};
use super::journal;
use super::run::{Begin, Ended, Run, Saga, Unwritten, Watch};
use super::shared::Definitions;
use super::step::Failure;
use crate::deadline::Deadline;
use crate::deferred::{DatabaseError, Deferred, HandlerError};

/// How often [`Sagas::ended`] looks for what others have ended.
const LOOK: Duration = Duration::from_millis(25);

/// In bytes: an entry of the journal's index holds it.
const LONGEST_KEY: usize = 1000;

/// How long a saga that can't be found out about is looked for.
const LAST_LOOK: Duration = Duration::from_millis(250);

/// A handle on the sagas of a service: for whoever begins them, and for operators. Clones are cheap
/// and share everything.
#[derive(Clone)]
pub struct Sagas {
    pub(super) shared: Arc<Definitions>,
    pub(super) deferred: Deferred,
}

impl Sagas {
    pub(crate) fn new(shared: Arc<Definitions>, deferred: Deferred) -> Self {
        Self { shared, deferred }
    }

    /// Begins a saga and runs it, and says what has become of it by the deadline.
    ///
    /// In one transaction, `prepare` writes or checks what belongs to the saga, and the saga is
    /// written down with the intent of its first step. Nothing is written, and `prepare` isn't asked,
    /// when it stops before its first step.
    ///
    /// What isn't decided when the deadline is over is not decided any more: the saga is taken back.
    /// The future may be dropped at any point: the saga goes on to its end. So it does when the
    /// process dies: another one, or the next, takes it over when its lease is over.
    ///
    /// # Errors
    ///
    /// When it has no effect.
    ///
    /// # Panics
    ///
    /// When the runtime was built without it, or outside of a Tokio runtime.
    pub async fn run<S: Saga, E: Send + 'static>(
        &self,
        start: Start<S>,
        deadline: Option<Deadline>,
        prepare: impl FnOnce(&mut PgConnection) -> Result<(), E> + Send + 'static,
    ) -> Result<Started<S::Output>, StartError<E>> {
        let found = self.shared.kinds.get(S::KIND);
        let kind = found.unwrap_or_else(|| panic!("no saga of the kind {:?} was given", S::KIND));
        let saga = kind.typed::<S>();
        let id = start.id;
        let failed = Arc::new(Mutex::new(None));
        let failure = Arc::clone(&failed);
        let prepare = move |conn: &mut PgConnection| {
            prepare(conn).map_err(|error| {
                *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                QueryError::RollbackTransaction
            })
        };
        let input = match serde_json::from_str::<S::Input>(start.input.get()) {
            Ok(input) => input,
            Err(error) => {
                return Err(StartError::Invalid(format!("its input can't be read back: {error}")));
            }
        };
        if start.key.as_ref().is_some_and(|key| key.len() > LONGEST_KEY || key.contains('\0')) {
            let reason = format!("its key has a NUL, or more than {LONGEST_KEY} bytes");
            return Err(StartError::Invalid(reason));
        }
        let begin = Begin { key: start.key, input: start.input, prepare: Box::new(prepare) };
        let watch = Arc::new(Watch::default());
        let shared = Arc::clone(&self.shared);
        let given = (deadline, Arc::clone(&watch));
        let run = Run::new(shared, (S::KIND, id), start.context, begin, given);
        // A task of its own: it goes on when the caller is dropped.
        let carried = async move { run.carry(&*saga, &input).await };
        let mut task = self.deferred.shared().running.spawn(carried.in_current_span());
        let ended = match deadline {
            None => Some((&mut task).await),
            Some(deadline) => timeout_at(deadline.moment().into(), &mut task).await.ok(),
        };
        let failed = failed.lock().unwrap_or_else(PoisonError::into_inner).take();
        let outcome = match ended {
            Some(Ok(Ended::Unwritten(Unwritten::Known(known)))) => {
                return Ok(Started::Known(known));
            }
            Some(Ok(Ended::Unwritten(Unwritten::OfAnotherKind))) => {
                let reason = format!("the id {id} is that of a saga of another kind");
                return Err(StartError::Invalid(reason));
            }
            Some(Ok(Ended::Unwritten(Unwritten::Database(error)))) => {
                return Err(failed.map_or(StartError::Database(error), StartError::Prepare));
            }
            Some(Ok(Ended::Committed(output))) => Outcome::Committed(output),
            Some(Ok(Ended::Compensated(failure))) => Outcome::Compensated(failure),
            Some(Ok(Ended::Compensating(cause, step))) => Outcome::Compensating { cause, step },
            Some(Ok(Ended::Beyond(failure))) => self.completed::<S>(id, deadline, failure).await,
            Some(Ok(Ended::Lost) | Err(_)) => self.look::<S>(id, deadline, &watch).await,
            // It may be one of this id that was begun before, by somebody else.
            None if watch.abandon() && !watch.is_begun() => Outcome::Unknown,
            None if watch.abandon() => {
                let late = || Failure::none(HandlerError::not_yet("there was no time left"));
                Outcome::Compensating { cause: watch.cause().unwrap_or_else(late), step: None }
            }
            None if watch.is_forward() => Outcome::Completing(watch.cause()),
            // It is being committed at this moment, and that has its own limit.
            None => match timeout_at(Instant::now() + LAST_LOOK, &mut task).await {
                Ok(Ok(Ended::Committed(output))) => Outcome::Committed(output),
                Ok(Ok(Ended::Compensated(failure))) => Outcome::Compensated(failure),
                Ok(Ok(Ended::Compensating(cause, step))) => Outcome::Compensating { cause, step },
                Ok(Ok(Ended::Beyond(failure))) => Outcome::Completing(Some(failure)),
                Err(_) if watch.is_forward() => Outcome::Completing(watch.cause()),
                _ => Outcome::Unknown,
            },
        };
        Ok(Started::Begun(outcome))
    }

    /// What is known of the saga of this id; nothing when there is none.
    ///
    /// # Errors
    ///
    /// When the database can't be reached.
    pub async fn find<S: Saga>(&self, id: Uuid) -> Result<Option<Known>, DatabaseError> {
        self.shared.door.run(move |conn| journal::find(conn, S::KIND, id)).await
    }

    /// Waits until the saga of this id has ended, at most for `limit`: what is known of it then.
    /// Nothing when there is none.
    ///
    /// # Errors
    ///
    /// When the database can't be reached.
    pub async fn ended<S: Saga>(
        &self,
        id: Uuid,
        limit: Duration,
    ) -> Result<Option<Known>, DatabaseError> {
        let until = Instant::now() + limit;
        let mut wait = LOOK;
        loop {
            let known = self.find::<S>(id).await?;
            let waits = known
                .as_ref()
                .is_some_and(|known| matches!(known.stage, Stage::Running | Stage::Compensating));
            if !waits || Instant::now() + wait >= until {
                return Ok(known);
            }
            sleep(wait).await;
            wait = (wait * 2).min(LOOK * 8);
        }
    }

    /// Whoever runs it is dead.
    #[cfg(feature = "testkit")]
    pub(crate) async fn expire(&self, id: Uuid) -> Result<(), DatabaseError> {
        self.shared.door.run(move |conn| journal::expire(conn, id)).await
    }

    /// The ledger completes it, within the time that is left or later.
    async fn completed<S: Saga>(
        &self,
        id: Uuid,
        deadline: Option<Deadline>,
        failure: Failure,
    ) -> Outcome<S::Output> {
        let limit = deadline.map_or(self.shared.settings.timeout, Deadline::remaining);
        match self.ended::<S>(id, limit).await {
            Ok(Some(known)) if known.stage.has_ended() => known.outcome(),
            _ => Outcome::Completing(Some(failure)),
        }
    }

    /// Somebody else has it, who may end it within the time that is left, or the database didn't say
    /// what became of it.
    async fn look<S: Saga>(
        &self,
        id: Uuid,
        deadline: Option<Deadline>,
        watch: &Watch,
    ) -> Outcome<S::Output> {
        let limit = deadline.map_or(self.shared.settings.timeout, Deadline::remaining);
        let last = Instant::now() + limit.max(LAST_LOOK);
        match timeout_at(last, self.ended::<S>(id, limit)).await {
            // Nobody had begun to decide: a commit isn't on its way.
            Ok(Ok(Some(known)))
                if known.stage == Stage::Running
                    && !known.forward
                    && watch.is_begun()
                    && watch.abandon() =>
            {
                let lost = || Failure::none(HandlerError::failed("it was interrupted"));
                Outcome::Compensating { cause: watch.cause().unwrap_or_else(lost), step: None }
            }
            Ok(Ok(Some(known))) => known.outcome(),
            _ => Outcome::Unknown,
        }
    }
}

impl fmt::Debug for Sagas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sagas").field("kinds", &self.shared).finish_non_exhaustive()
    }
}
