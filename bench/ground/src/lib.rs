//! What the benches stand on that need a database: PostgreSQL that syncs, and how long things take.

pub mod times;

use std::sync::atomic::{AtomicU32, Ordering};

use backing::Server;
use backing::postgres::Cluster;
use diesel::r2d2::{ConnectionManager, Pool};
use diesel::{Connection as _, PgConnection};
use nix::unistd::Pid;
use uuid::Uuid;

/// A server that syncs, as in production: what is ephemeral in tests would flatter us.
#[derive(Debug)]
pub struct Postgres {
    server: Option<Server>,
    cluster: Cluster,
}

impl Postgres {
    /// Starts one. It ends, with all that it holds, when this is dropped.
    ///
    /// # Panics
    /// When there is none, or it doesn't start.
    #[must_use]
    pub fn start() -> Self {
        let folder = std::env::temp_dir().join(format!("bench-{}", Uuid::new_v4().simple()));
        let cluster = Cluster::durable(&folder).expect("a cluster");
        let server = cluster.start(None).expect("a server");
        Self { server: Some(server), cluster }
    }

    /// An empty one.
    ///
    /// # Panics
    /// When the server doesn't make it.
    #[must_use]
    pub fn database(&self) -> Database {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let name = format!("bench_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let port = self.server.as_ref().expect("it runs").port();
        self.cluster.create_database(port, &name).expect("a database");
        Database { url: self.cluster.url(port, &name) }
    }

    /// The processes that it is made of.
    #[must_use]
    pub fn processes(&self) -> Vec<Pid> {
        self.cluster.processes()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop();
        }
        // A folder of ours, under the temporary ones.
        let _ = std::fs::remove_dir_all(self.cluster.folder());
    }
}

/// A database of its own.
#[derive(Clone, Debug)]
pub struct Database {
    url: String,
}

impl Database {
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// # Panics
    /// When there is no connection.
    #[must_use]
    pub fn connect(&self) -> PgConnection {
        PgConnection::establish(&self.url).expect("a connection")
    }

    /// # Panics
    /// When there is no connection.
    #[must_use]
    pub fn pool(&self) -> Pool<ConnectionManager<PgConnection>> {
        let manager = ConnectionManager::new(&self.url);
        Pool::builder().max_size(20).build(manager).expect("a pool")
    }
}
