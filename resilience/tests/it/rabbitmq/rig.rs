//! What every test here needs: a ledger, a virtual host, handlers whose outside world is watched.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backing::postgres::testing::TestDatabase;
use backing::rabbitmq::testing::{Queue, TestBroker, TestVhost};
use diesel::connection::SimpleConnection as _;
use diesel::r2d2::{ConnectionManager, Pool};
use diesel::sql_types::{BigInt, Text, Uuid as SqlUuid};
use diesel::{
    Connection as _, PgConnection, QueryResult, QueryableByName, RunQueryDsl as _, sql_query,
};
use diesel_migrations::MigrationHarness as _;
use lapin::options::BasicPublishOptions;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use resilience::deferred::{
    Attempt, Broker, Deferral, Deferred, Handler, HandlerError, MIGRATIONS, Settings, defer,
};
use resilience::{Backoff, Breaker};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, block_in_place};
use uuid::Uuid;

pub(super) const WORK: &str = "shop.v1.work";
pub(super) const OTHER: &str = "shop.v1.other";
pub(super) const PARKED: &str = "shop.v1.parked";

/// Where the handlers' effects would be.
pub(super) struct Outside {
    /// Nobody answers.
    pub(super) down: AtomicBool,
    /// Calls get through. Closed, they wait.
    open: watch::Sender<bool>,
    runs: Mutex<HashMap<Uuid, u32>>,
    running: Mutex<HashSet<Uuid>>,
    /// Most that ran at a time, and how often a call ran twice at a time.
    pub(super) most: AtomicU32,
    pub(super) overlaps: AtomicU32,
}

impl Outside {
    async fn run(&self, id: Uuid) -> Result<(), HandlerError> {
        struct Running<'a>(&'a Outside, Uuid);
        impl Drop for Running<'_> {
            fn drop(&mut self) {
                self.0.running.lock().unwrap().remove(&self.1);
            }
        }
        *self.runs.lock().unwrap().entry(id).or_default() += 1;
        {
            let mut running = self.running.lock().unwrap();
            if !running.insert(id) {
                self.overlaps.fetch_add(1, Ordering::Relaxed);
            }
            self.most.fetch_max(u32::try_from(running.len()).unwrap(), Ordering::Relaxed);
        }
        let _running = Running(self, id);
        self.open.subscribe().wait_for(|open| *open).await.unwrap();
        if self.down.load(Ordering::Relaxed) {
            return Err(HandlerError::Unavailable { reason: "down".to_owned(), retry_after: None });
        }
        Ok(())
    }

    pub(super) fn runs(&self, id: Uuid) -> u32 {
        self.runs.lock().unwrap().get(&id).copied().unwrap_or_default()
    }

    pub(super) fn all_runs(&self) -> u32 {
        self.runs.lock().unwrap().values().sum()
    }

    pub(super) fn running(&self) -> usize {
        self.running.lock().unwrap().len()
    }

    pub(super) fn hold(&self) {
        self.open.send_replace(false);
    }

    pub(super) fn let_go(&self) {
        self.open.send_replace(true);
    }
}

fn effect(conn: &mut PgConnection, id: Uuid) -> QueryResult<()> {
    sql_query("INSERT INTO effects VALUES ($1)").bind::<SqlUuid, _>(id).execute(conn).map(drop)
}

pub(super) struct Works(pub(super) Arc<Outside>);

impl Handler for Works {
    const KIND: &'static str = "work";
    type Payload = u32;
    type Output = ();

    async fn run(&self, attempt: Attempt<u32>) -> Result<(), HandlerError> {
        self.0.run(attempt.id).await
    }

    fn done(&self, conn: &mut PgConnection, id: Uuid, (): &()) -> QueryResult<()> {
        effect(conn, id)
    }
}

pub(super) struct Others(pub(super) Arc<Outside>);

impl Handler for Others {
    const KIND: &'static str = "other";
    type Payload = u32;
    type Output = ();

    async fn run(&self, attempt: Attempt<u32>) -> Result<(), HandlerError> {
        self.0.run(attempt.id).await
    }

    fn done(&self, conn: &mut PgConnection, id: Uuid, (): &()) -> QueryResult<()> {
        effect(conn, id)
    }
}

pub(super) fn settings(name: &str) -> Settings {
    let wait = Duration::from_millis(500);
    let breaker = Breaker::builder(name).open_for(wait).longest_open(wait).build();
    Settings::new()
        .backoff(Backoff::new().initial(Duration::from_millis(50)).max_interval(wait))
        .lease(Duration::from_secs(5))
        .breaker(breaker)
}

/// A ledger, a virtual host, and what is outside.
pub(super) struct Rig {
    pub(super) broker: TestBroker,
    pub(super) vhost: TestVhost,
    pub(super) database: TestDatabase,
    pool: Pool<ConnectionManager<PgConnection>>,
    pub(super) outside: Arc<Outside>,
}

/// A runtime at work.
pub(super) struct Running {
    pub(super) deferred: Deferred,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    pub(super) async fn broker(&self, state: Broker) {
        let mut watch = self.deferred.watch_broker();
        let changed = watch.wait_for(|broker| *broker == state);
        tokio::time::timeout(Duration::from_secs(30), changed)
            .await
            .unwrap_or_else(|_| panic!("the broker is never {}", state.as_str()))
            .unwrap();
    }

    pub(super) async fn stop(self) {
        let _ = self.stop.send(());
        crate::soon(self.task).await.unwrap();
    }
}

fn migrate(url: &str) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut connection = PgConnection::establish(url)?;
    connection.run_pending_migrations(MIGRATIONS)?;
    Ok(connection.batch_execute("CREATE TABLE effects (id uuid NOT NULL)")?)
}

pub(super) fn pool(url: &str) -> Pool<ConnectionManager<PgConnection>> {
    Pool::builder().max_size(16).build_unchecked(ConnectionManager::new(url))
}

impl Rig {
    /// On the node that all tests share.
    pub(super) fn new() -> Self {
        Self::on(TestBroker::shared())
    }

    /// On a node of its own, to be killed.
    pub(super) fn dedicated() -> Self {
        Self::on(&block_in_place(TestBroker::dedicated))
    }

    fn on(broker: &TestBroker) -> Self {
        let (vhost, database) =
            block_in_place(|| (broker.vhost(), TestDatabase::new("rabbitmq", migrate)));
        let outside = Outside {
            down: AtomicBool::new(false),
            open: watch::Sender::new(true),
            runs: Mutex::default(),
            running: Mutex::default(),
            most: AtomicU32::new(0),
            overlaps: AtomicU32::new(0),
        };
        Self {
            pool: pool(database.url()),
            broker: broker.clone(),
            vhost,
            database,
            outside: Arc::new(outside),
        }
    }

    /// A runtime whose broker is there.
    pub(super) async fn start(&self) -> Running {
        let running = self.launch(settings("work"));
        running.broker(Broker::Work).await;
        running
    }

    pub(super) fn launch(&self, settings: Settings) -> Running {
        self.launch_at(self.vhost.url(), settings)
    }

    /// Whose broker is here.
    pub(super) fn launch_at(&self, address: &str, settings: Settings) -> Running {
        let runtime = Deferred::builder(self.pool.clone())
            .app("shop")
            .handler(Works(Arc::clone(&self.outside)), settings)
            .handler(Others(Arc::clone(&self.outside)), self::settings("other"))
            .amqp(address)
            .build()
            .unwrap();
        let deferred = runtime.handle();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(runtime.run(async { drop(stopped.await) }));
        Running { deferred, stop, task }
    }

    pub(super) fn sql<T: Send>(&self, work: impl FnOnce(&mut PgConnection) -> QueryResult<T>) -> T {
        block_in_place(|| work(&mut self.pool.get().unwrap()).unwrap())
    }

    /// So many calls, each committed.
    pub(super) fn defer(&self, count: u32) -> Vec<Uuid> {
        self.defer_all::<Works>(count)
    }

    pub(super) fn defer_all<H: Handler<Payload = u32>>(&self, count: u32) -> Vec<Uuid> {
        self.sql(|conn| {
            (0..count)
                .map(|number| {
                    let call = Deferral::new::<H>(Uuid::new_v4(), &number).unwrap();
                    assert!(defer(conn, &call)?);
                    Ok(call.id())
                })
                .collect()
        })
    }

    pub(super) fn number(&self, query: &str) -> i64 {
        #[derive(QueryableByName)]
        struct Row {
            #[diesel(sql_type = BigInt)]
            last_value: i64,
        }
        self.sql(|conn| sql_query(query).get_result::<Row>(conn)).last_value
    }

    pub(super) fn states(&self) -> BTreeMap<String, u64> {
        #[derive(QueryableByName)]
        struct Count {
            #[diesel(sql_type = Text)]
            state: String,
            #[diesel(sql_type = BigInt)]
            rows: i64,
        }
        let counts: Vec<Count> = self.sql(|conn| {
            sql_query("SELECT state, count(*) AS rows FROM deferred GROUP BY state").load(conn)
        });
        counts.into_iter().map(|count| (count.state, count.rows.cast_unsigned())).collect()
    }

    pub(super) fn count(&self, state: &str) -> u64 {
        self.states().get(state).copied().unwrap_or_default()
    }

    /// How many effects there were: each end of a call is one.
    pub(super) fn effects(&self) -> (u64, u64) {
        #[derive(QueryableByName)]
        struct Counts {
            #[diesel(sql_type = BigInt)]
            total: i64,
            #[diesel(sql_type = BigInt)]
            distinct: i64,
        }
        let counts: Counts = self.sql(|conn| {
            let sql = "SELECT count(*) AS total, count(DISTINCT id) AS distinct FROM effects";
            sql_query(sql).get_result(conn)
        });
        (counts.total.cast_unsigned(), counts.distinct.cast_unsigned())
    }

    /// Until all that was ever deferred is done, each once.
    pub(super) async fn all_done(&self, count: u64) {
        until(Duration::from_mins(1), "all is done", || self.count("done") == count).await;
        assert_eq!(self.states().len(), 1, "{:?}", self.states());
        assert_eq!(self.effects(), (count, count));
        assert_eq!(self.outside.overlaps.load(Ordering::Relaxed), 0);
    }

    /// What RabbitMQ says is in this queue.
    pub(super) fn queue(&self, name: &str) -> Option<Queue> {
        let queues = block_in_place(|| self.broker.queues(self.vhost.name()));
        queues.into_iter().find(|queue| queue.name == name)
    }

    /// Until nothing is in any queue but so much in the parked one.
    pub(super) async fn queues_are_empty(&self, parked: u64) {
        until(Duration::from_secs(30), "the queues are empty", || {
            let queues = block_in_place(|| self.broker.queues(self.vhost.name()));
            queues.len() == 3
                && queues.iter().all(|queue| {
                    let ready = if queue.name == PARKED { parked } else { 0 };
                    queue.ready == ready && queue.unacked == 0
                })
        })
        .await;
    }

    /// A connection of the test's own.
    pub(super) async fn channel(&self) -> (Connection, Channel) {
        let connection = Connection::connect(self.vhost.url(), ConnectionProperties::default());
        let connection = connection.await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        (connection, channel)
    }
}

/// Puts a message into a queue, past the relay.
pub(super) async fn put(channel: &Channel, queue: &str, body: &[u8]) {
    let options = BasicPublishOptions::default();
    let properties = BasicProperties::default().with_delivery_mode(2);
    channel.basic_publish("".into(), queue.into(), options, body, properties).await.unwrap();
}

/// Until it is so, bounded. What only a query tells is asked for every 20 ms.
pub(super) async fn until(limit: Duration, what: &str, mut so: impl FnMut() -> bool) {
    let happens = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let in_time = tokio::time::timeout(limit, happens).await;
    assert!(in_time.is_ok(), "it never happens that {what}");
}
