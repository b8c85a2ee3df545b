//! From nothing to a ready store, and back to nothing.

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, bail};
use backing::postgres::Cluster;
use backing::rabbitmq::Node;
use backing::{Error, port};
use storm::part::Databases;
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};

use crate::config::{Broker, Config};
use crate::control::{Answer, Blow, Control, Request};
use crate::drill::Drilled;
use crate::names::{Name, Service};
use crate::parts::{Kind, Part, Shared, check_port};
use crate::signals::{Signals, left_alone};
use crate::state::{self, Paths, Registry};
use crate::status::Status;
use crate::terminal::{say, welcome};
use crate::tokens;

/// What it means that there is no broker.
const WITHOUT: &str = "deferred calls run from the databases alone";

/// Runs everything in the foreground until a signal comes, and then stops it.
///
/// One that is `attached` also ends when its standard input does: with whoever has started it.
pub(crate) fn run(config: Config, paths: Paths, locked: bool, attached: bool) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("could not start the runtime")?.block_on(async {
        let mut signals = Signals::new()?;
        paths.create()?;
        let _lock = paths.lock()?;
        tokens::forget(&paths)?;
        let tokens = if locked { tokens::mint(&paths)? } else { Vec::new() };
        let launcher = Arc::new(Launcher::new(config, paths, tokens)?);
        let outcome = tokio::select! {
            biased;
            () = signals.next() => Ok(()),
            () = left_alone(attached) => Ok(()),
            outcome = launcher.live() => outcome,
        };
        launcher.down(&mut signals).await;
        outcome.map(|()| ExitCode::SUCCESS)
    })
}

struct Launcher {
    config: Config,
    paths: Paths,
    /// What the services are told of them; nothing where the store is open.
    tokens: Vec<(String, String)>,
    shared: Arc<Shared>,
    /// Set once it is known where everything goes.
    parts: OnceLock<Parts>,
    /// Everything was ready once.
    booted: watch::Sender<bool>,
    drilled: Drilled,
}

struct Parts {
    services: [Arc<Part>; 4],
    postgres: Option<Arc<Part>>,
    /// Or why there is none.
    rabbitmq: Result<Arc<Part>, String>,
}

impl Parts {
    fn all(&self) -> impl Iterator<Item = &Arc<Part>> {
        self.services.iter().chain(&self.postgres).chain(&self.rabbitmq)
    }

    fn databases(&self) -> Databases {
        self.services.each_ref().map(|part| part.database().unwrap_or_default().to_owned())
    }
}

impl Launcher {
    fn new(config: Config, paths: Paths, tokens: Vec<(String, String)>) -> Result<Self> {
        let program = std::env::current_exe().context("could not find this program")?;
        let registry = Registry::new(&paths);
        let shared = Arc::new(Shared { program, registry, closing: AtomicBool::new(false) });
        let booted = watch::Sender::new(false);
        let (parts, drilled) = (OnceLock::new(), Drilled::default());
        Ok(Self { config, paths, tokens, shared, parts, booted, drilled })
    }

    /// Starts everything and then serves the other terminals. Returns only to fail.
    async fn live(self: &Arc<Self>) -> Result<()> {
        let started = Instant::now();
        state::clean(&self.paths, say).await?;
        let control = Control::listen(&self.paths)?;
        let launcher = Arc::clone(self);
        let serving = control.serve(move |request| {
            let launcher = Arc::clone(&launcher);
            async move {
                let answer = launcher.answer(request).await;
                answer.unwrap_or_else(|error| Answer::Failed { message: format!("{error:#}") })
            }
        });
        let booting = async {
            self.boot().await?;
            self.booted.send_replace(true);
            if let Some(parts) = self.parts.get() {
                let without = parts.rabbitmq.as_ref().err().map(String::as_str);
                let parts: Vec<&Part> = parts.all().map(AsRef::as_ref).collect();
                let locked = self.is_locked().then_some(&self.paths);
                say(&welcome(&parts, without, locked, started.elapsed()));
            }
            std::future::pending().await
        };
        tokio::select! {
            failed = booting => failed,
            () = serving => Ok(()),
        }
    }

    fn is_locked(&self) -> bool {
        !self.tokens.is_empty()
    }

    async fn boot(&self) -> Result<()> {
        let ports = self.ports()?;
        let (databases, postgres) = if let Some(databases) = &self.config.databases {
            (databases.clone(), None)
        } else {
            let (cluster, port) = self.cluster().await?;
            let databases = Service::ALL.map(|service| cluster.url(port, service.name().as_str()));
            (databases, Some((cluster, port)))
        };
        let node = self.node().await?;
        let broker = match (&node, &self.config.broker) {
            (Ok((node, port)), _) => Some(node.url(*port)),
            (Err(_), Broker::Given(url)) => Some(url.clone()),
            (Err(_), _) => None,
        };
        let part = |name, kind, port| {
            Part::new(kind, port, self.paths.log(name), Arc::clone(&self.shared))
        };
        let parts = self.parts.get_or_init(|| Parts {
            services: std::array::from_fn(|at| {
                self.service(at, ports, &databases, broker.as_deref())
            }),
            postgres: postgres.as_ref().map(|(cluster, port)| {
                part(Name::Postgres, Kind::Postgres(Arc::clone(cluster)), *port)
            }),
            rabbitmq: node.map(|(node, port)| part(Name::Rabbitmq, Kind::Rabbitmq(node), port)),
        });
        if let Some(part) = &parts.postgres {
            part.start().await?;
        }
        // Dropped, when a signal comes meanwhile, it takes its tasks with it.
        let mut starting = JoinSet::new();
        if let Ok(part) = &parts.rabbitmq {
            let part = Arc::clone(part);
            starting.spawn(async move {
                // No reason to do without a store: it takes the broker as it comes and goes.
                if let Err(error) = part.start().await {
                    say(&format!("{error:#}; until it is started, {WITHOUT}"));
                }
                Ok(())
            });
        }
        for part in &parts.services {
            let part = Arc::clone(part);
            let postgres = postgres.clone();
            starting.spawn(async move {
                if let Some((cluster, port)) = postgres {
                    let name = part.name().as_str();
                    spawn_blocking(move || cluster.create_database(port, name)).await??;
                }
                part.once("migrate").await?;
                part.once("seed").await?;
                part.start().await.map(drop)
            });
        }
        while let Some(started) = starting.join_next().await {
            started??;
        }
        Ok(())
    }

    /// The services' ports, with the free ones found. Each that was given is looked at before
    /// anything is started.
    fn ports(&self) -> Result<[u16; 4]> {
        let mut ports = self.config.ports;
        for (service, port) in Service::ALL.into_iter().zip(ports) {
            if port != 0 {
                check_port(service.name(), port)?;
            }
        }
        let open = ports.iter_mut().filter(|port| **port == 0);
        let free = port::free(Service::ALL.len()).context("could not find free ports")?;
        for (port, free) in open.zip(free) {
            *port = free;
        }
        Ok(ports)
    }

    /// The private cluster, made if there is none, and the port for its server.
    async fn cluster(&self) -> Result<(Arc<Cluster>, u16)> {
        let wanted = self.paths.cluster();
        let cluster = {
            let wanted = wanted.clone();
            spawn_blocking(move || Cluster::durable(&wanted)).await??
        };
        if let Some(user) = cluster.runs_as() {
            say(&settled("PostgreSQL", user, &wanted, cluster.folder()));
        }
        if let Some(pid) = cluster.processes().first() {
            // Its start ends it: see `parts`.
            say(&format!("stopping postgres (pid {pid}), left by a launcher that was killed"));
        }
        let port = self.server_port(Name::Postgres, self.config.postgres_port)?;
        Ok((Arc::new(cluster), port))
    }

    /// The private RabbitMQ and the port for its server, or why there is none.
    async fn node(&self) -> Result<Result<(Arc<Node>, u16), String>> {
        match self.config.broker {
            Broker::Private => {}
            Broker::Given(_) => return Ok(Err("the broker is that of AMQP_URL".to_owned())),
            Broker::Unwanted => return Ok(Err(format!("AMQP_URL is `none`: {WITHOUT}"))),
        }
        let wanted = self.paths.node();
        let made = {
            let wanted = wanted.clone();
            spawn_blocking(move || Node::durable(&wanted)).await?
        };
        let node = match made {
            Err(error @ Error::NotInstalled(_)) => return Ok(Err(format!("{error}; {WITHOUT}"))),
            made => made?,
        };
        if let Some(user) = node.runs_as() {
            say(&settled("RabbitMQ", user, &wanted, node.folder()));
        }
        let port = self.server_port(Name::Rabbitmq, self.config.rabbitmq_port)?;
        Ok(Ok((Arc::new(node), port)))
    }

    /// The port that was asked for, else the last run's if it is free, else any.
    fn server_port(&self, name: Name, wanted: Option<u16>) -> Result<u16> {
        let file = self.paths.port(name);
        let last = || std::fs::read_to_string(&file).ok()?.trim().parse::<u16>().ok();
        let port = match wanted {
            Some(0) => None,
            Some(port) => {
                check_port(name, port)?;
                Some(port)
            }
            None => last().filter(|port| port::check(*port).is_ok()),
        };
        let port = match port {
            Some(port) => port,
            None => *port::free(1)?.first().context("could not find a free port")?,
        };
        std::fs::write(&file, port.to_string())
            .with_context(|| format!("could not write {}", file.display()))?;
        Ok(port)
    }

    fn service(
        &self,
        at: usize,
        ports: [u16; 4],
        databases: &[String; 4],
        broker: Option<&str>,
    ) -> Arc<Part> {
        let service = Service::ALL[at];
        let mut environment = vec![
            ("BIND".to_owned(), "127.0.0.1".to_owned()),
            ("PORT".to_owned(), ports[at].to_string()),
            ("DATABASE_URL".to_owned(), databases[at].clone()),
        ];
        environment.extend(self.tokens.iter().cloned());
        for (other, port) in Service::ALL.into_iter().zip(ports) {
            if other != Service::Store {
                environment.push((other.variable("URL"), format!("http://127.0.0.1:{port}")));
            }
        }
        let kind = Kind::Service {
            service,
            database: databases[at].clone(),
            // Nobody else defers anything.
            broker: broker.filter(|_| service == Service::Store).map(str::to_owned),
            environment,
        };
        Part::new(kind, ports[at], self.paths.log(service.name()), Arc::clone(&self.shared))
    }

    async fn answer(&self, request: Request) -> Result<Answer> {
        let message = match request {
            Request::Status => {
                let status = match self.parts.get() {
                    Some(parts) => Status::live(parts.all().map(AsRef::as_ref), self.is_locked()),
                    None => Status::offline(&self.config, &self.paths),
                };
                return Ok(Answer::Status(status));
            }
            Request::Start { part } => {
                let process = self.part(part).await?.start().await?;
                format!("{part} is ready (pid {})", process.pid)
            }
            Request::Freeze { part } => {
                return self.strike(part, Blow::Freeze).await;
            }
            Request::Stop { part, kill } => {
                let how = if kill { Blow::Kill } else { Blow::Stop };
                return self.strike(part, how).await;
            }
            Request::Strike { part, how } => {
                let _going = self.drilled.going().await?;
                return self.strike(part, how).await;
            }
            Request::Drill => {
                // Once everything was started.
                self.part(Name::Store).await?;
                self.drilled.begin(self.parts.get().into_iter().flat_map(Parts::all)).await?;
                "a drill has begun: parts are killed and frozen on purpose".to_owned()
            }
            Request::Mend => {
                if let Some(parts) = self.parts.get() {
                    self.drilled.end(parts.databases()).await;
                }
                "the drill is over".to_owned()
            }
        };
        say(&message);
        Ok(Answer::Done { message })
    }

    async fn strike(&self, name: Name, how: Blow) -> Result<Answer> {
        let part = self.part(name).await?;
        let (ran, what) = match how {
            Blow::Freeze => (part.freeze().await, "frozen"),
            Blow::Stop => (part.stop(false).await, "stopped"),
            Blow::Kill => (part.stop(true).await, "killed"),
        };
        if !ran {
            return Ok(Answer::Done { message: format!("{name} was not running") });
        }
        let message = format!("{name} was {what}");
        say(&message);
        Ok(Answer::Done { message })
    }

    /// Waits until everything was started: before that a part may have no database yet.
    async fn part(&self, name: Name) -> Result<&Arc<Part>> {
        self.booted.subscribe().wait_for(|booted| *booted).await?;
        let parts = self.parts.get().ok_or_else(|| anyhow!("nothing was started"))?;
        match (parts.all().find(|part| part.name() == name), &parts.rabbitmq) {
            (Some(part), _) => Ok(part),
            (None, Err(why)) if name == Name::Rabbitmq => bail!("{name} is absent: {why}"),
            (None, _) => bail!("{name} is absent: the databases are those given"),
        }
    }

    /// Stops everything; a further signal kills what is left.
    async fn down(&self, signals: &mut Signals) {
        self.shared.closing.store(true, Ordering::Relaxed);
        if let Some(parts) = self.parts.get() {
            if parts.all().any(|part| part.process().is_some()) {
                say("\nstopping everything (Ctrl-C again: at once)");
            }
            let gracefully = async {
                // One after the other, along the arrows: a service that drains, and undoes what it
                // has begun, needs those that it calls, and its database last.
                for part in &parts.services {
                    part.stop(false).await;
                }
                tokio::join!(stop(parts.rabbitmq.as_ref().ok()), stop(parts.postgres.as_ref()));
            };
            tokio::select! {
                () = gracefully => {}
                () = signals.next() => {
                    for part in parts.all() {
                        part.kill().await;
                    }
                }
            }
        }
        self.shared.registry.clear();
        if let Err(error) = tokens::forget(&self.paths) {
            say(&format!("{error:#}"));
        }
    }
}

async fn stop(part: Option<&Arc<Part>>) {
    if let Some(part) = part {
        part.stop(false).await;
    }
}

/// As whom a server runs, and where its data is.
fn settled(server: &str, user: &str, wanted: &Path, folder: &Path) -> String {
    let runs = format!("{server} runs as user {user}, never as root");
    if wanted.canonicalize().is_ok_and(|wanted| wanted == folder) {
        runs
    } else {
        let (wanted, folder) = (wanted.display(), folder.display());
        format!("{runs}; {user} can't reach {wanted}, so its data is in {folder}")
    }
}
