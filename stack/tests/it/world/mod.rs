//! All four services as processes on free ports, with databases of their own, and somebody who
//! breaks them.
//!
//! - [`World`]: what is started, and how it is wired; [`Process`](process::Process): one service.
//! - [`shop`]: what a user does, and the answers that the contract promises; [`bulk`]: orders by the
//!   thousand.
//! - [`HttpProxy`]: a bad network between two services; [`Balancer`]: what is in front of replicas. [`ledger`]: whether the databases add up.
//! - `story`: whether what `explain` tells is what is written down.

mod balancer;
pub(crate) mod bulk;
pub(crate) mod ledger;
pub(crate) mod process;
pub(crate) mod shop;
mod story;

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use backing::port;
use backing::postgres::testing::{TestCluster, TestDatabase};
use backing::rabbitmq::testing::{Queue, TestBroker, TestVhost};
use nix::sys::signal::Signal;
use service::testing::network::{HttpProxy, Rule};
use service::testing::{Client, PATIENT, sql};
use storm::part::Databases;
pub(crate) use storm::part::Part;
use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use self::balancer::Balancer;
use self::process::Process;

/// Everything works again within an open breaker's wait and one second: a promise.
pub(crate) const RECOVERY: Duration = Duration::from_secs(7);

/// Processes that may run at the same time, of all worlds. More than this, and a machine with two
/// cores is too slow for promises about time.
static ROOM: Semaphore = Semaphore::const_new(PROCESSES as usize);
const PROCESSES: u32 = 16;

/// What a [locked](Plan::locked) world takes.
pub(crate) const SERVICE_TOKEN: &str = "service-service-service-service-geheim";
pub(crate) const MANAGEMENT_TOKEN: &str = "management-management-management-geheim";
/// Waits until so many may be started, and counts them until dropped.
pub(crate) async fn room(processes: u32) -> SemaphorePermit<'static> {
    ROOM.acquire_many(processes).await.unwrap()
}

/// Bounds the wait for a request that is on its way.
const SOON: Duration = Duration::from_secs(5);

/// Waits until a request has met with this.
pub(crate) async fn met(rule: &Rule) {
    timeout(SOON, rule.until_hits(1)).await.expect("a request meets with the fault");
}

/// Waits until so many of them went through, however late.
pub(crate) async fn served(rule: &Rule, count: usize) {
    timeout(SOON, rule.until_served(count)).await.expect("a request goes through after all");
}

/// What is to be started.
#[derive(Default)]
pub(crate) struct Plan {
    replicas: usize,
    proxied: Vec<Part>,
    variables: Vec<(String, String)>,
    own_postgres: bool,
    broker: bool,
    alone: bool,
    balanced: bool,
}

impl Plan {
    /// So many of each service on the same databases. A dependent has one of each dependency, and
    /// no two services go by the same number, so that requests cross.
    pub(crate) fn replicas(mut self, count: usize) -> Self {
        self.replicas = count;
        self
    }

    /// Everybody calls this one through a [`HttpProxy`].
    pub(crate) fn proxied(mut self, part: Part) -> Self {
        self.proxied.push(part);
        self
    }

    /// A variable for all of them.
    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Services and operators need these tokens.
    pub(crate) fn locked(self) -> Self {
        self.variable("SERVICE_TOKENS", SERVICE_TOKEN)
            .variable("MANAGEMENT_TOKENS", MANAGEMENT_TOKEN)
    }

    /// Breakers that wait for less: for tests in which that time is no promise.
    pub(crate) fn impatient(self) -> Self {
        self.variable("BREAKER_OPEN_MS", "1000")
    }

    /// Times that a crowded machine keeps.
    pub(crate) fn patient(self) -> Self {
        PATIENT.iter().fold(self, |plan, (name, value)| plan.variable(name, value))
    }

    /// On a PostgreSQL that the test may stop, kill and freeze.
    pub(crate) fn own_postgres(mut self) -> Self {
        self.own_postgres = true;
        self
    }

    /// With a RabbitMQ that the test may stop, kill, freeze and wipe, and that carries the deferred
    /// calls of Store and Order. Without this they run from their databases.
    pub(crate) fn broker(mut self) -> Self {
        self.broker = true;
        self
    }

    /// While no other world runs: for one that leaves nothing of the machine to others.
    pub(crate) fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// Everybody is called through a [`Balancer`].
    pub(crate) fn balanced(mut self) -> Self {
        self.balanced = true;
        self
    }

    /// Starts all of it, and waits until it is ready.
    pub(crate) async fn start(self) -> World {
        let replicas = self.replicas.max(1);
        let own = u32::try_from(replicas * Part::ALL.len()).unwrap();
        let turn = room(if self.alone { PROCESSES } else { own }).await;
        let cluster = self.own_postgres.then(TestCluster::dedicated);
        let databases = Part::ALL.map(|part| {
            let cluster = cluster.as_ref().unwrap_or_else(|| TestCluster::shared());
            cluster.database(&format!("e2e_{}", part.name()), |url| prepare(part, url))
        });
        let broker = self.broker.then(|| {
            let broker = TestBroker::dedicated();
            (broker.vhost(), broker)
        });
        let folder = tempfile::tempdir().unwrap();
        let mut world = World {
            processes: Vec::new(),
            proxies: Vec::new(),
            balancers: Vec::new(),
            databases,
            cluster,
            broker,
            folder,
            next: AtomicUsize::new(0),
            _turn: turn,
        };
        let ports = port::free(replicas * Part::ALL.len()).unwrap();
        let port_of = |part: Part, replica: usize| ports[part as usize * replicas + replica];
        for part in self.proxied {
            let target = format!("127.0.0.1:{}", port_of(part, 0));
            world.proxies.push((part, HttpProxy::new(&target)));
        }
        if self.balanced {
            for ports in ports.chunks(replicas) {
                world.balancers.push(Balancer::new(ports).await);
            }
        }
        for (number, port) in ports.iter().enumerate() {
            let (part, replica) = (Part::ALL[number / replicas], number % replicas);
            let mut variables = self.variables.clone();
            let mut set = |name: String, value: String| variables.push((name, value));
            set("DATABASE_URL".to_owned(), world.databases[part as usize].url().to_owned());
            if let (true, Some((vhost, _))) = (part.defers(), &world.broker) {
                set("AMQP_URL".to_owned(), vhost.url().to_owned());
            }
            for dependency in part.dependencies() {
                let crossed = (replica + part as usize + *dependency as usize) % replicas;
                let balancer = world.balancers.get(*dependency as usize);
                let url = match (world.find_proxy(*dependency), balancer) {
                    (Some(proxy), _) => proxy.url(),
                    (None, Some(balancer)) => balancer.url().to_owned(),
                    (None, None) => format!("http://127.0.0.1:{}", port_of(*dependency, crossed)),
                };
                set(format!("{}_URL", dependency.name().to_uppercase()), url);
            }
            let name = format!("{}-{replica}", part.name());
            let process = Process::new(name, part, *port, variables, world.folder.path());
            world.processes.push(process);
        }
        let starts = world.processes.iter().map(Process::start);
        futures_util::future::join_all(starts).await;
        for balancer in &world.balancers {
            for number in 0..replicas {
                balancer.knows(number).await;
            }
        }
        world
    }
}

/// A migrated and seeded database, by the program's own commands.
pub(crate) fn prepare(part: Part, url: &str) -> Result<(), String> {
    for command in ["migrate", "seed"] {
        let output = Command::new(env!("CARGO_BIN_EXE_stack"))
            .args(["service", part.name(), command])
            .env("DATABASE_URL", url)
            .env_remove("CONFIG_PATH")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
    }
    Ok(())
}

/// Running services. Dropped, they and their databases are gone.
pub(crate) struct World {
    /// By part, then by replica.
    processes: Vec<Process>,
    proxies: Vec<(Part, HttpProxy)>,
    /// By part, where there are any.
    balancers: Vec<Balancer>,
    databases: [TestDatabase; 4],
    cluster: Option<TestCluster>,
    broker: Option<(TestVhost, TestBroker)>,
    folder: TempDir,
    next: AtomicUsize,
    _turn: SemaphorePermit<'static>,
}

impl World {
    /// One of each.
    pub(crate) async fn start() -> Self {
        Self::plan().start().await
    }

    pub(crate) fn plan() -> Plan {
        Plan::default()
    }

    pub(crate) fn replica(&self, part: Part, number: usize) -> &Process {
        let replicas = self.processes.len() / Part::ALL.len();
        &self.processes[part as usize * replicas + number]
    }

    pub(crate) fn processes(&self, part: Part) -> &[Process] {
        let replicas = self.processes.len() / Part::ALL.len();
        &self.processes[part as usize * replicas..][..replicas]
    }

    /// A client of the first replica.
    pub(crate) fn client(&self, part: Part) -> Client {
        self.replica(part, 0).client()
    }

    /// A client of Store, of each replica in turn.
    pub(crate) fn store(&self) -> Client {
        let stores = self.processes(Part::Store);
        stores[self.next.fetch_add(1, Ordering::Relaxed) % stores.len()].client()
    }

    /// The bad network in front of this one.
    pub(crate) fn proxy(&self, part: Part) -> &HttpProxy {
        self.find_proxy(part).unwrap_or_else(|| panic!("{part:?} isn't proxied"))
    }

    fn find_proxy(&self, part: Part) -> Option<&HttpProxy> {
        self.proxies.iter().find(|(proxied, _)| *proxied == part).map(|(_, proxy)| proxy)
    }

    /// What is in front of all replicas of this one.
    pub(crate) fn balancer(&self, part: Part) -> &Balancer {
        &self.balancers[part as usize]
    }

    /// The PostgreSQL of this world alone.
    pub(crate) fn postgres(&self) -> &TestCluster {
        self.cluster.as_ref().unwrap()
    }

    pub(crate) fn has_broker(&self) -> bool {
        self.broker.is_some()
    }

    /// The RabbitMQ of this world alone: its [`TestBroker`] can be stopped, killed, frozen, wiped.
    pub(crate) fn broker(&self) -> &TestBroker {
        &self.broker.as_ref().expect("the plan has a broker").1
    }

    /// What the store's queues hold, by RabbitMQ's own tool.
    pub(crate) fn queues(&self) -> Vec<Queue> {
        let (vhost, broker) = self.broker.as_ref().expect("the plan has a broker");
        broker.queues(vhost.name())
    }

    /// Deletes one of them with what is in it: `false` if there was none.
    pub(crate) fn delete_queue(&self, name: &str) -> bool {
        let (vhost, broker) = self.broker.as_ref().expect("the plan has a broker");
        broker.delete_queue(vhost.name(), name)
    }

    pub(crate) fn database(&self, part: Part) -> &str {
        self.databases[part as usize].url()
    }

    /// All of them, by [`Part`].
    pub(crate) fn databases(&self) -> Databases {
        Part::ALL.map(|part| self.database(part).to_owned())
    }

    pub(crate) fn number(&self, part: Part, expression: &str) -> i64 {
        sql::number(self.database(part), expression)
    }

    pub(crate) fn execute(&self, part: Part, statements: &str) {
        sql::execute(self.database(part), statements).unwrap();
    }

    /// A crash of all replicas.
    pub(crate) async fn kill(&self, part: Part) {
        for process in self.processes(part) {
            process.kill().await;
        }
    }

    /// SIGTERM to all replicas; returns when they are gone.
    pub(crate) async fn terminate(&self, part: Part) {
        let ends = self.processes(part).iter().map(Process::terminate);
        for status in futures_util::future::join_all(ends).await {
            assert!(status.success(), "{part:?} ended with {status}");
        }
    }

    /// All replicas stand still: connections stay open, and nobody answers.
    pub(crate) fn freeze(&self, part: Part) {
        for process in self.processes(part) {
            process.signal(Signal::SIGSTOP);
        }
    }

    /// Ends a [`freeze`](Self::freeze): what came meanwhile is answered late.
    pub(crate) fn thaw(&self, part: Part) {
        for process in self.processes(part) {
            process.signal(Signal::SIGCONT);
        }
    }

    /// Starts those that are down, on the same ports. Returns when they are ready.
    pub(crate) async fn restart(&self, part: Part) {
        for process in self.processes(part).iter().filter(|process| !process.is_running()) {
            process.start().await;
        }
    }

    /// What a service's health says about its breaker on a dependency.
    pub(crate) async fn breaker(&self, dependent: Part, dependency: Part) -> String {
        self.replica(dependent, 0).breaker(dependency).await
    }

    /// Fails unless every breaker of every service is closed.
    pub(crate) async fn assert_all_closed(&self) {
        for process in &self.processes {
            for dependency in process.part().dependencies() {
                let state = process.breaker(*dependency).await;
                assert_eq!(state, "closed", "{:?}'s breaker on {dependency:?}", process.part());
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for process in &self.processes {
                eprintln!("{}", process.last_words());
            }
        }
        if let Some(cluster) = &self.cluster {
            // Its databases are dropped by asking it.
            cluster.thaw();
        }
        if let Some((_, broker)) = &self.broker {
            // Store ends by closing its connections.
            broker.thaw();
        }
        // Before their databases, which `Drop` of the fields would be too, one after the other.
        self.processes.clear();
    }
}
