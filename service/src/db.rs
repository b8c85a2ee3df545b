//! The one door to the database.
//!
//! Diesel is synchronous, so every piece of work runs on a blocking thread, at most as many at a
//! time as there are connections. The door fails fast: no free place, no connection, or no answer
//! within the time allowed is a 503, never a queue that grows.

mod background;
mod counts;
mod ping;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::r2d2::ConnectionManager;
use diesel::result::{DatabaseErrorKind, Error as QueryError};
use diesel::{Connection, PgConnection};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

use self::counts::{Count, Waiting};
use crate::config::BaseConfig;
use crate::database_url::DatabaseUrl;
use crate::failure::{Failure, code};
use ping::Probe;

/// See [`Db::lease`].
const SHORTEST_LEASE: Duration = Duration::from_secs(4);

/// A connection that has rested for longer is asked whether it is alive before it is used.
const REST: Duration = Duration::from_millis(200);

/// The database of a service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Db(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    service: &'static str,
    pool: r2d2::Pool<Manager>,
    places: Arc<Semaphore>,
    /// Those of the places that work in the background may have: requests always find the others.
    background: Arc<Semaphore>,
    probe: Probe,
    timeout: Duration,
    lease: Duration,
    shared: Arc<Shared>,
}

/// What all connections of a pool have in common.
#[derive(Debug, Default)]
struct Shared {
    /// Rises with every lost connection: those made before are asked before they are used again.
    epoch: AtomicU64,
    /// Whether the last piece of work reached the database: it tells "too much at once" from "away".
    reached: AtomicBool,
    /// Pieces of work that have no place yet.
    waiting: AtomicU32,
    statements: AtomicU64,
    /// Those of deferred calls, which no request waits for.
    background: AtomicU64,
}

impl Db {
    /// Makes the pool; connects when work comes, so that a service starts without its database.
    pub fn new(config: &BaseConfig) -> Self {
        let shared = Arc::new(Shared { reached: AtomicBool::new(true), ..Shared::default() });
        let manager = Manager {
            // libpq's smallest limit. A server that accepts and says nothing must not hold the
            // pool's thread for good.
            inner: ConnectionManager::new(with_connect_timeout(config.database_url.as_str())),
            _url: config.database_url.clone(),
            timeout: config.database_timeout,
            shared: Arc::clone(&shared),
        };
        let pool = r2d2::Pool::builder()
            .max_size(config.pool_size + 1)
            .min_idle(Some(1))
            .connection_timeout(config.database_timeout / 3)
            .test_on_check_out(true)
            .error_handler(Box::new(Quiet))
            .build_unchecked(manager);
        Self(Arc::new(Inner {
            service: config.name,
            pool,
            places: Arc::new(Semaphore::new(config.pool_size as usize)),
            background: Arc::new(Semaphore::new(config.pool_size.div_ceil(2) as usize)),
            probe: Probe::default(),
            timeout: config.database_timeout,
            lease: SHORTEST_LEASE.max(config.budget * 2),
            shared,
        }))
    }

    /// Runs `work` with a connection, on a blocking thread. It goes on when the caller is dropped.
    ///
    /// # Errors
    /// What `work` returns; 503 `database_unavailable` when the database can't be reached or does
    /// not answer within the time allowed (what was asked of it may still happen), 503 `overloaded`
    /// when it can but every connection is busy.
    #[cfg_attr(feature = "testing", track_caller)]
    pub fn run<T, F>(&self, work: F) -> impl Future<Output = Result<T, Failure>> + Send
    where
        T: Send + 'static,
        F: FnOnce(&mut PgConnection) -> Result<T, Failure> + Send + 'static,
    {
        let done = self.run_within(&self.0.places, self.0.timeout, work);
        #[cfg(feature = "testing")]
        let done = between_points(std::panic::Location::caller(), done);
        done
    }

    /// [`Db::run`], and all of it in one transaction: an error takes everything back.
    ///
    /// # Errors
    /// As [`Db::run`].
    #[cfg_attr(feature = "testing", track_caller)]
    pub fn transaction<T, F>(&self, work: F) -> impl Future<Output = Result<T, Failure>> + Send
    where
        T: Send + 'static,
        F: FnOnce(&mut PgConnection) -> Result<T, Failure> + Send + 'static,
    {
        self.run(|conn| conn.transaction(work))
    }

    /// How long whoever works under a lease that is kept in this database may stay silent until
    /// somebody else takes over: longer than a request may take, and than the wait between two
    /// attempts in the background, each of which extends it. A live one that is overtaken all the
    /// same does no harm: both act under the same ids.
    pub fn lease(&self) -> Duration {
        self.0.lease
    }

    /// Statements sent so far, by all connections; those of deferred calls excepted.
    pub fn statements(&self) -> u64 {
        self.0.shared.statements.load(Ordering::Relaxed)
    }

    /// Statements sent so far to defer calls and to carry them out: an idle service sends some.
    pub fn background_statements(&self) -> u64 {
        self.0.shared.background.load(Ordering::Relaxed)
    }

    async fn run_within<T, F>(
        &self,
        places: &Arc<Semaphore>,
        limit: Duration,
        work: F,
    ) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: FnOnce(&mut PgConnection) -> Result<T, Failure> + Send + 'static,
    {
        let span = tracing::debug_span!(
            "database",
            otel.name = "postgresql",
            otel.kind = "client",
            otel.status_code = Empty,
            error.type = Empty,
            db.system.name = "postgresql",
            wait_ms = Empty,
        );
        let result = self.run_traced(places, limit, work).instrument(span.clone()).await;
        if let Err(failure) = &result
            && failure.status().is_server_error()
        {
            span.record("error.type", failure.code());
            span.record("otel.status_code", "ERROR");
        }
        result
    }

    async fn run_traced<T, F>(
        &self,
        places: &Arc<Semaphore>,
        limit: Duration,
        work: F,
    ) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: FnOnce(&mut PgConnection) -> Result<T, Failure> + Send + 'static,
    {
        let start = Instant::now();
        let Some(place) = self.place(places, limit / 2).await else {
            return Err(self.no_place());
        };
        let inner = Arc::clone(&self.0);
        let span = Span::current();
        let wait = limit.saturating_sub(start.elapsed()).min(limit / 2);
        let running = tokio::task::spawn_blocking(move || {
            // Kept until the work is really over: a database that hangs uses up the places, and
            // whoever comes next fails at once instead of hanging as well.
            let _place = place;
            span.in_scope(|| inner.work(start, wait, work))
        });
        match tokio::time::timeout(limit.saturating_sub(start.elapsed()), running).await {
            Ok(Ok(result)) => result,
            Ok(Err(panicked)) => Err(Failure::internal(panicked)),
            Err(_) => {
                self.0.shared.reached.store(false, Ordering::Relaxed);
                Err(unavailable().with_source("no answer from the database in time"))
            }
        }
    }

    async fn place(
        &self,
        places: &Arc<Semaphore>,
        limit: Duration,
    ) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = Arc::clone(places).try_acquire_owned() {
            return Some(place);
        }
        let _waiting = Waiting::new(&self.0.shared);
        let place = Arc::clone(places).acquire_owned();
        tokio::time::timeout(limit, place).await.ok()?.ok()
    }

    fn no_place(&self) -> Failure {
        if self.0.shared.reached.load(Ordering::Relaxed) {
            overloaded()
        } else {
            unavailable().with_source("every connection is waiting for the database")
        }
    }
}

impl Inner {
    fn work<T>(
        &self,
        start: Instant,
        wait: Duration,
        work: impl FnOnce(&mut PgConnection) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut pooled = self.pool.get_timeout(wait).map_err(|e| {
            self.shared.reached.store(false, Ordering::Relaxed);
            unavailable().with_source(e)
        })?;
        let waited = start.elapsed();
        Span::current().record("wait_ms", waited.as_secs_f64() * 1000.0);
        metrics::histogram!("db_wait_seconds", "service" => self.service).record(waited);
        let result = work(&mut pooled.conn);
        // A database that went away shows as one of many errors; one more question tells.
        let lost = matches!(&result, Err(failure) if failure.status().is_server_error())
            && pooled.conn.batch_execute("SELECT 1").is_err();
        if lost {
            pooled.lost = true;
            self.shared.epoch.fetch_add(1, Ordering::Relaxed);
            self.shared.reached.store(false, Ordering::Relaxed);
            return result.map_err(|failure| unavailable().with_source(failure));
        }
        self.shared.reached.store(true, Ordering::Relaxed);
        pooled.used = Instant::now();
        pooled.epoch = self.shared.epoch.load(Ordering::Relaxed);
        result
    }
}

fn unavailable() -> Failure {
    Failure::unavailable(code::DATABASE_UNAVAILABLE, "the database can't be reached; try again")
}

fn overloaded() -> Failure {
    Failure::unavailable(code::OVERLOADED, "too many requests at once; try again shortly")
}

/// A process that is tested can be ended before and after each piece of work, which is named by where
/// it is in the code.
#[cfg(feature = "testing")]
async fn between_points<T>(
    place: &'static std::panic::Location<'static>,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let point = |when| {
        let (file, line) = (place.file(), place.line());
        resilience::testkit::crash::point(|| format!("{when} {file}:{line}"));
    };
    point("before");
    let result = work.await;
    if result.is_ok() {
        point("after");
    }
    result
}

/// libpq rounds one second up to two; the address may say otherwise.
pub(crate) fn with_connect_timeout(url: &str) -> String {
    if url.contains("connect_timeout=") {
        return url.to_owned();
    }
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}connect_timeout=2")
}

/// A question that the database itself gave up on is an outage; any other error that no operation
/// expects is a defect.
impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Self {
        match &error {
            QueryError::DatabaseError(
                DatabaseErrorKind::ClosedConnection
                | DatabaseErrorKind::UnableToSendCommand
                | DatabaseErrorKind::ReadOnlyTransaction
                | DatabaseErrorKind::SerializationFailure,
                _,
            )
            | QueryError::BrokenTransactionManager => unavailable().with_source(error),
            QueryError::DatabaseError(DatabaseErrorKind::Unknown, info)
                if info.message().starts_with("canceling statement due to lock timeout") =>
            {
                overloaded().with_source(error)
            }
            QueryError::DatabaseError(DatabaseErrorKind::Unknown, info)
                if info.message().starts_with("canceling statement")
                    || info.message().starts_with("deadlock detected") =>
            {
                unavailable().with_source(error)
            }
            _ => Failure::internal(error),
        }
    }
}

/// A pooled connection and when it was last known to be alive.
struct Pooled {
    conn: PgConnection,
    used: Instant,
    epoch: u64,
    lost: bool,
}

impl std::fmt::Debug for Manager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The address holds the password.
        f.debug_struct("Manager").finish_non_exhaustive()
    }
}

struct Manager {
    inner: ConnectionManager<PgConnection>,
    /// What it holds is needed whenever a connection is made.
    _url: DatabaseUrl,
    timeout: Duration,
    shared: Arc<Shared>,
}

impl r2d2::ManageConnection for Manager {
    type Connection = Pooled;
    type Error = diesel::r2d2::Error;

    fn connect(&self) -> Result<Pooled, Self::Error> {
        let mut conn = self.inner.connect()?;
        // The server gives up where we do, so that nothing abandoned holds locks: no statement, and
        // no transaction of a process that is frozen in the middle of it.
        // And a plan is kept with its statement for as long as PostgreSQL finds nothing new in its
        // statistics: one that reads all of a small table would be kept while that grows. What can't but
        // be read whole counts as so dear then that it would be compiled first.
        let millis = self.timeout.as_millis();
        conn.batch_execute(&format!(
            "SET statement_timeout = {statement};
             SET lock_timeout = {lock};
             SET idle_in_transaction_session_timeout = {millis};
             SET enable_seqscan = off;
             SET jit = off",
            // Each before the one that waits for it, so that the more telling error wins.
            statement = (millis * 3 / 4).max(1),
            lock = (millis / 2).max(1),
        ))
        .map_err(diesel::r2d2::Error::QueryError)?;
        conn.set_instrumentation(Count(Arc::clone(&self.shared), |shared| &shared.statements));
        let epoch = self.shared.epoch.load(Ordering::Relaxed);
        Ok(Pooled { conn, used: Instant::now(), epoch, lost: false })
    }

    /// Asks only a connection that has rested, or that is older than the last loss: asking each
    /// time would double the statements of a read.
    fn is_valid(&self, pooled: &mut Pooled) -> Result<(), Self::Error> {
        let current = self.shared.epoch.load(Ordering::Relaxed);
        if pooled.used.elapsed() < REST && pooled.epoch == current {
            return Ok(());
        }
        pooled.conn.set_instrumentation(None::<Count>);
        let alive = self.inner.is_valid(&mut pooled.conn);
        pooled
            .conn
            .set_instrumentation(Count(Arc::clone(&self.shared), |shared| &shared.statements));
        alive
    }

    fn has_broken(&self, pooled: &mut Pooled) -> bool {
        pooled.lost || self.inner.has_broken(&mut pooled.conn)
    }
}

/// While the database is away the pool tries in the background, several times a second: a debug
/// line each, as every request that fails for it is logged anyway.
#[derive(Debug)]
struct Quiet;

impl r2d2::HandleError<diesel::r2d2::Error> for Quiet {
    fn handle_error(&self, error: diesel::r2d2::Error) {
        tracing::debug!(%error, "no connection to the database");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::config::Reader;
    use crate::tombstone;
    use backing::postgres::testing::TestDatabase;

    /// With these variables besides.
    pub(super) fn connected(database: &TestDatabase, variables: &[(&str, &str)]) -> Db {
        let all = [&[("DATABASE_URL", database.url())], variables].concat();
        let owned = all.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut reader = Reader::from_variables(owned).unwrap();
        Db::new(
            &BaseConfig::read(&mut reader, "thing", 0, crate::access::Callers::Services).unwrap(),
        )
    }

    #[derive(diesel::QueryableByName)]
    struct Line {
        #[diesel(sql_type = diesel::sql_types::Text, column_name = "QUERY PLAN")]
        text: String,
    }

    /// As a plan is kept with its statement, for as long as a connection lives.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_plan_from_when_a_table_was_empty_reads_no_more_than_it_must_when_it_is_large() {
        use diesel::{RunQueryDsl as _, sql_query};

        let database = TestDatabase::new("plan", |_| Ok::<(), String>(()));
        let db = connected(&database, &[("DB_TIMEOUT_MS", "20000")]);
        let plan = db.run(|conn| {
            conn.batch_execute("CREATE TABLE things (id bigint PRIMARY KEY)")?;
            conn.batch_execute("VACUUM ANALYZE things")?;
            conn.batch_execute("PREPARE look_up AS SELECT FROM things WHERE id = $1")?;
            // The first five are planned each, the next one for good.
            for id in 0..7 {
                conn.batch_execute(&format!("EXECUTE look_up({id})"))?;
            }
            conn.batch_execute("INSERT INTO things SELECT generate_series(1, 10000)")?;
            Ok(sql_query("EXPLAIN EXECUTE look_up(7)").load::<Line>(conn)?)
        });
        let plan: Vec<_> = plan.await.unwrap().into_iter().map(|line| line.text).collect();
        assert!(plan[0].starts_with("Index"), "{plan:#?}");
    }

    /// What a process that is frozen in the middle of a transaction does to the others.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_holder_that_falls_silent_gives_its_locks_back() {
        let database = TestDatabase::new("silent", |_| Ok::<(), String>(()));
        let [frozen, other] = [(); 2].map(|()| connected(&database, &[("DB_TIMEOUT_MS", "1000")]));
        let id = uuid::Uuid::new_v4();
        let (locked, is_locked) = channel();
        let (thaw, thawed) = channel::<()>();
        let holder = tokio::spawn(async move {
            let held = frozen.transaction(move |conn| {
                tombstone::lock(conn, id)?;
                locked.send(()).unwrap();
                // Until the other end is dropped.
                let _ = thawed.recv();
                Ok(())
            });
            held.await
        });
        tokio::task::spawn_blocking(move || is_locked.recv()).await.unwrap().unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        let lock = || other.transaction(move |conn| Ok(tombstone::lock(conn, id)?));
        assert!(lock().await.is_err(), "held while its holder may still be at work");
        while lock().await.is_err() {
            assert!(Instant::now() < end, "still locked");
        }
        drop(thaw);
        assert!(holder.await.unwrap().is_err(), "the silent one has not committed");
    }
}
