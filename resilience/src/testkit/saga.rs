//! Everything that can go wrong with a saga, once each.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::deferred::{Builder, Runtime};
use crate::saga::{SagaEntry, Sagas, Stage};

/// How long a saga may take to its end, whatever happened to it.
const PATIENCE: Duration = Duration::from_mins(1);

/// What goes wrong with one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Wrong {
    /// It is made twice, and the second answer counts: its effect must be one.
    Twice,
    /// It certainly has no effect. Of an undo: it fails.
    Refused,
    /// It never arrives, and nobody knows.
    Lost,
    /// It has its effect, and nobody knows.
    AnswerLost,
}

/// Where a process dies: at the n-th write to the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Death {
    /// Before it is committed.
    Before(u32),
    /// When it is committed, and nobody has heard of it.
    After(u32),
}

/// What goes wrong in one run of a saga.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Trouble {
    /// With the action of this name.
    pub action: Option<(String, Wrong)>,
    /// With the undo of the step of this name.
    pub undo: Option<(String, Wrong)>,
    /// The process that runs it dies; another one takes over.
    pub death: Option<Death>,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = false;
        for (what, call) in [("", &self.action), ("undo of ", &self.undo)] {
            if let Some((name, wrong)) = call {
                write!(f, "{}{what}{name}: {wrong:?}", if said { ", " } else { "" })?;
                said = true;
            }
        }
        match self.death {
            Some(death) => write!(f, "{}dies: {death:?}", if said { ", " } else { "" }),
            None if !said => f.write_str("nothing"),
            None => Ok(()),
        }
    }
}

/// Runs a saga again and again, each time with one thing going wrong, and hands what has become of it
/// to `check`: where it is the same as if nothing had gone wrong, or as if the saga had never been. Says
/// what was tried.
///
/// Tried are, with each action: that it is made [twice](Wrong::Twice), [refused](Wrong::Refused), never
/// [arrives](Wrong::Lost), or its [answer is lost](Wrong::AnswerLost); with each undo: that it is made
/// twice, or fails at first; and, on each of the ways that a saga takes when nothing goes wrong or one
/// of these fails, that the process [dies](Death) before and after each write to the journal.
///
/// `build` puts together what your service runs. `begin` begins one saga under the given id; its answer is
/// what `check` gets, unless the process has died. When `check` is called, the saga has ended, or never
/// begun.
///
/// # Panics
///
/// When a saga has not ended after a minute, or is stuck; when nothing goes wrong and it isn't committed;
/// when `build` builds nothing that can run.
pub async fn try_everything<T>(
    build: impl Fn() -> Builder,
    begin: impl AsyncFn(&Sagas, Uuid) -> T,
    check: impl AsyncFn(Uuid, Option<T>, &Trouble),
) -> Vec<Trouble> {
    let mut tried = Vec::new();
    let mut one = async |trouble: Trouble| {
        let trial = Arc::new(Trial::of(trouble.clone()));
        let id = Uuid::new_v4();
        let answer = run(&build, &begin, id, &trial).await;
        check(id, answer, &trouble).await;
        tried.push(trouble);
        trial.seen()
    };
    let plain = one(Trouble::default()).await;
    assert!(!plain.actions.is_empty(), "the saga does nothing");
    let mut troubles = Vec::new();
    for name in &plain.actions {
        for wrong in [Wrong::Twice, Wrong::Refused, Wrong::Lost, Wrong::AnswerLost] {
            troubles.push(Trouble { action: Some((name.clone(), wrong)), ..Trouble::default() });
        }
    }
    // What is taken back when the last of the steps is lost that can be taken back.
    if let Some(last) = plain.steps.last() {
        let action = Some((last.clone(), Wrong::AnswerLost));
        for name in &plain.steps {
            for wrong in [Wrong::Twice, Wrong::Refused] {
                let undo = Some((name.clone(), wrong));
                troubles.push(Trouble { action: action.clone(), undo, death: None });
            }
        }
    }
    let mut ways = vec![(Trouble::default(), plain.writes)];
    for trouble in troubles {
        let writes = one(trouble.clone()).await.writes;
        let wrong = [&trouble.action, &trouble.undo];
        let repeats = wrong.into_iter().flatten().any(|(_, wrong)| *wrong == Wrong::Twice);
        // What is repeated takes the way that there is without that.
        if !repeats {
            ways.push((trouble, writes));
        }
    }
    for (way, writes) in ways {
        for number in 1..=writes {
            for death in [Death::Before(number), Death::After(number)] {
                one(Trouble { death: Some(death), ..way.clone() }).await;
            }
        }
    }
    tried
}

/// One saga, to its end.
async fn run<T>(
    build: &impl Fn() -> Builder,
    begin: &impl AsyncFn(&Sagas, Uuid) -> T,
    id: Uuid,
    trial: &Arc<Trial>,
) -> Option<T> {
    let first = build().trial(Arc::clone(trial)).build().expect("a runtime");
    let (sagas, first) = started(first);
    let answer = tokio::select! {
        answer = begin(&sagas, id) => Some(answer),
        () = trial.died.notified() => None,
    };
    // What it still had to do is done by another one, too.
    first.abort();
    let _ = first.await;
    // Nobody has to wait for the lease of the dead.
    while answer.is_none() && sagas.expire(id).await.is_err() {
        sleep(Duration::from_millis(10)).await;
    }
    if trial.trouble == Trouble::default() {
        let saga = sagas.get(id).await.ok().flatten();
        let committed = saga.as_ref().is_some_and(|saga| saga.stage == Stage::Committed);
        assert!(committed, "nothing went wrong, and it isn't committed: {saga:?}");
    }
    let (sagas, second) = started(build().build().expect("a runtime"));
    let over = async {
        loop {
            match sagas.get(id).await.ok() {
                Some(Some(saga)) if !saga.stage.has_ended() => {
                    assert_ne!(saga.stage, Stage::Stuck, "{}: {saga:?}", trial.trouble);
                }
                Some(_) => return,
                None => {}
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    let over = timeout(PATIENCE, over).await;
    let saga: Option<SagaEntry> = sagas.get(id).await.ok().flatten();
    assert!(over.is_ok(), "{}: it doesn't end: {saga:?}", trial.trouble);
    second.abort();
    let _ = second.await;
    answer
}

fn started(runtime: Runtime) -> (Sagas, JoinHandle<()>) {
    (runtime.sagas(), tokio::spawn(runtime.run(std::future::pending())))
}

/// One run, and what it has come past.
pub(crate) struct Trial {
    trouble: Trouble,
    state: Mutex<State>,
    died: Notify,
}

#[derive(Default)]
struct State {
    action_used: bool,
    undo_used: bool,
    seen: Seen,
}

#[derive(Clone, Default)]
struct Seen {
    /// In this order, each once.
    actions: Vec<String>,
    /// Of them those that can be undone.
    steps: Vec<String>,
    writes: u32,
}

impl Trial {
    fn of(trouble: Trouble) -> Self {
        Self { trouble, state: Mutex::default(), died: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self) -> Seen {
        self.lock().seen.clone()
    }

    /// What goes wrong with this action, the first time.
    pub(crate) fn action(&self, name: &str, is_step: bool) -> Option<Wrong> {
        let mut state = self.lock();
        if !state.seen.actions.iter().any(|seen| seen == name) {
            state.seen.actions.push(name.to_owned());
            if is_step {
                state.seen.steps.push(name.to_owned());
            }
        }
        let (_, wrong) = self.trouble.action.as_ref().filter(|(which, _)| which == name)?;
        (!std::mem::replace(&mut state.action_used, true)).then_some(*wrong)
    }

    /// What goes wrong with this undo, the first time.
    pub(crate) fn undo(&self, name: &str) -> Option<Wrong> {
        let (_, wrong) = self.trouble.undo.as_ref().filter(|(which, _)| which == name)?;
        (!std::mem::replace(&mut self.lock().undo_used, true)).then_some(*wrong)
    }

    /// Before a write to the journal: it may be the one at which the process dies.
    pub(crate) async fn writes(&self) {
        let number = {
            let mut state = self.lock();
            state.seen.writes += 1;
            state.seen.writes
        };
        self.may_die(Death::Before(number)).await;
    }

    /// After it.
    pub(crate) async fn has_written(&self) {
        let number = self.lock().seen.writes;
        self.may_die(Death::After(number)).await;
    }

    async fn may_die(&self, here: Death) {
        if self.trouble.death == Some(here) {
            self.died.notify_one();
            // The dead do nothing more.
            std::future::pending::<()>().await;
        }
    }
}

impl fmt::Debug for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trial({})", self.trouble)
    }
}
