//! What a run writes, under its fence and its lease.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use diesel::PgConnection;
use diesel::result::{DatabaseErrorKind, Error as QueryError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::{RawValue, to_raw_value};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use uuid::Uuid;

use super::watch::{DECIDED, OPEN};
use super::{Begin, Ended, Local, Run, Stop, Unwritten, Why, late};
use crate::deadline::Deadline;
use crate::deferred::{HandlerError, waits};
use crate::saga::call::Stage;
use crate::saga::journal::{self, Opening};
use crate::saga::shared::Definitions;
use crate::saga::step::Failure;
use crate::saga::takeover;

/// How often work in the own database may fail while the database is there.
const LOCAL_TRIES: u32 = 3;

/// How often a key is reached for that others take and give back all the while.
const TRIES: u32 = 5;

impl Run {
    /// The first write, which ends with a statement of `first`'s. Once: whoever's it is may have been
    /// committed, and is taken back then.
    pub(super) async fn open(
        &mut self,
        begin: Begin,
        first: impl FnOnce(&mut PgConnection) -> Result<(), QueryError> + Send + 'static,
    ) -> Result<(), Stop> {
        let (id, kind, context) = (self.id, self.kind, self.context.clone());
        let lease = self.shared.settings.lease;
        let asked = Instant::now();
        let opened = self.shared.door.run(move |conn| {
            let Begin { key, input, prepare } = begin;
            let opening =
                Opening { id, kind, key: key.as_deref(), input: &input, context: &context, lease };
            let mut tries = 1..=TRIES;
            while !journal::open(conn, &opening)? {
                let known = match journal::find(conn, kind, id)? {
                    None => match &key {
                        Some(key) => journal::find_open(conn, kind, key)?,
                        None => None,
                    },
                    known => known,
                };
                match known {
                    Some(known) => return Ok(Err(Unwritten::Known(known))),
                    None if journal::lock(conn, id)?.is_some()
                        && journal::find(conn, kind, id)?.is_none() =>
                    {
                        return Ok(Err(Unwritten::OfAnotherKind));
                    }
                    // It has ended between the two statements: it isn't in the way any more.
                    None => drop(tries.next().ok_or(QueryError::NotFound)?),
                }
            }
            prepare(conn)?;
            // Fails where a failure of `prepare`'s was swallowed: that would be taken for a commit.
            first(conn)?;
            Ok(Ok(()))
        });
        let why = match self.shared.written(opened).await {
            Ok(Ok(())) => {
                self.until = asked + lease;
                self.watch.begun();
                tracing::debug!("begun");
                return Ok(());
            }
            Ok(Err(unwritten)) => unwritten,
            Err(error) => Unwritten::Database(error),
        };
        Err(self.stop(Why::Unwritten(why)))
    }

    /// Writes under the fence, as long as the lease lasts: the database may be away.
    pub(in crate::saga) async fn write(
        &mut self,
        expected: &'static [Stage],
        work: impl Fn(&mut PgConnection) -> Result<(), QueryError> + Send + Sync + 'static,
    ) -> Result<(), Stop> {
        let (id, fence, work) = (self.id, self.fence, Arc::new(work));
        let mut delays = waits().delays();
        loop {
            let work = Arc::clone(&work);
            let written = self.shared.door.run(move |conn| match journal::hold(conn, id, fence)? {
                Some(stage) if expected.contains(&stage) => work(conn).map(|()| true),
                _ => Ok(false),
            });
            match timeout_at(self.ends(), self.shared.written(written)).await {
                Ok(Ok(true)) => return Ok(()),
                Ok(Ok(false)) => {
                    tracing::warn!("overtaken: somebody else has the saga");
                    return Err(self.stop(Why::Lost));
                }
                Ok(Err(_)) | Err(_) => self.wait(delays.next()).await?,
            }
        }
    }

    /// Work of the caller's in the own database, with what the journal says of it: that the step of
    /// this number is done, or that the saga is committed.
    pub(super) async fn local<T: Serialize + DeserializeOwned + Send + 'static>(
        &mut self,
        step: Option<i32>,
        work: impl Fn(&mut PgConnection) -> Result<T, Local> + Send + Sync + 'static,
        note: impl Fn(&mut PgConnection, &RawValue) -> Result<(), QueryError> + Send + Sync + 'static,
    ) -> Result<(T, Box<RawValue>), Stop> {
        self.writing = true;
        let written = self.write_with(step, work, note).await;
        self.writing = false;
        written
    }

    async fn write_with<T: Serialize + DeserializeOwned + Send + 'static>(
        &mut self,
        step: Option<i32>,
        work: impl Fn(&mut PgConnection) -> Result<T, Local> + Send + Sync + 'static,
        note: impl Fn(&mut PgConnection, &RawValue) -> Result<(), QueryError> + Send + Sync + 'static,
    ) -> Result<(T, Box<RawValue>), Stop> {
        if let Some(begin) = self.begin.take() {
            let id = self.id;
            self.open(begin, move |conn| journal::hold(conn, id, 1).map(drop)).await?;
        }
        let (id, fence, kind) = (self.id, self.fence, self.kind);
        let (work, note) = (Arc::new(work), Arc::new(note));
        let mut delays = waits().delays();
        let failed = Arc::new(Mutex::new(None));
        let (mut tries, mut earlier) = (0, false);
        loop {
            let (work, note, failure) = (Arc::clone(&work), Arc::clone(&note), Arc::clone(&failed));
            let written = self.shared.door.run(move |conn| {
                // An earlier try may have been committed, and its answer lost.
                let before = match journal::hold(conn, id, fence)? {
                    Some(Stage::Running) => match step.filter(|_| earlier) {
                        Some(step) => {
                            journal::step(conn, id, step)?.map(|(.., entry)| entry.output)
                        }
                        None => None,
                    },
                    Some(Stage::Committed) => {
                        Some(journal::find(conn, kind, id)?.and_then(|known| known.output))
                    }
                    _ => return Ok(None),
                };
                if let Some(output) = before {
                    let output = output.unwrap_or_else(|| RawValue::NULL.to_owned());
                    let value = serde_json::from_str(output.get());
                    return Ok(Some((value.map_err(journal::unreadable)?, output)));
                }
                let fail = |why| {
                    *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
                    QueryError::RollbackTransaction
                };
                let value = match catch_unwind(AssertUnwindSafe(|| work(conn))) {
                    Ok(Ok(value)) => value,
                    Ok(Err(Local::Refused(refused))) => return Err(fail(Ok(refused))),
                    Ok(Err(Local::Database(error))) => return Err(fail(Err(error.to_string()))),
                    Err(_) => return Err(fail(Err("it panicked".to_owned()))),
                };
                let output = to_raw_value(&value).map_err(journal::unreadable)?;
                match note(conn, &output) {
                    Ok(()) => Ok(Some((value, output))),
                    // The database is there: something failed before, and was swallowed.
                    Err(QueryError::DatabaseError(DatabaseErrorKind::Unknown, error)) => {
                        Err(fail(Err(error.message().to_owned())))
                    }
                    Err(error) => Err(error),
                }
            });
            earlier = true;
            let written = timeout_at(self.ends(), self.shared.written(written)).await;
            let failure = failed.lock().unwrap_or_else(PoisonError::into_inner).take();
            match (written, failure) {
                (Ok(Ok(Some(written))), _) => return Ok(written),
                (Ok(Ok(None)), _) => return Err(self.stop(Why::Lost)),
                (_, Some(Ok(failure))) => return Err(self.fail(failure)),
                (_, Some(Err(error))) if tries >= LOCAL_TRIES => {
                    let reason = format!("what is to be written with it failed: {error}");
                    return Err(self.fail(Failure::none(HandlerError::failed(reason))));
                }
                (_, failure) => {
                    tries += u32::from(failure.is_some());
                    self.wait(delays.next()).await?;
                }
            }
        }
    }

    /// Before a write is repeated.
    pub(super) async fn wait(&mut self, wait: Option<Duration>) -> Result<(), Stop> {
        let wait = wait.unwrap_or_default();
        if Instant::now() + wait >= self.until {
            tracing::warn!("the journal can't be written to as long as the lease lasts");
            return Err(self.stop(Why::Lost));
        }
        sleep(wait).await;
        Ok(())
    }

    /// When a write is not waited for any more.
    pub(super) fn ends(&self) -> Instant {
        self.until.max(Instant::now() + Duration::from_millis(100))
    }

    /// Works as long as the saga is ours, and extends the lease every third of it.
    pub(in crate::saga) async fn while_ours<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> Result<T, Stop> {
        if self.resumed {
            return Ok(work.await);
        }
        let shared = Arc::clone(&self.shared);
        let (id, fence) = (self.id, self.fence);
        tokio::select! {
            biased;
            done = work => return Ok(done),
            () = beat(&shared, (id, fence), &mut self.until) => {
                tracing::warn!("a saga lost its lease");
            }
            () = shared.cut() => {
                tracing::warn!("a saga is cut off by the shutdown");
                // Where that fails, the lease runs out.
                let _ = shared.door.lend(move |conn| journal::let_go(conn, id, fence)).await;
            }
        }
        Err(self.stop(Why::Lost))
    }

    /// What was not done in time is left to the ledger of deferred calls, or was its already.
    pub(super) async fn hand_over<T>(mut self, failure: Failure) -> Ended<T> {
        self.watch.failed(&failure);
        let (id, due, resumed) = (self.id, self.due.take(), self.resumed);
        let reason = failure.reason().to_owned();
        let dependency = failure.dependency.clone();
        let call = takeover::resume(id, &self.context);
        let written = self.write(&[Stage::Running], move |conn| {
            if let Some(due) = &due {
                journal::end_step(conn, id, due)?;
            }
            journal::note(conn, id, &reason, dependency.as_deref())?;
            if !resumed {
                journal::release(conn, id)?;
                crate::deferred::defer(conn, &call)?;
            }
            Ok(())
        });
        match written.await {
            Ok(()) => {
                self.shared.nudge();
                Ended::Beyond(failure)
            }
            Err(Stop(())) => Ended::Lost,
        }
    }

    /// Nobody may decide otherwise from now on.
    pub(super) fn may_decide(&mut self) -> Result<(), Stop> {
        if self.deadline.is_some_and(Deadline::is_expired)
            || !(self.watch.set(OPEN, DECIDED) || self.watch.is_decided())
        {
            return Err(self.fail(late()));
        }
        Ok(())
    }
}

/// Extends the lease every third of it. Ends when it is lost.
async fn beat(shared: &Definitions, (id, fence): (Uuid, i64), until: &mut Instant) {
    let lease = shared.settings.lease;
    let mut next = *until - lease + lease / 3;
    loop {
        sleep_until(next.min(*until)).await;
        let asked = Instant::now();
        let beaten = shared.door.lend(move |conn| journal::heartbeat(conn, id, fence, lease));
        let wait = match timeout_at(*until, beaten).await {
            Ok(Ok(true)) => {
                *until = asked + lease;
                lease / 3
            }
            Ok(Err(_)) if Instant::now() < *until => lease / 20,
            Ok(Ok(false) | Err(_)) | Err(_) => return,
        };
        next = asked + wait;
    }
}
