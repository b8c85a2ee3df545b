//! A saga of whatever course, for what no [trip](super::trip) would do.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use resilience::deadline::Deadline;
use resilience::deferred::{Attempt, Database, Deferred, HandlerError};
use resilience::saga::{
    Action, Committed, Failure, Run, Saga, Sagas, Settings, Start, Started, Step, Steps, Stop,
};
use uuid::Uuid;

use super::world::Office;

pub(super) type Ran<'a> = BoxFuture<'a, Result<Committed<i64>, Stop>>;
pub(super) type Course = Arc<dyn for<'a> Fn(&'a mut Run) -> Ran<'a> + Send + Sync>;

/// A saga of whatever course.
pub(super) struct Free {
    course: Course,
    steps: fn(&Notes) -> Steps,
    notes: Notes,
}

impl Saga for Free {
    const KIND: &'static str = "free";
    type Input = ();
    type Output = i64;

    fn steps(&self) -> Steps {
        (self.steps)(&self.notes)
    }

    async fn run(&self, run: &mut Run, (): &()) -> Result<Committed<i64>, Stop> {
        (self.course)(run).await
    }
}

/// What it was asked for, by which id, and which payload.
pub(super) type Note = (&'static str, Uuid, u32);

/// What a system was asked for.
#[derive(Clone, Default)]
pub(super) struct Notes(Arc<Mutex<Vec<Note>>>);

impl Notes {
    pub(super) fn of(&self, what: &str) -> Vec<(Uuid, u32)> {
        let notes = self.0.lock().unwrap();
        notes.iter().filter(|note| note.0 == what).map(|note| (note.1, note.2)).collect()
    }

    pub(super) fn note(&self, what: &'static str, attempt: &Attempt<u32>) {
        self.0.lock().unwrap().push((what, attempt.id, attempt.payload));
    }
}

#[derive(Clone)]
pub(super) struct Take(pub(super) Notes);

impl Action for Take {
    const NAME: &'static str = "take";
    type Input = u32;
    type Output = ();

    async fn act(&self, attempt: Attempt<u32>) -> Result<(), Failure> {
        self.0.note("take", &attempt);
        Ok(())
    }
}

impl Step for Take {
    async fn undo(&self, attempt: Attempt<u32>) -> Result<(), HandlerError> {
        self.0.note("undo take", &attempt);
        Ok(())
    }
}

pub(super) fn take(notes: &Notes) -> Steps {
    Steps::new().and(Take(notes.clone()))
}

pub(super) fn office(
    database: impl Database,
    notes: &Notes,
    settings: Settings,
    steps: fn(&Notes) -> Steps,
    course: impl for<'a> Fn(&'a mut Run) -> Ran<'a> + Send + Sync + 'static,
) -> Office {
    let free = Free { course: Arc::new(course), steps, notes: notes.clone() };
    Office::start(Deferred::builder(database).saga(free).saga_settings(settings).build().unwrap())
}

pub(super) async fn begin(sagas: &Sagas, id: Uuid, deadline: Option<Deadline>) -> Started<i64> {
    let start = Start::<Free>::new(id, &()).unwrap();
    sagas.run::<_, Infallible>(start, deadline, |_| Ok(())).await.unwrap()
}

pub(super) fn none(why: &str) -> Failure {
    Failure::none(HandlerError::permanent(why))
}
