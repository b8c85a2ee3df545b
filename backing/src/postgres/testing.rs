//! PostgreSQL for tests: one ephemeral server per test process, one database per test.
//!
//! ```no_run
//! # fn run_migrations(url: &str) -> Result<(), String> { Ok(()) }
//! use backing::postgres::testing::TestDatabase;
//!
//! let database = TestDatabase::new("warehouse", run_migrations);
//! println!("{}", database.url());
//! ```
//!
//! Everything here panics where it fails, and blocks: the first call for about a second, a further
//! database for some 20 ms.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use diesel::connection::SimpleConnection as _;
use diesel::{Connection as _, PgConnection};

use super::{Cluster, quoted};
use crate::Server;
use crate::certificate::Identity;

/// A server with a cluster of its own. Dropped, or when its process ends, it leaves nothing.
#[derive(Debug)]
pub struct TestCluster {
    /// Before `cluster`: the server is stopped before its folder goes.
    server: Mutex<Option<Server>>,
    port: u16,
    templates: Mutex<HashMap<String, Arc<OnceLock<()>>>>,
    cluster: Cluster,
}

impl TestCluster {
    /// The one of this process, started by the first call. Not to be stopped: others are using it.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<TestCluster> = OnceLock::new();
        SHARED.get_or_init(Self::dedicated)
    }

    /// One that the caller may stop, kill and freeze.
    pub fn dedicated() -> Self {
        Self::on(expect(Cluster::ephemeral()))
    }

    /// A dedicated one that encrypts, and proves by this who it is.
    pub fn encrypted(identity: &Identity) -> Self {
        let cluster = expect(Cluster::ephemeral());
        expect(cluster.identify(identity));
        Self::on(cluster)
    }

    fn on(cluster: Cluster) -> Self {
        let server = expect(cluster.start(None));
        Self {
            port: server.port(),
            server: Mutex::new(Some(server)),
            templates: Mutex::default(),
            cluster,
        }
    }

    /// The port of 127.0.0.1 that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address of a database of this name.
    pub fn url(&self, database: &str) -> String {
        self.cluster.url(self.port, database)
    }

    /// A new database, copied from the template of this name, which the first call makes by
    /// running `migrate` on its address. `migrate` must have closed its connections when it returns.
    pub fn database<E: Debug>(
        &self,
        template: &str,
        migrate: impl FnOnce(&str) -> Result<(), E>,
    ) -> TestDatabase {
        static COUNT: AtomicU32 = AtomicU32::new(1);

        let source = format!("{template}_template");
        let made = Arc::clone(lock(&self.templates).entry(template.to_owned()).or_default());
        made.get_or_init(|| {
            let source_name = quoted(&source);
            // An earlier call's migration may have panicked half-way.
            self.execute(&format!("DROP DATABASE IF EXISTS {source_name} WITH (FORCE)"));
            self.execute(&format!("CREATE DATABASE {source_name}"));
            expect(migrate(&self.url(&source)));
        });
        let name = format!("{template}_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.execute(&format!("CREATE DATABASE {} TEMPLATE {}", quoted(&name), quoted(&source)));
        // Bounded: a test that fails while its cluster is frozen must fail, not hang.
        let admin = format!("{}?connect_timeout=2", self.url("postgres"));
        TestDatabase { url: self.url(&name), admin, name }
    }

    /// Fast shutdown, as an operator would.
    pub fn stop(&self) {
        if let Some(server) = lock(&self.server).take() {
            server.stop();
        }
    }

    /// SIGKILL to all of it, as a crash would.
    pub fn kill(&self) {
        if let Some(server) = lock(&self.server).take() {
            server.kill();
        }
    }

    /// Starts it again, on the same port with the same data. Returns when it accepts connections.
    pub fn start(&self) {
        let mut server = lock(&self.server);
        if server.is_none() {
            *server = Some(expect(self.cluster.start(Some(self.port))));
        }
    }

    /// SIGSTOP to all of it: connections stay open, and nobody answers.
    pub fn freeze(&self) {
        if let Some(server) = &*lock(&self.server) {
            server.freeze();
        }
    }

    /// Ends a [`freeze`](Self::freeze).
    pub fn thaw(&self) {
        if let Some(server) = &*lock(&self.server) {
            server.thaw();
        }
    }

    fn execute(&self, sql: &str) {
        let mut connection = expect(PgConnection::establish(&self.url("postgres")));
        expect(connection.batch_execute(sql));
    }
}

/// One test's database. Dropped, it is gone, and whoever is still connected is cut off.
#[derive(Debug)]
pub struct TestDatabase {
    name: String,
    url: String,
    admin: String,
}

impl TestDatabase {
    /// [`TestCluster::database`] of the shared cluster.
    pub fn new<E: Debug>(template: &str, migrate: impl FnOnce(&str) -> Result<(), E>) -> Self {
        TestCluster::shared().database(template, migrate)
    }

    /// Its address, with the password in it.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        // Best effort: the cluster may be stopped, and it goes with the process anyway.
        if let Ok(mut connection) = PgConnection::establish(&self.admin) {
            let name = quoted(&self.name);
            let _ = connection.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)"));
        }
    }
}

/// With the whole chain of causes, which `expect` of the standard library would give in `Debug`'s form.
fn expect<T, E: Debug>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("test database: {error:?}"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use super::*;
    use crate::process::wait_until;

    fn migrate(url: &str) -> Result<(), diesel::result::Error> {
        let mut connection = PgConnection::establish(url).unwrap();
        connection.batch_execute("CREATE TABLE things (id int PRIMARY KEY)")
    }

    fn insert(url: &str) {
        let mut connection = PgConnection::establish(url).unwrap();
        connection.batch_execute("INSERT INTO things VALUES (1)").unwrap();
    }

    #[test]
    fn each_database_is_a_fresh_copy_of_a_template_made_once() {
        let first = TestDatabase::new("things", migrate);
        insert(first.url());
        let second = TestDatabase::new("things", |_| -> Result<(), Infallible> {
            panic!("the template is there")
        });
        insert(second.url());
    }

    #[test]
    fn dedicated_cluster_comes_back_with_its_data_after_stop_and_kill() {
        let cluster = TestCluster::dedicated();
        let database = cluster.database("things", migrate);
        insert(database.url());
        for (id, lose) in [(2, TestCluster::stop as fn(&TestCluster)), (3, TestCluster::kill)] {
            lose(&cluster);
            assert!(PgConnection::establish(database.url()).is_err());
            cluster.start();
            let mut connection = PgConnection::establish(database.url()).unwrap();
            connection.batch_execute(&format!("INSERT INTO things VALUES ({id})")).unwrap();
        }
        cluster.freeze();
        let url = database.url().to_owned();
        let query = std::thread::spawn(move || PgConnection::establish(&url).is_ok());
        cluster.thaw();
        assert!(query.join().unwrap());

        let folder = cluster.cluster.folder().to_owned();
        cluster.freeze();
        drop(cluster);
        assert!(!folder.exists());
    }

    /// The parent of [`cluster_vanishes_when_its_process_is_killed`]: it prints where its cluster is
    /// and waits to be killed.
    #[test]
    #[ignore = "run by another test, in a process of its own"]
    fn process_to_be_killed() {
        let cluster = TestCluster::shared();
        eprintln!("FOLDER {}", cluster.cluster.folder().display());
        std::thread::sleep(Duration::from_mins(1));
    }

    #[test]
    fn cluster_vanishes_when_its_process_is_killed() {
        use std::io::BufRead as _;
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "postgres::testing::tests::process_to_be_killed"])
            .args(["--ignored", "--nocapture"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let lines = std::io::BufReader::new(child.stderr.take().unwrap()).lines();
        let folder = lines
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("FOLDER ").map(std::path::PathBuf::from))
            .unwrap();
        let data = folder.join("data");
        let processes = || crate::process::in_folder("postgres", &data);
        assert!(!processes().is_empty());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(wait_until(Duration::from_secs(15), || {
            !folder.exists() && processes().is_empty()
        }));
    }
}
