//! A saga under way: what its code sees, and what follows from how it ends.
//!
//! `act` is what it does, one after the other; `write` what it writes, under its fence and its lease;
//! `watch` what it and whoever waits for it tell each other.

mod act;
mod watch;
mod write;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use diesel::PgConnection;
use diesel::result::Error as QueryError;
use futures_util::FutureExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::time::Instant;
use tracing::Instrument as _;
use uuid::Uuid;

pub(super) use self::watch::Watch;
use self::watch::{ABANDONED, DECIDED, FORWARD};
use super::call::{Known, Stage};
use super::counts;
use super::erased::Steps;
use super::journal::{self, Entry, Role, StepEnd, StepState, Taken};
use super::shared::Definitions;
use super::step::{Action, Failure, Step};
use crate::deadline::Deadline;
use crate::deferred::{DatabaseError, HandlerError};

/// An operation that reaches into several systems.
///
/// [`run`](Self::run) reads from top to bottom: what is done in which system, one after the other, and
/// where the pivot is. It is called once when the saga is begun, and again, from the top, when a saga
/// that is behind its pivot was interrupted: what is in the journal is not done again then, and comes
/// to what it came to. Between its steps it must come to the same course each time: no clock, no
/// random numbers, nothing from outside that isn't a step.
pub trait Saga: Send + Sync + 'static {
    /// Names the kind in the journal, for good: sagas outlive releases.
    const KIND: &'static str;
    /// What it needs to know.
    type Input: Serialize + DeserializeOwned + Send + Sync + 'static;
    /// What it comes to.
    type Output: Serialize + DeserializeOwned + Send + 'static;

    /// Every step that it may take with [`Run::step`].
    fn steps(&self) -> Steps;

    /// Takes its steps. A [`Stop`] is passed up with `?`: what follows from it is seen to.
    fn run(
        &self,
        run: &mut Run,
        input: &Self::Input,
    ) -> impl Future<Output = Result<Committed<Self::Output>, Stop>> + Send;
}

/// A saga had all its effects; made by [`Run::commit`].
#[derive(Debug)]
#[must_use = "it is what a saga ends with"]
pub struct Committed<T>(T);

/// A saga goes no further here: it is taken back, or completed later, or somebody else has it.
#[derive(Debug)]
#[must_use = "a saga that is told to stop returns"]
pub struct Stop(pub(super) ());

/// Why what is done in the journal's own database failed. All of it is taken back.
#[derive(Debug)]
pub enum Local {
    /// The database's error: repeated as long as the lease lasts, if it is away.
    Database(QueryError),
    /// It must not be.
    Refused(Failure),
}

impl From<QueryError> for Local {
    fn from(error: QueryError) -> Self {
        Self::Database(error)
    }
}

/// How a saga's run ended.
pub(super) enum Ended<T> {
    Committed(T),
    Compensated(Failure),
    /// The ledger of deferred calls takes the rest of it back; that step first, where it was one.
    Compensating(Failure, Option<String>),
    /// Behind its pivot, and not at its end.
    Beyond(Failure),
    /// Somebody else has it, or will have.
    Lost,
    /// Nothing was begun.
    Unwritten(Unwritten),
}

/// Why nothing was begun.
#[derive(Debug)]
pub(super) enum Unwritten {
    Known(Known),
    OfAnotherKind,
    Database(DatabaseError),
}

impl std::fmt::Display for Unwritten {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Known(_) => f.write_str("it was begun before"),
            Self::OfAnotherKind => f.write_str("its id is that of a saga of another kind"),
            Self::Database(error) => error.fmt(f),
        }
    }
}

enum Why {
    Abort(Failure),
    Beyond(Failure),
    Lost,
    Unwritten(Unwritten),
}

/// What is written with the first step.
pub(super) struct Begin {
    pub(super) key: Option<String>,
    pub(super) input: Box<RawValue>,
    pub(super) prepare: Prepare,
}

pub(super) type Prepare = Box<dyn FnOnce(&mut PgConnection) -> Result<(), QueryError> + Send>;

/// A saga under way, as its code sees it.
pub struct Run {
    pub(super) shared: Arc<Definitions>,
    pub(super) id: Uuid,
    pub(super) kind: &'static str,
    pub(super) fence: i64,
    pub(super) context: BTreeMap<String, String>,
    pub(super) watch: Arc<Watch>,
    /// Until it is written.
    begin: Option<Begin>,
    /// As it was written down.
    pub(super) entries: Vec<Entry>,
    /// How many of the entries its code has come past.
    at: usize,
    /// How the last step ended, to be written with the next one.
    pub(super) due: Option<StepEnd>,
    /// Behind the pivot: its code, and the journal.
    passed: bool,
    forward: bool,
    /// The ledger of deferred calls has it: the lease is the ledger's.
    resumed: bool,
    number: u32,
    deadline: Option<Deadline>,
    /// Until when the lease lasts at least, by this process's clock.
    until: Instant,
    /// Something is being written. Should its code not wait for that, nobody knows what the journal
    /// says.
    writing: bool,
    why: Option<Why>,
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run")
            .field("kind", &self.kind)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Run {
    /// For one that isn't written down yet.
    pub(super) fn new(
        shared: Arc<Definitions>,
        (kind, id): (&'static str, Uuid),
        context: BTreeMap<String, String>,
        begin: Begin,
        (deadline, watch): (Option<Deadline>, Arc<Watch>),
    ) -> Self {
        Self {
            shared,
            id,
            kind,
            fence: 1,
            context,
            watch,
            begin: Some(begin),
            entries: Vec::new(),
            at: 0,
            due: None,
            passed: false,
            forward: false,
            resumed: false,
            number: 1,
            deadline,
            until: Instant::now(),
            writing: false,
            why: None,
        }
    }

    /// For one that the ledger of deferred calls carries on.
    pub(super) fn resumed(
        shared: Arc<Definitions>,
        kind: &'static str,
        taken: Taken,
        (number, deadline): (u32, Deadline),
    ) -> Self {
        let watch = Watch::decided(if taken.known.forward { FORWARD } else { ABANDONED });
        Self {
            shared,
            id: taken.known.id,
            kind,
            fence: taken.fence,
            context: taken.context,
            watch: Arc::new(watch),
            begin: None,
            entries: taken.entries,
            at: 0,
            due: None,
            passed: false,
            forward: taken.known.forward,
            resumed: true,
            number,
            deadline: Some(deadline),
            until: deadline.moment().into(),
            writing: false,
            why: None,
        }
    }

    /// The saga's id.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Takes a step, which is taken back when the saga fails. Its intent is written down first.
    ///
    /// # Errors
    ///
    /// To be passed up.
    pub async fn step<S: Step>(&mut self, step: &S, input: S::Input) -> Result<S::Output, Stop> {
        self.act(step, input, Role::Step).await
    }

    /// Asks for something, which changes nothing. A saga that goes on after a crash gets the same
    /// answer again, from the journal.
    ///
    /// # Errors
    ///
    /// To be passed up.
    pub async fn read<A: Action>(
        &mut self,
        action: &A,
        input: A::Input,
    ) -> Result<A::Output, Stop> {
        self.act(action, input, Role::Read).await
    }

    /// The go or no-go, where it is in another system: something that can't be taken back. When it
    /// certainly had no effect, the saga is taken back; otherwise there is no way back any more, and
    /// it is repeated until it is done; or until it is refused
    /// [for good](HandlerError::Permanent), which is a *no* that came late.
    ///
    /// # Errors
    ///
    /// To be passed up.
    pub async fn pivot<A: Action>(
        &mut self,
        action: &A,
        input: A::Input,
    ) -> Result<A::Output, Stop> {
        self.act(action, input, Role::Pivot).await
    }

    /// What comes behind the pivot: repeated until it is done.
    ///
    /// # Errors
    ///
    /// To be passed up.
    pub async fn forward<A: Action>(
        &mut self,
        action: &A,
        input: A::Input,
    ) -> Result<A::Output, Stop> {
        self.act(action, input, Role::Forward).await
    }

    /// The saga must not be: it is taken back. Behind the pivot, where there is no way back, it is
    /// tried again from here.
    pub fn abort(&mut self, failure: Failure) -> Stop {
        match self.may_go_on() {
            Ok(()) => self.fail(failure),
            Err(stop) => stop,
        }
    }

    fn fail(&mut self, failure: Failure) -> Stop {
        self.stop(if self.passed || self.forward {
            Why::Beyond(failure)
        } else {
            Why::Abort(failure)
        })
    }

    /// The go or no-go in the journal's own database, where more is to be done behind it: what is
    /// written here and that there is no way back any more are one commit. Called again, when nobody
    /// knows what became of the commit, and not when it is in the journal.
    ///
    /// # Errors
    ///
    /// To be passed up.
    pub async fn decide<T: Serialize + DeserializeOwned + Send + 'static>(
        &mut self,
        name: &'static str,
        work: impl Fn(&mut PgConnection) -> Result<T, Local> + Send + Sync + 'static,
    ) -> Result<T, Stop> {
        if let Some(entry) = self.next(name, Role::Pivot)? {
            self.passed = true;
            let output = entry.output.as_ref().map_or("null", |output| output.get());
            return serde_json::from_str(output).map_err(|error| self.defect(&error.to_string()));
        }
        self.may_decide()?;
        let (id, due) = (self.id, self.due.take());
        let number = i32::try_from(self.entries.len()).unwrap_or(i32::MAX);
        let entry = move |output| Entry {
            number,
            name: name.to_owned(),
            role: Role::Pivot,
            state: StepState::Done,
            input: RawValue::NULL.to_owned(),
            output: Some(output),
        };
        let again = entry;
        let (value, output) = self
            .local(Some(number), work, move |conn, output| {
                if let Some(due) = &due {
                    journal::end_step(conn, id, due)?;
                }
                journal::go_forward(conn, id)?;
                journal::intend(conn, id, &entry(output.to_owned()))
            })
            .await?;
        self.entries.push(again(output));
        self.at = self.entries.len();
        (self.passed, self.forward) = (true, true);
        self.watch.set(DECIDED, FORWARD);
        Ok(value)
    }

    /// The end of the saga: what is written here, in the journal's own database, and that the saga is
    /// committed are one commit. Without a pivot before, this is it. Called again when nobody knows
    /// what became of the commit.
    ///
    /// # Errors
    ///
    /// To be passed up.
    pub async fn commit<T: Serialize + DeserializeOwned + Send + 'static>(
        &mut self,
        work: impl Fn(&mut PgConnection) -> Result<T, Local> + Send + Sync + 'static,
    ) -> Result<Committed<T>, Stop> {
        self.may_go_on()?;
        if self.at < self.entries.len() {
            return Err(self.defect("it ends before what it had done already"));
        }
        if !self.passed {
            self.may_decide()?;
        }
        let (id, due) = (self.id, self.due.take());
        let (value, _) = self
            .local(None, work, move |conn, output| {
                if let Some(due) = &due {
                    journal::end_step(conn, id, due)?;
                }
                journal::commit(conn, id, output)
            })
            .await?;
        Ok(Committed(value))
    }

    /// Runs the saga's code, and sees to what follows from how it ends.
    pub(super) async fn carry<S: Saga>(mut self, saga: &S, input: &S::Input) -> Ended<S::Output> {
        let span = tracing::info_span!("saga", kind = self.kind, id = %self.id);
        async {
            let begun = Instant::now();
            // What somebody else began took longer than this.
            let resumed = self.resumed;
            let took = || if resumed { Duration::ZERO } else { begun.elapsed() };
            let ran = AssertUnwindSafe(saga.run(&mut self, input)).catch_unwind().await;
            let _ = self.may_go_on();
            let why = match ran {
                Ok(Ok(Committed(output))) => {
                    tracing::info!("committed");
                    counts::ended(self.kind, Stage::Committed, took());
                    return Ended::Committed(output);
                }
                Ok(Err(Stop(()))) | Err(_) => self.why.take(),
            };
            let why = why.unwrap_or_else(|| {
                let failure = Failure::none(HandlerError::failed("the saga panicked"));
                if self.forward { Why::Beyond(failure) } else { Why::Abort(failure) }
            });
            match why {
                Why::Unwritten(unwritten) => Ended::Unwritten(unwritten),
                Why::Lost => Ended::Lost,
                Why::Beyond(failure) => self.hand_over(failure).await,
                Why::Abort(failure) if self.begin.is_some() => Ended::Compensated(failure),
                Why::Abort(failure) => {
                    tracing::warn!(%failure, "a saga failed");
                    let kind = self.kind;
                    let ended = self.take_back(failure).await;
                    if matches!(ended, Ended::Compensated(_)) {
                        counts::ended(kind, Stage::Compensated, took());
                    }
                    ended
                }
            }
        }
        .instrument(span)
        .await
    }

    fn defect(&mut self, what: &str) -> Stop {
        let reason = format!("the saga's code doesn't go with its journal: {what}");
        self.fail(Failure::none(HandlerError::failed(reason)))
    }

    fn stop(&mut self, why: Why) -> Stop {
        // The first one counts: what its code makes of it is about nothing that it has.
        if self.why.is_none() {
            if let Why::Abort(failure) | Why::Beyond(failure) = &why {
                self.watch.failed(failure);
            }
            self.why = Some(why);
        }
        Stop(())
    }

    /// Not when it was told to stop, and not when it didn't wait for a write of its own: whoever takes
    /// over finds out what became of that.
    fn may_go_on(&mut self) -> Result<(), Stop> {
        if self.writing {
            tracing::warn!("a saga has not waited for its journal");
            return Err(self.stop(Why::Lost));
        }
        if self.why.is_some() { Err(Stop(())) } else { Ok(()) }
    }
}

fn late() -> Failure {
    Failure::none(HandlerError::not_yet("there was no time left"))
}
