//! What the tests stand on: a journal, the systems beside it, and runtimes at work.

use std::convert::Infallible;
use std::time::Duration;

use backing::postgres::testing::{TestCluster, TestDatabase};
use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use diesel::r2d2::ConnectionManager;
use diesel::sql_types::{BigInt, Text};
use diesel_migrations::MigrationHarness as _;
use futures_util::future::BoxFuture;
use resilience::Backoff;
use resilience::deadline::Deadline;
use resilience::deferred::{self, Builder, Database, DatabaseError, Deferred, Runtime, Work};
use resilience::saga::{Known, Outcome, Sagas, Settings, Stage, Start, StartError, Started};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::systems::Systems;
use super::trip::{Pivot, Trip, Wish, wish};
use crate::deferred::{Connections, connections, eventually};

/// The other systems' effects, and what the saga writes in the own database.
const TABLES: &str = "
    CREATE TABLE effects (
        number BIGSERIAL,
        system TEXT NOT NULL,
        id     UUID NOT NULL,
        undone BOOLEAN NOT NULL,
        times  BIGINT NOT NULL DEFAULT 1,
        PRIMARY KEY (system, id)
    );
    CREATE TABLE undos (number BIGSERIAL PRIMARY KEY, system TEXT NOT NULL, id UUID NOT NULL);
    CREATE TABLE trips (id UUID PRIMARY KEY);";

fn migrate(url: &str) -> Result<(), diesel::result::Error> {
    let mut conn = PgConnection::establish(url).unwrap();
    conn.run_pending_migrations(deferred::MIGRATIONS).unwrap();
    conn.run_pending_migrations(resilience::saga::MIGRATIONS).unwrap();
    conn.batch_execute(TABLES)
}

/// A way to the database that leaves the thread for nobody.
struct Inline(Connections);

impl Database for Inline {
    fn run(&self, work: Work) -> BoxFuture<'static, Result<(), DatabaseError>> {
        let pool = self.0.clone();
        Box::pin(async move {
            let mut conn = pool.get().map_err(DatabaseError::new)?;
            work(&mut conn).map_err(DatabaseError::new)
        })
    }
}

/// A journal of one's own, and the systems beside it.
pub(super) struct World {
    pub(super) systems: Systems,
    pub(super) pool: Connections,
    /// Last: it is gone when nobody is connected any more.
    database: TestDatabase,
}

/// For tests in which somebody dies, or looks so: their sagas are taken over at once.
pub(super) fn brief() -> Settings {
    quick().lease(Duration::from_millis(500))
}

/// Everything is over soon, and nobody is taken for dead on a crowded machine.
pub(super) fn quick() -> Settings {
    Settings::new()
        .lease(Duration::from_secs(10))
        .timeout(Duration::from_secs(5))
        .attempts(3)
        .backoff(
            Backoff::new()
                .initial(Duration::from_millis(20))
                .max_interval(Duration::from_millis(100)),
        )
}

impl World {
    pub(super) fn new() -> Self {
        Self::over(TestDatabase::new("saga", migrate))
    }

    /// In a cluster that the test may kill.
    pub(super) fn within(cluster: &TestCluster) -> Self {
        Self::over(cluster.database("saga", migrate))
    }

    fn over(database: TestDatabase) -> Self {
        let pool = connections(database.url());
        Self { systems: Systems::new(database.url()), pool, database }
    }

    pub(super) fn url(&self) -> &str {
        self.database.url()
    }

    pub(super) fn builder(&self) -> Builder {
        Deferred::builder(self.pool.clone()).saga(Trip(self.systems.clone()))
    }

    pub(super) fn start(&self) -> Office {
        self.start_with(quick())
    }

    /// With its database on this thread: what is counted is this thread's.
    pub(super) fn builder_here(&self) -> Builder {
        let builder = Deferred::builder(Inline(self.pool.clone()));
        builder.saga(Trip(self.systems.clone())).saga_settings(quick())
    }

    pub(super) fn start_with(&self, settings: Settings) -> Office {
        Office::start(self.builder().saga_settings(settings).build().unwrap())
    }

    pub(super) fn conn(&self) -> diesel::r2d2::PooledConnection<ConnectionManager<PgConnection>> {
        self.pool.get().unwrap()
    }

    pub(super) fn number(&self, query: &str) -> i64 {
        #[derive(QueryableByName)]
        struct Row {
            #[diesel(sql_type = BigInt)]
            number: i64,
        }
        let query = format!("SELECT ({query})::bigint AS number");
        diesel::sql_query(query).get_result::<Row>(&mut self.conn()).unwrap().number
    }

    pub(super) fn execute(&self, sql: &str) {
        self.conn().batch_execute(sql).unwrap();
    }

    /// Of which systems there is an effect.
    pub(super) fn effects(&self, id: Uuid) -> Vec<String> {
        self.texts(&format!(
            "SELECT system AS text FROM effects WHERE id = '{id}' AND NOT undone ORDER BY number"
        ))
    }

    /// Which systems have undone, in this order; each once.
    pub(super) fn undone(&self, id: Uuid) -> Vec<String> {
        self.texts(&format!(
            "SELECT system AS text FROM undos WHERE id = '{id}' GROUP BY system ORDER BY min(number)"
        ))
    }

    /// What the journal says of each step.
    pub(super) fn steps(&self, id: Uuid) -> Vec<String> {
        self.texts(&format!(
            "SELECT name || ' ' || state AS text FROM saga_step WHERE saga = '{id}' ORDER BY number"
        ))
    }

    pub(super) fn texts(&self, query: &str) -> Vec<String> {
        #[derive(QueryableByName)]
        struct Row {
            #[diesel(sql_type = Text)]
            text: String,
        }
        let rows: Vec<Row> = diesel::sql_query(query).load(&mut self.conn()).unwrap();
        rows.into_iter().map(|row| row.text).collect()
    }

    pub(super) fn is_noted(&self, id: Uuid) -> bool {
        self.number(&format!("SELECT count(*) FROM trips WHERE id = '{id}'")) == 1
    }

    pub(super) fn stage(&self, id: Uuid) -> Option<String> {
        self.texts(&format!("SELECT state AS text FROM saga WHERE id = '{id}'")).pop()
    }

    /// All effects or none, as the journal says.
    pub(super) fn whole(&self, id: Uuid, pivot: Pivot) {
        let stage = self.stage(id);
        let all: &[&str] = match pivot {
            Pivot::Local => &["hotel", "flight"],
            Pivot::Remote => &["hotel", "flight", "pay", "mail"],
            Pivot::Decide => &["hotel", "flight", "mail"],
        };
        let (effects, noted) = (self.effects(id), self.is_noted(id));
        match stage.as_deref() {
            Some("committed") => assert!(effects == all && noted, "{effects:?}, noted: {noted}"),
            Some("compensated") | None => {
                assert!(effects.is_empty() && !noted, "{stage:?}: {effects:?}, noted: {noted}");
            }
            other => panic!("{id} is {other:?}: {:?}", self.steps(id)),
        }
    }

    /// Waits until no saga is open, and nothing of any is left in the ledger.
    pub(super) async fn calm(&self) {
        eventually("no saga is open", || {
            self.number("SELECT count(*) FROM saga WHERE ended_at IS NULL") == 0
                && self.number("SELECT count(*) FROM deferred WHERE ended_at IS NULL") == 0
        })
        .await;
    }
}

/// A runtime at work.
pub(super) struct Office {
    pub(super) sagas: Sagas,
    pub(super) deferred: Deferred,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Office {
    pub(super) fn start(runtime: Runtime) -> Self {
        let (sagas, deferred) = (runtime.sagas(), runtime.handle());
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(runtime.run(async {
            let _ = stopped.await;
        }));
        Self { sagas, deferred, stop, task }
    }

    /// Shuts it down in order.
    pub(super) async fn stop(self) {
        let _ = self.stop.send(());
        crate::soon(self.task).await.unwrap();
    }

    pub(super) async fn book(&self, pivot: Pivot) -> (Uuid, Outcome<u32>) {
        self.book_by(pivot, None).await
    }

    pub(super) async fn book_by(
        &self,
        pivot: Pivot,
        deadline: Option<Deadline>,
    ) -> (Uuid, Outcome<u32>) {
        let wish = wish(pivot);
        let begun = self.ask(&wish, deadline).await;
        let Started::Begun(outcome) = begun else { panic!("{begun:?}") };
        (wish.id, outcome)
    }

    pub(super) async fn ask(&self, wish: &Wish, deadline: Option<Deadline>) -> Started<u32> {
        self.try_to_ask(wish, deadline).await.unwrap()
    }

    /// Of many at once, not each gets a connection in time: nothing is promised then.
    pub(super) async fn try_to_ask(
        &self,
        wish: &Wish,
        deadline: Option<Deadline>,
    ) -> Result<Started<u32>, StartError<Infallible>> {
        let start = Start::new(wish.id, wish).unwrap();
        let nothing = |_: &mut PgConnection| Ok(());
        crate::patiently(self.sagas.run::<Trip, _>(start, deadline, nothing)).await
    }

    pub(super) async fn ended(&self, id: Uuid) -> Known {
        let known = self.sagas.ended::<Trip>(id, Duration::from_secs(20)).await.unwrap();
        known.unwrap_or_else(|| panic!("there is no saga {id}"))
    }

    pub(super) async fn stage(&self, id: Uuid) -> Stage {
        self.ended(id).await.stage
    }
}
