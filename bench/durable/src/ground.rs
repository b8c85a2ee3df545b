//! What everything stands on.

use std::sync::atomic::{AtomicU32, Ordering};

use backing::Server;
use backing::postgres::Cluster;
use backing::rabbitmq::testing::{TestBroker, TestVhost};
use diesel::r2d2::{ConnectionManager, Pool};
use diesel::{Connection as _, PgConnection};
use diesel_migrations::MigrationHarness as _;
use resilience::{deferred, saga};
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

    /// An empty one.
    pub(crate) fn database(&self) -> Database {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let name = format!("bench_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let port = self.server.as_ref().expect("it runs").port();
        self.cluster.create_database(port, &name).expect("a database");
        Database { url: self.cluster.url(port, &name) }
    }

    /// An empty ledger, in a database of its own.
    pub(crate) fn ledger(&self) -> Database {
        let database = self.database();
        let mut conn = database.connect();
        conn.run_pending_migrations(deferred::MIGRATIONS).expect("the schema");
        database
    }

    /// An empty journal, beside a ledger.
    pub(crate) fn journal(&self) -> Database {
        let ledger = self.ledger();
        let mut conn = ledger.connect();
        conn.run_pending_migrations(saga::MIGRATIONS).expect("the schema");
        ledger
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

pub(crate) struct Database {
    url: String,
}

impl Database {
    pub(crate) fn connect(&self) -> PgConnection {
        PgConnection::establish(&self.url).expect("a connection")
    }

    pub(crate) fn pool(&self) -> Pool<ConnectionManager<PgConnection>> {
        let manager = ConnectionManager::new(&self.url);
        Pool::builder().max_size(20).build(manager).expect("a pool")
    }
}
