//! A ledger, a handler that does what a test says, and runtimes on them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backing::postgres::testing::{TestCluster, TestDatabase};
use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use diesel::r2d2::{ConnectionManager, Pool};
use diesel::sql_types::{BigInt, Text, Uuid as SqlUuid};
use diesel_migrations::MigrationHarness as _;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use resilience::breaker::Breaker;
use resilience::deferred::{
    Attempt, Deferral, Deferred, Entry, Handler, HandlerError, MIGRATIONS, Runtime, Settings,
    Stage, defer,
};
use resilience::{Backoff, Random};
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use uuid::Uuid;

/// What the tests' handlers write beside the ledger.
const TABLES: &str = "
    CREATE TABLE notes (id UUID NOT NULL, what TEXT NOT NULL);
    CREATE TABLE runs (
        number    BIGSERIAL PRIMARY KEY,
        id        UUID NOT NULL,
        worker    TEXT NOT NULL,
        began_at  TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
        ended_at  TIMESTAMPTZ
    );";

pub(crate) type Connections = Pool<ConnectionManager<PgConnection>>;

/// A ledger of one's own.
pub(super) struct Ledger {
    pub(super) pool: Connections,
    /// Last: it is gone when nobody is connected any more.
    database: TestDatabase,
}

fn migrate(url: &str) -> Result<(), diesel::result::Error> {
    let mut conn = PgConnection::establish(url).unwrap();
    conn.run_pending_migrations(MIGRATIONS).unwrap();
    conn.batch_execute(TABLES)
}

pub(crate) fn connections(url: &str) -> Connections {
    let manager = ConnectionManager::new(format!("{url}?connect_timeout=2"));
    Pool::builder()
        .max_size(8)
        .min_idle(Some(0))
        .connection_timeout(Duration::from_secs(2))
        .error_handler(Box::new(diesel::r2d2::NopErrorHandler))
        .build_unchecked(manager)
}

impl Ledger {
    pub(super) fn new() -> Self {
        Self::over(TestDatabase::new("ledger", migrate))
    }

    /// In a cluster that the test may kill.
    pub(super) fn within(cluster: &TestCluster) -> Self {
        Self::over(cluster.database("ledger", migrate))
    }

    fn over(database: TestDatabase) -> Self {
        Self { pool: connections(database.url()), database }
    }

    pub(super) fn url(&self) -> &str {
        self.database.url()
    }

    pub(super) fn conn(&self) -> diesel::r2d2::PooledConnection<ConnectionManager<PgConnection>> {
        self.pool.get().unwrap()
    }

    /// A runtime with one handler.
    pub(super) fn runtime<H: Handler>(&self, handler: H, settings: Settings) -> Runtime {
        let builder = Deferred::builder(self.pool.clone());
        builder.handler(handler, settings).build().unwrap()
    }

    pub(super) fn start<H: Handler>(&self, handler: H, settings: Settings) -> Running {
        Running::start(self.runtime(handler, settings))
    }

    /// Defers a call and commits.
    pub(super) fn defer(&self, call: &Deferral) {
        assert!(defer(&mut self.conn(), call).unwrap(), "there is one of this id");
    }

    pub(super) fn defer_all<'a>(&self, calls: impl IntoIterator<Item = &'a Deferral>) {
        for call in calls {
            self.defer(call);
        }
    }

    /// Defers calls with this payload, in one transaction; their ids.
    pub(super) fn defer_many(&self, count: usize, payload: &Value) -> Vec<Uuid> {
        let calls: Vec<_> = (0..count).map(|_| job(payload)).collect();
        let deferred = self.conn().transaction(|conn| {
            calls.iter().try_for_each(|call| defer(conn, call).map(|new| assert!(new)))
        });
        deferred.unwrap();
        calls.iter().map(Deferral::id).collect()
    }

    pub(super) fn count(&self, condition: &str) -> i64 {
        self.number(&format!("SELECT count(*) AS number FROM deferred WHERE {condition}"))
    }

    pub(super) fn number(&self, query: &str) -> i64 {
        #[derive(QueryableByName)]
        struct Row {
            #[diesel(sql_type = BigInt)]
            number: i64,
        }
        let row: Row = diesel::sql_query(query).get_result(&mut self.conn()).unwrap();
        row.number
    }

    /// Who has the row, and since when: as it stands there.
    pub(super) fn row(&self, id: Uuid) -> String {
        #[derive(QueryableByName)]
        struct Row {
            #[diesel(sql_type = Text)]
            text: String,
        }
        let query = "SELECT deferred::text AS text FROM deferred WHERE id = $1";
        let query = diesel::sql_query(query).bind::<SqlUuid, _>(id);
        query.get_result::<Row>(&mut self.conn()).unwrap().text
    }

    pub(super) fn execute(&self, sql: &str) {
        self.conn().batch_execute(sql).unwrap();
    }

    /// What the hooks have written, in order.
    pub(super) fn notes(&self, id: Uuid) -> Vec<String> {
        #[derive(QueryableByName)]
        struct Row {
            #[diesel(sql_type = Text)]
            what: String,
        }
        let rows: Vec<Row> =
            diesel::sql_query("SELECT what FROM notes WHERE id = $1 ORDER BY ctid")
                .bind::<SqlUuid, _>(id)
                .load(&mut self.conn())
                .unwrap();
        rows.into_iter().map(|row| row.what).collect()
    }

    /// Waits for so many rows that fulfil this.
    pub(super) async fn until(&self, condition: &str, count: usize) {
        let count = i64::try_from(count).unwrap();
        eventually(&format!("{count} rows with {condition}"), || self.count(condition) == count)
            .await;
    }
}

/// Asks again and again, and fails after a while.
pub(crate) async fn eventually(what: &str, mut happened: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + Duration::from_mins(1);
    while !happened() {
        assert!(std::time::Instant::now() < end, "it never happens: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A runtime at work.
pub(super) struct Running {
    pub(super) deferred: Deferred,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    pub(super) fn start(runtime: Runtime) -> Self {
        let deferred = runtime.handle();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(runtime.run(async {
            let _ = stopped.await;
        }));
        Self { deferred, stop, task }
    }

    /// Shuts it down in order.
    pub(super) async fn stop(self) {
        let _ = self.stop.send(());
        crate::soon(self.task).await.unwrap();
    }

    /// Drops it, and what it runs.
    pub(super) async fn drop_it(self) {
        self.task.abort();
        let _ = crate::soon(self.task).await;
    }

    /// Waits for the end of a call.
    pub(super) async fn ended(&self, id: Uuid) -> Entry {
        let stage = self.deferred.ended(id, Duration::from_secs(30)).await.unwrap();
        assert!(stage.is_some_and(Stage::has_ended), "{id} is still {stage:?}");
        self.entry(id).await
    }

    pub(super) async fn entry(&self, id: Uuid) -> Entry {
        self.deferred.get(id).await.unwrap().unwrap()
    }
}

type Act = dyn Fn(Attempt<Value>) -> BoxFuture<'static, Result<Value, HandlerError>> + Send + Sync;

/// A handler that does what its test says. Its hooks take notes.
pub(super) struct Job(Box<Act>);

impl Job {
    pub(super) fn new<F: Future<Output = Result<Value, HandlerError>> + Send + 'static>(
        act: impl Fn(Attempt<Value>) -> F + Send + Sync + 'static,
    ) -> Self {
        Self(Box::new(move |attempt| act(attempt).boxed()))
    }

    /// Succeeds at once.
    pub(super) fn done() -> Self {
        Self::new(async |_| Ok(Value::Null))
    }
}

fn note(conn: &mut PgConnection, id: Uuid, what: &str) -> QueryResult<()> {
    diesel::sql_query("INSERT INTO notes (id, what) VALUES ($1, $2)")
        .bind::<SqlUuid, _>(id)
        .bind::<Text, _>(what)
        .execute(conn)
        .map(drop)
}

impl Handler for Job {
    const KIND: &'static str = "job";
    type Payload = Value;
    type Output = Value;

    async fn run(&self, attempt: Attempt<Value>) -> Result<Value, HandlerError> {
        (self.0)(attempt).await
    }

    fn done(&self, conn: &mut PgConnection, id: Uuid, output: &Value) -> QueryResult<()> {
        note(conn, id, &format!("done {output}"))
    }

    fn parked(&self, conn: &mut PgConnection, id: Uuid, reason: &str) -> QueryResult<()> {
        note(conn, id, &format!("parked {reason}"))
    }

    fn resumed(&self, conn: &mut PgConnection, id: Uuid) -> QueryResult<()> {
        note(conn, id, "resumed")
    }
}

pub(super) fn job(payload: &Value) -> Deferral {
    Deferral::new::<Job>(Uuid::new_v4(), payload).unwrap()
}

/// Short waits and leases, and a breaker that never opens by itself.
pub(super) fn quick() -> Settings {
    let breaker = Breaker::builder("job").consecutive_failures(u32::MAX).build();
    Settings::new()
        .attempts(3)
        .backoff(short_waits())
        .lease(Duration::from_secs(1))
        .timeout(Duration::from_secs(5))
        .breaker(breaker)
}

pub(super) fn short_waits() -> Backoff {
    Backoff::new()
        .initial(Duration::from_millis(5))
        .max_interval(Duration::from_millis(20))
        .random(Random::new())
}

/// Counts per id.
#[derive(Clone, Default)]
pub(super) struct Tally(Arc<Mutex<HashMap<Uuid, u32>>>);

impl Tally {
    /// Counts one more, and says how many it makes.
    pub(super) fn add(&self, id: Uuid) -> u32 {
        let mut counts = self.0.lock().unwrap();
        let count = counts.entry(id).or_default();
        *count += 1;
        *count
    }

    pub(super) fn of(&self, id: Uuid) -> u32 {
        self.0.lock().unwrap().get(&id).copied().unwrap_or_default()
    }

    pub(super) fn all(&self) -> u32 {
        self.0.lock().unwrap().values().sum()
    }
}
