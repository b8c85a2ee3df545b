//! What all sagas of a runtime share.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::time::timeout;
use tracing::Instrument as _;
use uuid::Uuid;

use super::erased::{Definition, Resumes, Steps, Undoes};
use super::run::Saga;
use super::settings::Settings;
use crate::deadline::Deadline;
use crate::deferred::{Attempt, Door, HandlerError, Shared as Ledger};
#[cfg(feature = "testkit")]
use crate::testkit::saga::{Trial, Wrong};

/// One kind of sagas, without its types.
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) saga: Arc<dyn Resumes>,
    /// The saga itself, as it was given.
    itself: Arc<dyn Any + Send + Sync>,
    undos: BTreeMap<&'static str, Arc<dyn Undoes>>,
}

/// The kinds of sagas of a runtime, and how they are carried out.
pub(crate) struct Definitions {
    pub(super) door: Door,
    pub(super) settings: Settings,
    pub(super) kinds: BTreeMap<&'static str, Kind>,
    /// Where what could not be ended at once goes. Its handlers hold this in their turn.
    ledger: OnceLock<Weak<Ledger>>,
    /// What a test wants to go wrong.
    #[cfg(feature = "testkit")]
    trial: Option<Arc<Trial>>,
}

impl fmt::Debug for Definitions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.kinds.keys()).finish()
    }
}

impl Kind {
    /// The name of a step that is there twice, if there is one.
    pub(super) fn new<S: Saga>(saga: S) -> (Self, Option<&'static str>) {
        let Steps { undos, twice } = saga.steps();
        let itself = Arc::new(saga);
        let saga = Arc::new(Definition { saga: Arc::clone(&itself) });
        (Self { name: S::KIND, saga, itself, undos }, twice)
    }

    /// As it was given.
    pub(super) fn typed<S: Saga>(&self) -> Arc<S> {
        let saga = Arc::clone(&self.itself).downcast();
        saga.unwrap_or_else(|_| panic!("two sagas of the kind {:?}", S::KIND))
    }
}

impl Definitions {
    /// None yet.
    pub(crate) fn new(door: Door) -> Self {
        let (settings, kinds) = (Settings::new(), BTreeMap::new());
        Self {
            door,
            settings,
            kinds,
            ledger: OnceLock::new(),
            #[cfg(feature = "testkit")]
            trial: None,
        }
    }

    pub(crate) fn set(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Or the name that is there twice: of the saga, or of one of its steps.
    pub(crate) fn add<S: Saga>(&mut self, saga: S) -> Result<(), &'static str> {
        let (kind, twice) = Kind::new(saga);
        let twice = twice.or(self.kinds.insert(S::KIND, kind).map(|_| S::KIND));
        twice.map_or(Ok(()), Err)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    /// Once, when the runtime is put together.
    pub(crate) fn join(&self, ledger: &Arc<Ledger>) {
        let _ = self.ledger.set(Arc::downgrade(ledger));
    }

    /// Ends when what runs is to be given up: the process shuts down, and its time is over.
    pub(super) async fn cut(&self) {
        match self.ledger.get().and_then(Weak::upgrade) {
            Some(ledger) => ledger.cut.clone().cancelled_owned().await,
            None => std::future::pending().await,
        }
    }

    /// Something was given to the ledger, and committed.
    pub(super) fn nudge(&self) {
        if let Some(ledger) = self.ledger.get().and_then(Weak::upgrade) {
            ledger.nudge();
        }
    }

    pub(super) fn can_undo(&self, kind: &str, step: &str) -> bool {
        self.kinds.get(kind).is_some_and(|kind| kind.undos.contains_key(step))
    }

    /// Undoes a step of a saga, which it may have taken, once.
    pub(super) async fn undo(
        &self,
        (kind, step): (&str, &str),
        attempt: Attempt<Box<RawValue>>,
    ) -> Result<(), HandlerError> {
        let found = self.kinds.get(kind).and_then(|kind| kind.undos.get(step));
        let Some(undo) = found else {
            return Err(HandlerError::failed(format!("nobody knows how to undo {kind}.{step}")));
        };
        let limit = attempt.deadline.remaining();
        #[cfg(feature = "testkit")]
        match self.trial.as_ref().and_then(|trial| trial.undo(step)) {
            Some(Wrong::Twice) => {
                let again = undo.undo(attempt.clone_with(attempt.payload.clone()));
                if let Ok(again) = again {
                    drop(in_task(limit, again).await);
                }
            }
            Some(_) => return Err(HandlerError::unavailable("it fails, as the test wants it")),
            None => {}
        }
        let undone = undo.undo(attempt).map_err(|error| {
            HandlerError::permanent(format!("the input of {kind}.{step} can't be read: {error}"))
        })?;
        #[cfg(feature = "testkit")]
        crate::testkit::crash::point(|| format!("before undo {step}"));
        let result = in_task(limit, undone).await.unwrap_or_else(Err);
        #[cfg(feature = "testkit")]
        crate::testkit::crash::point(|| format!("after undo {step}"));
        result
    }

    /// A write to the journal.
    pub(super) async fn written<T>(&self, write: impl Future<Output = T>) -> T {
        #[cfg(feature = "testkit")]
        if let Some(trial) = &self.trial {
            trial.writes().await;
        }
        let result = write.await;
        #[cfg(feature = "testkit")]
        if let Some(trial) = &self.trial {
            trial.has_written().await;
        }
        result
    }

    /// What a test wants to go wrong with this action.
    #[cfg(feature = "testkit")]
    pub(super) fn wrong(&self, action: &str, is_step: bool) -> Option<Wrong> {
        self.trial.as_ref()?.action(action, is_step)
    }

    #[cfg(feature = "testkit")]
    pub(crate) fn try_out(&mut self, trial: Arc<Trial>) {
        self.trial = Some(trial);
    }

    /// For one attempt at an action or an undo.
    pub(super) fn attempt<P>(
        &self,
        saga: Uuid,
        (step, name): (i32, &str),
        (number, limit): (u32, Option<Deadline>),
        (payload, context): (P, &BTreeMap<String, String>),
    ) -> Attempt<P> {
        let own = Deadline::after(self.settings.timeout);
        let deadline = limit.map_or(own, |limit| limit.min(own));
        // One of the same name is another effect.
        let id = Uuid::new_v5(&saga, format!("{step} {name}").as_bytes());
        Attempt { id, number, deadline, payload, context: context.clone() }
    }
}

/// In a task of its own: what blocks or panics takes nothing else with it.
pub(super) async fn in_task<T: Send + 'static>(
    limit: Duration,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, HandlerError> {
    let mut task = Task(tokio::spawn(work.in_current_span()));
    match timeout(limit, &mut task.0).await {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(_)) => Err(HandlerError::failed("it panicked")),
        Err(_) => Err(HandlerError::unavailable(format!("no result within {limit:.1?}"))),
    }
}

struct Task<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
