//! The one way to the caller's database.

use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use diesel::r2d2::{ConnectionManager, Pool};
use diesel::{Connection, PgConnection, QueryResult};
use futures_util::future::BoxFuture;

use crate::retry::Backoff;

/// Work with a connection. It blocks.
pub type Work = Box<dyn FnOnce(&mut PgConnection) -> QueryResult<()> + Send>;

/// Where the ledger is: runs work with a connection, on a thread that may block.
///
/// Implemented for Diesel's [`Pool`]; implement it for a pool of your own.
///
/// What looks a row up by its primary key stays prepared on its connection, and so may its plan. For a
/// table that was just emptied that may be one that reads all of it, which is kept until PostgreSQL
/// analyzes the table anew: about a minute later, by its
/// [`autovacuum_naptime`](https://www.postgresql.org/docs/current/runtime-config-autovacuum.html). With
/// `SET enable_seqscan = off; SET jit = off` on each new connection there is no such plan.
pub trait Database: Send + Sync + 'static {
    /// Runs the work and ends with its result. It must fail rather than wait for long: what the
    /// ledger can't do now, it does later. After 30 s nobody waits for it any more.
    fn run(&self, work: Work) -> BoxFuture<'static, Result<(), DatabaseError>>;
}

/// The database can't be reached, or refused. Nothing is known of what was asked of it.
#[derive(Clone, Debug)]
pub struct DatabaseError(Arc<dyn Error + Send + Sync>);

impl DatabaseError {
    /// With its cause.
    pub fn new(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(source.into().into())
    }

    /// The text of what it is about, for logs.
    pub(crate) fn cause(&self) -> String {
        self.0.to_string()
    }
}

impl fmt::Display for DatabaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the ledger's database can't be reached")
    }
}

impl Error for DatabaseError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

/// How long to wait for a connection out of a [`Pool`].
const WAIT: Duration = Duration::from_secs(1);

impl Database for Pool<ConnectionManager<PgConnection>> {
    fn run(&self, work: Work) -> BoxFuture<'static, Result<(), DatabaseError>> {
        let pool = self.clone();
        Box::pin(async move {
            let worked = tokio::task::spawn_blocking(move || {
                let mut conn = pool.get_timeout(WAIT).map_err(DatabaseError::new)?;
                work(&mut conn).map_err(DatabaseError::new)
            });
            worked.await.map_err(DatabaseError::new)?
        })
    }
}

/// Whose network is gone without a word gives no answer for hours. What was asked may still happen.
const ANSWER: Duration = Duration::from_secs(30);

/// The backoff of writes to a database that is away.
pub(crate) fn waits() -> Backoff {
    Backoff::new().initial(Duration::from_millis(50)).max_interval(Duration::from_secs(1))
}

/// A shared [`Database`], with results.
#[derive(Clone)]
pub(crate) struct Door(Arc<dyn Database>);

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Door")
    }
}

impl Door {
    pub(super) fn new(database: impl Database) -> Self {
        Self(Arc::new(database))
    }

    /// Runs the work in one transaction.
    #[track_caller]
    pub(crate) fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut PgConnection) -> QueryResult<T> + Send + 'static,
    ) -> impl Future<Output = Result<T, DatabaseError>> + Send {
        self.lend(move |conn| conn.transaction(work))
    }

    /// Runs work that is one statement, which is a transaction by itself, or begins its own.
    #[track_caller]
    pub(crate) fn lend<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut PgConnection) -> QueryResult<T> + Send + 'static,
    ) -> impl Future<Output = Result<T, DatabaseError>> + Send {
        #[cfg(feature = "testkit")]
        let place = std::panic::Location::caller();
        #[cfg(feature = "testkit")]
        let point = move |when| {
            crate::testkit::crash::point(|| {
                let file = place.file().rsplit("src/").next().unwrap_or_default();
                format!("{when} {file}:{}", place.line())
            });
        };
        let lent = self.lent(work);
        async move {
            #[cfg(feature = "testkit")]
            point("before");
            let result = lent.await;
            #[cfg(feature = "testkit")]
            if result.is_ok() {
                point("after");
            }
            result
        }
    }

    async fn lent<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut PgConnection) -> QueryResult<T> + Send + 'static,
    ) -> Result<T, DatabaseError> {
        let slot = Arc::new(Mutex::new(None));
        let filled = Arc::clone(&slot);
        let work: Work = Box::new(move |conn| {
            let value = work(conn)?;
            *filled.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
            Ok(())
        });
        tokio::time::timeout(ANSWER, self.0.run(work)).await.map_err(DatabaseError::new)??;
        let value = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        value.ok_or_else(|| DatabaseError::new("the database did not run what it was given"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As if its network were gone without a word.
    struct Silent;

    impl Database for Silent {
        fn run(&self, _: Work) -> BoxFuture<'static, Result<(), DatabaseError>> {
            Box::pin(std::future::pending())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever_for_a_database_that_never_answers() {
        let door = Door::new(Silent);
        let asked = door.run(|_| Ok(()));
        let answer = tokio::time::timeout(2 * ANSWER, asked).await.expect("an answer");
        assert!(answer.is_err());
    }
}
