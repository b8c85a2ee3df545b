//! What everything stands on.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use backing::Server;
use backing::postgres::Cluster;
use backing::rabbitmq::testing::{TestBroker, TestVhost};
use diesel::connection::SimpleConnection as _;
use diesel::dsl::sql;
use diesel::r2d2::{ConnectionManager, Pool};
use diesel::sql_types::BigInt;
use diesel::{Connection as _, PgConnection, RunQueryDsl as _};
use diesel_migrations::MigrationHarness as _;
use resilience::deferred::{self, Attempt, Broker, Deferred, Handler, HandlerError, Settings};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use uuid::Uuid;

/// A server that syncs, as in production: what is ephemeral in tests would flatter us.
pub(crate) struct Ground {
    server: Option<Server>,
    cluster: Cluster,
    broker: TestBroker,
}

impl Ground {
    pub(crate) fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("bench-{}", Uuid::new_v4().simple()));
        let cluster = Cluster::durable(&folder).expect("a cluster");
        let server = cluster.start(None).expect("a server");
        Self { server: Some(server), cluster, broker: TestBroker::dedicated() }
    }

    /// An empty ledger, in a database of its own.
    pub(crate) fn ledger(&self) -> Ledger {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let name = format!("bench_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let port = self.server.as_ref().expect("it runs").port();
        self.cluster.create_database(port, &name).expect("a database");
        let url = self.cluster.url(port, &name);
        let mut conn = PgConnection::establish(&url).expect("a connection");
        conn.run_pending_migrations(deferred::MIGRATIONS).expect("the schema");
        Ledger { url }
    }

    pub(crate) fn vhost(&self) -> TestVhost {
        self.broker.vhost()
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop();
        }
        // A folder of ours, under the temporary ones.
        let _ = std::fs::remove_dir_all(self.cluster.folder());
    }
}

/// A database with the ledger's schema.
pub(crate) struct Ledger {
    url: String,
}

impl Ledger {
    pub(crate) fn connect(&self) -> PgConnection {
        PgConnection::establish(&self.url).expect("a connection")
    }

    pub(crate) fn pool(&self) -> Pool<ConnectionManager<PgConnection>> {
        let manager = ConnectionManager::new(&self.url);
        Pool::builder().max_size(20).build(manager).expect("a pool")
    }

    /// Rows that ended.
    pub(crate) fn fill(&self, rows: u32) {
        let mut conn = self.connect();
        let fill = format!(
            "INSERT INTO deferred (id, kind, payload, state, not_before, ended_at, attempts)
             SELECT gen_random_uuid(), 'no-op', '42', 'done', now(), now(), 1
             FROM generate_series(1, {rows})"
        );
        conn.batch_execute(&fill).expect("rows");
        // What the filling leaves behind isn't to be measured.
        conn.batch_execute("VACUUM ANALYZE deferred").expect("it is clean");
        conn.batch_execute("CHECKPOINT").expect("it is written");
    }
}

/// Does nothing, and says so.
pub(crate) struct Nothing(mpsc::UnboundedSender<(u32, Instant)>);

impl Handler for Nothing {
    const KIND: &'static str = "no-op";
    type Payload = u32;
    type Output = ();

    async fn run(&self, attempt: Attempt<u32>) -> Result<(), HandlerError> {
        // Nobody listens any more when the measuring is over.
        let _ = self.0.send((attempt.payload, Instant::now()));
        Ok(())
    }
}

/// A runtime that does nothing for each call.
pub(crate) struct Running {
    pub(crate) deferred: Deferred,
    /// What it has begun, and when.
    pub(crate) runs: mpsc::UnboundedReceiver<(u32, Instant)>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    /// Returns when it works, with the broker where there is one.
    pub(crate) async fn start(ledger: &Ledger, broker: Option<&str>, settings: Settings) -> Self {
        let (ran, runs) = mpsc::unbounded_channel();
        let builder = Deferred::builder(ledger.pool()).app("bench");
        let mut builder = builder.handler(Nothing(ran), settings);
        if let Some(broker) = broker {
            builder = builder.amqp(broker);
        }
        let runtime = builder.build().expect("a runtime");
        let deferred = runtime.handle();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(runtime.run(async {
            let _ = stopped.await;
        }));
        if broker.is_some() {
            let mut state = deferred.watch_broker();
            state.wait_for(|state| *state == Broker::Work).await.expect("it runs");
        }
        Self { deferred, runs, stop, task }
    }

    pub(crate) async fn stop(self) {
        let _ = self.stop.send(());
        self.task.await.expect("it ends");
    }
}

/// Waits until everything has ended, by looking.
pub(crate) async fn until_done(ledger: &Ledger) {
    let mut conn = ledger.connect();
    let left = "(SELECT count(*) FROM deferred WHERE state IN ('pending', 'sent', 'running'))";
    while diesel::select(sql::<BigInt>(left)).get_result::<i64>(&mut conn).expect("a count") > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
