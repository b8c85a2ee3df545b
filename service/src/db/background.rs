//! The door as deferred calls see it.

use std::error::Error as _;
use std::sync::Arc;

use diesel::Connection as _;
use diesel::result::Error as QueryError;
use futures_util::future::BoxFuture;
use resilience::deferred::{Database, DatabaseError, Work};

use super::{Count, Db, unavailable};
use crate::failure::Failure;

/// For calls that are deferred: by requests, and by whoever carries them out in the background. All
/// of them together get half of the connections, and the rest is for requests alone.
impl Database for Db {
    fn run(&self, work: Work) -> BoxFuture<'static, Result<(), DatabaseError>> {
        let db = self.clone();
        Box::pin(async move {
            let place = tokio::time::timeout(db.0.timeout / 2, db.0.background.acquire());
            let Ok(Ok(_place)) = place.await else {
                return Err(DatabaseError::new(db.no_place()));
            };
            let shared = Arc::clone(&db.0.shared);
            let done = db.run(move |conn| {
                conn.set_instrumentation(Count(Arc::clone(&shared), |shared| &shared.background));
                let done = work(conn);
                conn.set_instrumentation(Count(shared, |shared| &shared.statements));
                match done {
                    // Asked for, and no fault of the database's.
                    Err(QueryError::RollbackTransaction) => {
                        Ok(Err(QueryError::RollbackTransaction))
                    }
                    done => Ok(Ok(done?)),
                }
            });
            done.await.map_err(DatabaseError::new)?.map_err(DatabaseError::new)
        })
    }
}

/// What was behind it, where that was this service's own door.
impl From<DatabaseError> for Failure {
    fn from(error: DatabaseError) -> Self {
        let cause = error.source().and_then(|source| source.downcast_ref::<Failure>()).cloned();
        cause.unwrap_or_else(|| unavailable().with_source(error))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{channel, sync_channel};
    use std::time::{Duration, Instant};

    use backing::postgres::testing::TestDatabase;

    use super::super::tests::connected;
    use super::*;
    use crate::failure::code;

    fn db(database: &TestDatabase) -> Db {
        connected(database, &[("DB_POOL_SIZE", "4"), ("DB_TIMEOUT_MS", "2000")])
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn background_work_leaves_connections_to_requests_and_fails_fast_itself() {
        let database = TestDatabase::new("background", |_| Ok::<(), String>(()));
        let db = db(&database);
        let (busy, is_busy) = sync_channel(2);
        let (end, ends): (Vec<_>, Vec<_>) = (0..2).map(|_| channel::<()>()).unzip();
        let mut running = Vec::new();
        for until in ends {
            let busy = busy.clone();
            let work: Work = Box::new(move |_| {
                busy.send(()).unwrap();
                // Until the other end is dropped.
                let _ = until.recv();
                Ok(())
            });
            running.push(tokio::spawn(Database::run(&db, work)));
        }
        let both = tokio::task::spawn_blocking(move || [is_busy.recv(), is_busy.recv()]);
        for busy in both.await.unwrap() {
            busy.unwrap();
        }

        let start = Instant::now();
        let more = Database::run(&db, Box::new(|_| Ok(()))).await.unwrap_err();
        assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
        // What was behind it comes out as it was.
        assert_eq!(Failure::from(more).code(), code::OVERLOADED);
        assert_eq!(Db::run(&db, |_| Ok(7)).await.unwrap(), 7, "a request finds its place");
        drop(end);
        for work in running {
            work.await.unwrap().unwrap();
        }
        Database::run(&db, Box::new(|_| Ok(()))).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn statements_of_deferred_calls_are_counted_apart() {
        let database = TestDatabase::new("counted", |_| Ok::<(), String>(()));
        let db = db(&database);
        let one = |conn: &mut diesel::PgConnection| {
            diesel::RunQueryDsl::execute(diesel::sql_query("SELECT 1"), conn).map(drop)
        };
        Database::run(&db, Box::new(one)).await.unwrap();
        assert_eq!((db.statements(), db.background_statements()), (0, 1));
        Db::run(&db, move |conn| Ok(one(conn)?)).await.unwrap();
        assert_eq!((db.statements(), db.background_statements()), (1, 1));
    }
}
