//! A part: one process of the launcher's, from its start to its end, as often as somebody likes.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use backing::postgres::Cluster;
use backing::rabbitmq::Node;
use backing::{port, process};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::process::Child;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep, timeout};

use service::probe;

use crate::logs;
use crate::names::{Name, Service};
use crate::state::{LOOK, PATIENCE, Process, Registry};
use crate::terminal::say;
use crate::tokens;

/// What a part may take until it is ready. The servers may have a crash to recover from.
const SERVICE_READY: Duration = Duration::from_secs(15);
const SERVER_READY: Duration = Duration::from_mins(1);
/// A service finds the broker's address here. What the launcher was given is not for all of them.
const BROKER: &str = "AMQP_URL";

/// What the parts have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    /// This program.
    pub(crate) program: PathBuf,
    pub(crate) registry: Registry,
    /// Nothing is started any more.
    pub(crate) closing: AtomicBool,
}

/// What a part is.
#[derive(Debug)]
pub(crate) enum Kind {
    Service {
        service: Service,
        database: String,
        /// Where its deferred calls go by.
        broker: Option<String>,
        environment: Vec<(String, String)>,
    },
    Postgres(Arc<Cluster>),
    Rabbitmq(Arc<Node>),
}

#[derive(Debug)]
pub(crate) struct Part {
    kind: Kind,
    port: u16,
    log: PathBuf,
    shared: Arc<Shared>,
    /// Starts and stops take turns.
    turn: Mutex<()>,
    process: watch::Sender<Option<Process>>,
    /// The process is being stopped: its end is no news.
    expected: AtomicBool,
}

impl Part {
    pub(crate) fn new(kind: Kind, port: u16, log: PathBuf, shared: Arc<Shared>) -> Arc<Self> {
        Arc::new(Self {
            kind,
            port,
            log,
            shared,
            turn: Mutex::default(),
            process: watch::Sender::new(None),
            expected: AtomicBool::new(false),
        })
    }

    pub(crate) fn name(&self) -> Name {
        match &self.kind {
            Kind::Service { service, .. } => service.name(),
            Kind::Postgres(_) => Name::Postgres,
            Kind::Rabbitmq(_) => Name::Rabbitmq,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        match &self.kind {
            Kind::Service { .. } => format!("http://127.0.0.1:{}", self.port),
            Kind::Postgres(cluster) => cluster.url(self.port, "postgres"),
            Kind::Rabbitmq(node) => node.url(self.port),
        }
    }

    pub(crate) fn database(&self) -> Option<&str> {
        match &self.kind {
            Kind::Service { database, .. } => Some(database),
            Kind::Postgres(_) | Kind::Rabbitmq(_) => None,
        }
    }

    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// The running process.
    pub(crate) fn process(&self) -> Option<Process> {
        *self.process.borrow()
    }

    /// Starts it, unless it runs, or lets it go on, and returns when it is ready.
    pub(crate) async fn start(self: &Arc<Self>) -> Result<Process> {
        let from = std::fs::metadata(&self.log).map_or(0, |log| log.len());
        let process = {
            let _turn = self.turn.lock().await;
            match self.process() {
                Some(process) => {
                    self.thaw(process);
                    process
                }
                None => self.spawn().await?,
            }
        };
        let name = self.name();
        let limit = match self.kind {
            Kind::Service { .. } => SERVICE_READY,
            Kind::Postgres(_) | Kind::Rabbitmq(_) => SERVER_READY,
        };
        let mut changes = self.process.subscribe();
        let ended = changes.wait_for(|now| *now != Some(process));
        tokio::select! {
            _ = ended => bail!("{name} ended before it was ready: {}", self.last_words(from)),
            ready = timeout(limit, self.ready(process)) => match ready {
                Ok(()) => Ok(process),
                Err(_) => bail!(
                    "{name} (pid {}) runs, and was not ready within {} s; see {}",
                    process.pid, limit.as_secs(), self.log.display()
                ),
            },
        }
    }

    /// Stops it, if it runs, and returns when its processes are gone: `false` if it did not run.
    /// A graceful stop is given [`PATIENCE`], and then becomes a kill.
    pub(crate) async fn stop(&self, kill: bool) -> bool {
        let _turn = self.turn.lock().await;
        let Some(process) = self.process() else {
            return false;
        };
        self.expected.store(true, Ordering::Relaxed);
        if !kill {
            let pid = Pid::from_raw(process.pid);
            match &self.kind {
                Kind::Service { .. } | Kind::Rabbitmq(_) => {
                    process::signal(&[pid], Signal::SIGTERM);
                    // A frozen one gets the signal when it goes on.
                    process::signal(&[pid], Signal::SIGCONT);
                }
                Kind::Postgres(cluster) => {
                    // Fast: SIGTERM would wait until every pool has closed its connections.
                    process::signal(&[pid], Signal::SIGINT);
                    process::signal(&cluster.processes(), Signal::SIGCONT);
                }
            }
            if timeout(PATIENCE, self.gone()).await.is_ok() {
                return true;
            }
            say(&format!(
                "{} (pid {}) has not ended within {} s: killing it",
                self.name(),
                process.pid,
                PATIENCE.as_secs()
            ));
        }
        self.kill().await;
        true
    }

    /// SIGKILL, whatever else is being done to it. Returns when its processes are gone.
    pub(crate) async fn kill(&self) {
        let Some(process) = self.process() else {
            return;
        };
        self.expected.store(true, Ordering::Relaxed);
        let pid = Pid::from_raw(process.pid);
        match &self.kind {
            Kind::Service { .. } | Kind::Rabbitmq(_) => process::signal(&[pid], Signal::SIGKILL),
            Kind::Postgres(cluster) => {
                // Stopped, it can't have new children while the old ones are listed.
                process::signal(&[pid], Signal::SIGSTOP);
                process::signal(&cluster.processes(), Signal::SIGKILL);
                process::signal(&[pid], Signal::SIGKILL);
                while !cluster.processes().is_empty() {
                    sleep(LOOK).await;
                }
            }
        }
        self.gone().await;
    }

    /// SIGSTOP: its connections stay open, and it answers nobody until it is started or stopped. `false`
    /// if it doesn't run.
    pub(crate) async fn freeze(&self) -> bool {
        let _turn = self.turn.lock().await;
        let Some(process) = self.process() else {
            return false;
        };
        // First: stopped, it can't have new children while the old ones are listed.
        process::signal(&[Pid::from_raw(process.pid)], Signal::SIGSTOP);
        process::signal(&self.children(), Signal::SIGSTOP);
        true
    }

    fn thaw(&self, process: Process) {
        process::signal(&self.children(), Signal::SIGCONT);
        process::signal(&[Pid::from_raw(process.pid)], Signal::SIGCONT);
    }

    /// What a server consists of, besides its first process.
    fn children(&self) -> Vec<Pid> {
        match &self.kind {
            Kind::Service { .. } => Vec::new(),
            Kind::Postgres(cluster) => cluster.processes(),
            Kind::Rabbitmq(node) => node.processes(),
        }
    }

    /// Runs one of the service's own commands to its end: `migrate`, `seed`.
    pub(crate) async fn once(&self, command: &str) -> Result<()> {
        let from = std::fs::metadata(&self.log).map_or(0, |log| log.len());
        let (mut child, process) = self.launch(self.command(command)?)?;
        let status = child.wait().await;
        self.shared.registry.remove(process);
        let status = status.with_context(|| format!("could not wait for {}", self.name()))?;
        if !status.success() {
            bail!("{} {command} failed: {}", self.name(), self.last_words(from));
        }
        Ok(())
    }

    /// Fails with one line if somebody else listens on the part's port.
    pub(crate) fn check_port(&self) -> Result<()> {
        check_port(self.name(), self.port)
    }

    async fn spawn(self: &Arc<Self>) -> Result<Process> {
        if self.shared.closing.load(Ordering::Relaxed) {
            bail!("the launcher is shutting down");
        }
        match &self.kind {
            Kind::Service { .. } => {}
            Kind::Postgres(cluster) => clear(Signal::SIGINT, || cluster.processes()).await,
            Kind::Rabbitmq(node) => clear(Signal::SIGTERM, || node.processes()).await,
        }
        self.check_port()?;
        let (mut child, process) = self.launch(self.command("serve")?)?;
        self.expected.store(false, Ordering::Relaxed);
        self.process.send_replace(Some(process));
        let part = Arc::clone(self);
        tokio::spawn(async move {
            let status = child.wait().await;
            part.shared.registry.remove(process);
            part.process.send_replace(None);
            if !part.expected.load(Ordering::Relaxed) {
                let name = part.name();
                let how = status.map_or_else(|error| error.to_string(), describe);
                say(&format!(
                    "{name} (pid {}) ended: {how}; start it again with cargo run -- start {name}",
                    process.pid
                ));
            }
        });
        Ok(process)
    }

    fn command(&self, subcommand: &str) -> Result<Command> {
        Ok(match &self.kind {
            Kind::Service { service, broker, environment, .. } => {
                let mut command = Command::new(&self.shared.program);
                command.args(["service", "--held", service.name().as_str(), subcommand]);
                // Whether it is locked is the launcher's to say, and to know.
                for name in tokens::VARIABLES {
                    command.env_remove(name);
                }
                command.envs(environment.iter().map(|(name, value)| (name, value)));
                command.env_remove(BROKER).envs(broker.iter().map(|url| (BROKER, url)));
                command.stdin(Stdio::piped());
                command
            }
            Kind::Postgres(cluster) => cluster.command(self.port),
            Kind::Rabbitmq(node) => node.command(self.port)?,
        })
    }

    /// The process is in the registry before it does anything.
    fn launch(&self, mut command: Command) -> Result<(Child, Process)> {
        let name = self.name();
        let log = logs::open(&self.log)?;
        let copy = log.try_clone().context("could not duplicate a file descriptor")?;
        command.stdout(copy).stderr(log).process_group(0);
        let mut command = tokio::process::Command::from(command);
        let mut child = command
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("could not start {name}"))?;
        let pid = child.id().map(u32::cast_signed).context("a new process has no pid")?;
        let process = Process::new(name, Pid::from_raw(pid));
        self.shared.registry.add(process)?;
        if let Some(stdin) = child.stdin.take() {
            let stdin = stdin.into_owned_fd().context("could not let a process go")?;
            // If it has died already, its end says why.
            let _ = std::fs::File::from(stdin).write_all(b"\n");
        }
        Ok((child, process))
    }

    /// Returns once the process answers as it should.
    async fn ready(&self, process: Process) {
        loop {
            let ready = match &self.kind {
                Kind::Service { .. } => {
                    probe::ready(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))).await
                }
                Kind::Postgres(cluster) => cluster.is_ready(process.pid.cast_unsigned()),
                Kind::Rabbitmq(_) => Node::is_ready(self.port),
            };
            if ready {
                return;
            }
            sleep(LOOK).await;
        }
    }

    async fn gone(&self) {
        // The sender is `self`'s: it can't be closed.
        let _ = self.process.subscribe().wait_for(Option::is_none).await;
    }

    fn last_words(&self, from: u64) -> String {
        let line = logs::last_line(&self.log, from).unwrap_or_else(|| "it said nothing".to_owned());
        format!("{line} (see {})", self.log.display())
    }
}

/// Fails with one line that names the port, the part and the variable.
pub(crate) fn check_port(name: Name, wanted: u16) -> Result<()> {
    let variable = name.as_str().to_uppercase();
    port::check(wanted).map_err(|error| {
        let why = match error.kind() {
            std::io::ErrorKind::AddrInUse => match port::holder(wanted) {
                Some((pid, program)) => format!("is taken by {program} (pid {pid})"),
                None => "is taken".to_owned(),
            },
            _ => format!("can't be used ({error})"),
        };
        anyhow::anyhow!("port {wanted} of {name} {why}; {variable}_PORT chooses another (0: any)")
    })
}

/// Ends what is left of an earlier server on the same folder: a new one would refuse to start
/// beside it. Children of a killed postmaster end by themselves, unless they are frozen.
async fn clear(signal: Signal, processes: impl Fn() -> Vec<Pid>) {
    for signal in [signal, Signal::SIGKILL] {
        let left = processes();
        process::signal(&left, signal);
        process::signal(&left, Signal::SIGCONT);
        let end = Instant::now() + PATIENCE;
        while !processes().is_empty() && Instant::now() < end {
            sleep(LOOK).await;
        }
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("signal {signal}"),
        (None, Some(code)) => format!("exit code {code}"),
        (None, None) => status.to_string(),
    }
}
