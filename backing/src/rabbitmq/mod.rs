//! A private RabbitMQ node: on ports of the loopback interface, and never run as root. The launcher
//! has one whose messages are kept ([`Node::durable`]); tests run against another that vanishes with
//! them ([`Node::ephemeral`], [`testing`]).
//!
//! - [`Node`] is the folder: `data/`, the configuration, the `password` of the only user and the
//!   cookie that lets an operator in (both mode 0600 or less), and `rabbitmqctl`, which is
//!   RabbitMQ's own set up for this node.
//! - [`Server`](crate::Server) is the running process, for callers that may block. Who supervises processes in its
//!   own way takes [`Node::command`] and asks [`Node::is_ready`].
//!
//! A node has no `epmd`, Erlang's name service, of which a machine has one for everybody: it is told
//! the one port that it needs instead. So nothing outlives it, and nobody else's is touched.

mod control;
mod programs;
mod server;
pub mod testing;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use uuid::Uuid;

use crate::account::{self, Account, write_secret};
use crate::certificate::Identity;
use crate::error::{Error, Software, failed_to};
use crate::guardian::Guardian;
use crate::{port, process};

use self::programs::Programs;

pub(crate) static SOFTWARE: &Software = &Software {
    name: "RabbitMQ",
    programs: "rabbitmq-server, rabbitmqctl",
    package: "rabbitmq-server",
    variable: "RABBITMQ_BINDIR",
    prefix: "rabbitmq",
    users: ["rabbitmq", "nobody"],
};

/// The only user of a private node.
const USER: &str = "store";
/// The name within Erlang. Nodes of one machine may share it: they never meet.
const NODE: &str = "rabbit@localhost";
/// The emulator's program, which is what a running node is.
const EMULATOR: &str = "beam.smp";

/// A scheduler for each kind of work and short tables start in half the time. No busy waiting: the
/// node shares the processors with what uses it.
const EMULATOR_FLAGS: &str = "+S 1:1 +SDcpu 1:1 +SDio 1 +A 1 +sbwt none -start_epmd false";

/// What the data is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Kept from start to start.
    Durable,
    /// It goes with the process.
    Ephemeral,
}

/// A node's folder, with what it takes to start a server on it.
#[derive(Debug)]
pub struct Node {
    programs: Programs,
    account: Option<Account>,
    folder: PathBuf,
    password: String,
    /// Dropped last of what matters: it takes the folder with it.
    _guardian: Option<Guardian>,
}

impl Node {
    /// What keeps a node from being made in `wanted`, without making it: its programs, and who would
    /// run it. The folder of the programs, where nothing does.
    pub fn check(wanted: &Path) -> Result<PathBuf, Error> {
        let programs = Programs::find()?;
        Account::choose(SOFTWARE, wanted)?;
        Ok(programs.path(""))
    }

    /// The node in `wanted`, made there if there is none. The error is [`Error::NotInstalled`], and
    /// nothing was touched, where RabbitMQ's programs are not found.
    ///
    /// As root, the folder is given to an unprivileged user. Where that user can't reach it (below a
    /// home of mode 0700, say), another folder is used, always the same one for the same `wanted`:
    /// compare [`folder`](Self::folder) to know.
    pub fn durable(wanted: &Path) -> Result<Self, Error> {
        let programs = Programs::find()?;
        let wanted = std::path::absolute(wanted)
            .map_err(failed_to(|| format!("resolve {}", wanted.display())))?;
        let account = Account::choose(SOFTWARE, &wanted)?;
        let folder = account::settle(SOFTWARE, &wanted, account.as_ref())?;
        Self::prepare(Mode::Durable, programs, account, &folder, None)
    }

    /// A new node in a temporary folder. It and its server vanish when this process ends, in
    /// whatever way: a guardian process waits for that.
    pub fn ephemeral() -> Result<Self, Error> {
        let programs = Programs::find()?;
        let account = Account::choose(SOFTWARE, &std::env::temp_dir())?;
        let folder = account::temporary(SOFTWARE, account.as_ref())?;
        let guardian = Guardian::watch(&folder, Signal::SIGKILL, account.as_ref())?;
        Self::prepare(Mode::Ephemeral, programs, account, &folder, Some(guardian))
    }

    fn prepare(
        mode: Mode,
        programs: Programs,
        account: Option<Account>,
        folder: &Path,
        guardian: Option<Guardian>,
    ) -> Result<Self, Error> {
        // Processes are recognised by their working folder, which the kernel reports resolved.
        let folder =
            folder.canonicalize().map_err(failed_to(|| format!("resolve {}", folder.display())))?;
        let key = folder.join("password");
        let reading = || format!("read {}", key.display());
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            write_secret(&path, text, account.as_ref())
                .map_err(failed_to(|| format!("write {}", path.display())))
        };
        let password = match fs::read_to_string(&key) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let password = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
                write("password", &password)?;
                password
            }
            found => found.map_err(failed_to(reading))?,
        };
        write(".erlang.cookie", &Uuid::new_v4().simple().to_string())?;
        let definitions = folder.join("definitions.json");
        write("definitions.json", &user(&password))?;
        write("rabbitmq.conf", &configuration(mode, &definitions))?;
        // What the tools report of a quorum queue is as old as this many milliseconds.
        write("advanced.config", "[{rabbit, [{quorum_tick_interval, 200}]}].\n")?;
        write("enabled_plugins", "[].\n")?;
        Ok(Self { programs, account, folder, password, _guardian: guardian })
    }

    /// From its next start on the server listens on this port, too, where it encrypts and proves by this
    /// who it is.
    pub(crate) fn identify(&self, identity: &Identity, port: u16) -> Result<(), Error> {
        let file = |name: &str, text: &str| {
            let path = self.folder.join(name);
            write_secret(&path, text, self.account.as_ref())
                .map_err(failed_to(|| format!("write {}", path.display())))?;
            Ok(path)
        };
        let certificate = file("server.crt", &identity.certificate)?;
        let key = file("server.key", &identity.key)?;
        let settings = configuration(Mode::Ephemeral, &self.folder.join("definitions.json"));
        let settings = format!(
            "{settings}\
             listeners.ssl.1 = 127.0.0.1:{port}\n\
             num_acceptors.ssl = 2\n\
             ssl_options.certfile = {}\n\
             ssl_options.keyfile = {}\n",
            certificate.display(),
            key.display()
        );
        file("rabbitmq.conf", &settings).map(drop)
    }

    /// Where it is: not always where it was asked for (see [`durable`](Self::durable)).
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The name of the user that the server runs as, if that is not the caller.
    pub fn runs_as(&self) -> Option<&str> {
        self.account.as_ref().map(|account| account.name.as_str())
    }

    /// The address of the default virtual host, with the password in it.
    pub fn url(&self, port: u16) -> String {
        self.url_of(port, "%2f")
    }

    /// The address of a virtual host, its name as it stands in an address.
    fn url_of(&self, port: u16, vhost: &str) -> String {
        format!("amqp://{}@127.0.0.1:{port}/{vhost}", self.credentials())
    }

    fn credentials(&self) -> String {
        format!("{USER}:{}", self.password)
    }

    /// The server on `port`, as a command to spawn: in a process group of its own, so that a
    /// terminal's Ctrl-C reaches its supervisor only. The process becomes the server, it is not its
    /// parent. It logs to standard output; SIGTERM stops it.
    pub fn command(&self, port: u16) -> Result<Command, Error> {
        let distribution = *port::free(1)
            .map_err(failed_to(|| "find a free port"))?
            .iter()
            .find(|free| **free != port)
            .ok_or(Error::PortTaken(port))?;
        self.tools(distribution)?;
        let file = |name: &str| self.folder.join(name);
        let mut command = self.program(&self.programs.path("rabbitmq-server"));
        command
            .args(["-noinput", "-sname", NODE])
            .args(["-kernel", "inet_dist_use_interface", "{127,0,0,1}"])
            .env("ERL_FLAGS", format!("{EMULATOR_FLAGS} -erl_epmd_port {distribution}"))
            // A dump takes seconds, and nobody reads it.
            .env("ERL_CRASH_DUMP_SECONDS", "0")
            // The shell becomes the emulator, instead of staying its parent.
            .env("RABBITMQ_ALLOW_INPUT", "1")
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODE_PORT", port.to_string())
            .env("RABBITMQ_CONFIG_FILE", file("rabbitmq.conf"))
            .env("RABBITMQ_CONFIG_FILES", file("conf.d"))
            .env("RABBITMQ_ADVANCED_CONFIG_FILE", file("advanced.config"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", file("enabled_plugins"))
            .env("RABBITMQ_MNESIA_BASE", file("data"))
            .env("RABBITMQ_LOG_BASE", file("log"))
            .env("RABBITMQ_LOG", "-color")
            .env("RABBITMQ_MAX_NUMBER_OF_PROCESSES", "65536")
            .env("RABBITMQ_MAX_NUMBER_OF_ATOMS", "1048576")
            .env("RABBITMQ_SCHEDULER_BIND_TYPE", "u");
        Ok(command)
    }

    /// Removes everything that the node was given, as a lost disk would. The server must be down.
    pub fn wipe(&self) -> Result<(), Error> {
        let data = self.folder.join("data");
        match fs::remove_dir_all(&data) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done.map_err(failed_to(|| format!("remove {}", data.display()))),
        }
    }

    /// Does the server on this port accept connections? It listens once all else is done.
    pub fn is_ready(port: u16) -> bool {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok()
    }

    /// The processes of a server on this folder, whoever started it.
    pub fn processes(&self) -> Vec<Pid> {
        process::in_folder(EMULATOR, &self.folder)
    }

    /// One of RabbitMQ's programs, or of Erlang's, run as the right user in the node's folder.
    fn program(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        // What the caller's shell is set up for is another node, and its scripts read many names.
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &self.folder)
            .env("LC_ALL", "C.UTF-8")
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_NODENAME", NODE)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .process_group(0);
        if let Some(account) = &self.account {
            account.apply(&mut command);
        }
        command
    }

    /// Leaves in the folder how to reach the node: the port, and a `rabbitmqctl` that knows it.
    fn tools(&self, distribution: u16) -> Result<(), Error> {
        let script = format!(
            "#!/bin/sh\n\
             # RabbitMQ's own rabbitmqctl, for the node whose folder this is.\n\
             export HOME='{folder}' LC_ALL=C.UTF-8\n\
             export RABBITMQ_CONF_ENV_FILE=/dev/null RABBITMQ_NODENAME={NODE}\n\
             export ERL_FLAGS='{EMULATOR_FLAGS} -erl_epmd_port {distribution} -dist_listen false'\n\
             exec '{program}' \"$@\"\n",
            folder = self.folder.display(),
            program = self.programs.path("rabbitmqctl").display(),
        );
        let path = self.folder.join("rabbitmqctl");
        let failed = || format!("write {}", path.display());
        write_secret(&path, &script, self.account.as_ref()).map_err(failed_to(failed))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).map_err(failed_to(failed))?;
        let path = self.folder.join("distribution.port");
        write_secret(&path, &distribution.to_string(), self.account.as_ref())
            .map_err(failed_to(|| format!("write {}", path.display())))
    }
}

fn configuration(mode: Mode, definitions: &Path) -> String {
    // Each connection is a line at `info`: fine for a person's log, not for a test's.
    let level = if mode == Mode::Durable { "info" } else { "warning" };
    format!(
        "load_definitions = {}\n\
         num_acceptors.tcp = 2\n\
         log.file = false\n\
         log.console = true\n\
         log.console.level = {level}\n",
        definitions.display()
    )
}

/// The user and the default virtual host, made sure of at each start: RabbitMQ's own way to make
/// them when its data is empty leaves a node without a user where it was killed in the middle.
fn user(password: &str) -> String {
    format!(
        r#"{{
  "users": [{{"name": "{USER}", "password": "{password}", "tags": "administrator"}}],
  "vhosts": [{{"name": "/"}}],
  "permissions": [{{"user": "{USER}", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}}]
}}
"#
    )
}
