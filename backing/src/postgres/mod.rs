//! A private PostgreSQL cluster: made on first use, started on a port of the loopback interface,
//! and never run as root. The launcher keeps its data in one ([`Cluster::durable`]); tests run
//! against another that vanishes with them ([`Cluster::ephemeral`], [`testing`]).
//!
//! - [`Cluster`] is the folder: `data/`, and the superuser's `password` (mode 0600) beside it.
//! - [`Server`](crate::Server) is the running process, for callers that may block. Who supervises processes in its
//!   own way takes [`Cluster::command`] and asks [`Cluster::is_ready`].

mod programs;
mod server;
pub mod testing;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use diesel::connection::SimpleConnection as _;
use diesel::sql_types::{Bool, Text};
use diesel::{Connection as _, PgConnection, RunQueryDsl as _};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use uuid::Uuid;

use crate::account::{self, Account, write_secret};
use crate::certificate::Identity;
use crate::error::{Error, Software, failed_to};
use crate::guardian::Guardian;
use crate::process;

use self::programs::Programs;

/// The superuser that a private cluster is made with.
const SUPERUSER: &str = "postgres";

pub(crate) static SOFTWARE: &Software = &Software {
    name: "PostgreSQL",
    programs: "initdb, postgres",
    package: "postgresql",
    variable: "PG_BINDIR",
    prefix: "postgres",
    users: ["postgres", "nobody"],
};

/// What a server that encrypts has in its folder.
const CERTIFICATE: &str = "server.crt";
const KEY: &str = "server.key";

/// What the data is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Survives a crash of the machine.
    Durable,
    /// Nothing is worth a sync: it goes with the process.
    Ephemeral,
}

/// A cluster's folder, initialised, with what it takes to start a server on it.
#[derive(Debug)]
pub struct Cluster {
    mode: Mode,
    programs: Programs,
    account: Option<Account>,
    folder: PathBuf,
    data: PathBuf,
    password: String,
    /// Dropped last of what matters: it takes the folder with it.
    _guardian: Option<Guardian>,
}

impl Cluster {
    /// What keeps a cluster from being made in `wanted`, without making it: its programs, and who would
    /// run it. The folder of the programs, where nothing does.
    pub fn check(wanted: &Path) -> Result<PathBuf, Error> {
        let programs = Programs::find(None)?;
        Account::choose(SOFTWARE, wanted)?;
        Ok(programs.path(""))
    }

    /// The cluster in `wanted`, made there if there is none. Blocks for about a second the first time.
    ///
    /// As root, the folder is given to an unprivileged user. Where that user can't reach it (below a
    /// home of mode 0700, say), another folder is used, always the same one for the same `wanted`:
    /// compare [`folder`](Self::folder) to know.
    pub fn durable(wanted: &Path) -> Result<Self, Error> {
        let wanted = std::path::absolute(wanted)
            .map_err(failed_to(|| format!("resolve {}", wanted.display())))?;
        let account = Account::choose(SOFTWARE, &wanted)?;
        let folder = account::settle(SOFTWARE, &wanted, account.as_ref())?;
        Self::prepare(Mode::Durable, account, &folder, None)
    }

    /// A new cluster in a temporary folder. It and its server vanish when this process ends, in
    /// whatever way: a guardian process waits for that. Blocks for about a second.
    pub fn ephemeral() -> Result<Self, Error> {
        let account = Account::choose(SOFTWARE, &std::env::temp_dir())?;
        let folder = account::temporary(SOFTWARE, account.as_ref())?;
        // PostgreSQL's immediate shutdown: the postmaster gives its shared memory back.
        let guardian = Guardian::watch(&folder, Signal::SIGQUIT, account.as_ref())?;
        Self::prepare(Mode::Ephemeral, account, &folder, Some(guardian))
    }

    fn prepare(
        mode: Mode,
        account: Option<Account>,
        folder: &Path,
        guardian: Option<Guardian>,
    ) -> Result<Self, Error> {
        // Processes are recognised by their working folder, which the kernel reports resolved.
        let folder =
            folder.canonicalize().map_err(failed_to(|| format!("resolve {}", folder.display())))?;
        let data = folder.join("data");
        let version = fs::read_to_string(data.join("PG_VERSION")).ok();
        let programs = Programs::find(version.as_deref().map(str::trim))?;
        let key = folder.join("password");
        let password = if version.is_some() {
            fs::read_to_string(&key).map_err(failed_to(|| format!("read {}", key.display())))?
        } else {
            let password = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
            write_secret(&key, &password, account.as_ref())
                .map_err(failed_to(|| format!("write {}", key.display())))?;
            initialise(&programs, account.as_ref(), &folder, &key)?;
            password
        };
        Ok(Self { mode, programs, account, folder, data, password, _guardian: guardian })
    }

    /// Where it is: not always where it was asked for (see [`durable`](Self::durable)).
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The name of the user that the server runs as, if that is not the caller.
    pub fn runs_as(&self) -> Option<&str> {
        self.account.as_ref().map(|account| account.name.as_str())
    }

    /// From its next start on the server encrypts for whoever asks for it, and proves by this who it is.
    pub(crate) fn identify(&self, identity: &Identity) -> Result<(), Error> {
        for (name, text) in [(CERTIFICATE, &identity.certificate), (KEY, &identity.key)] {
            let path = self.folder.join(name);
            write_secret(&path, text, self.account.as_ref())
                .map_err(failed_to(|| format!("write {}", path.display())))?;
        }
        Ok(())
    }

    /// The address of a database, with the superuser's password in it.
    pub fn url(&self, port: u16, database: &str) -> String {
        format!("postgres://{SUPERUSER}:{}@127.0.0.1:{port}/{database}", self.password)
    }

    /// The server on `port`, as a command to spawn: in a process group of its own, so that a
    /// terminal's Ctrl-C reaches its supervisor only. It logs to standard error. SIGINT is the way
    /// to stop it: SIGTERM would wait for every client.
    pub fn command(&self, port: u16) -> Command {
        let mut command = self.program("postgres");
        command.arg("-D").arg(&self.data).args(["-h", "127.0.0.1", "-p"]).arg(port.to_string());
        let mut set = |setting: &str| {
            command.args(["-c", setting]);
        };
        // A socket would need a folder that both users can write to.
        set("unix_socket_directories=");
        set("max_connections=400");
        let (certificate, key) = (self.folder.join(CERTIFICATE), self.folder.join(KEY));
        if key.exists() {
            set("ssl=on");
            set(&format!("ssl_cert_file={}", certificate.display()));
            set(&format!("ssl_key_file={}", key.display()));
        }
        if self.mode == Mode::Ephemeral {
            // Nothing has to survive the machine; a killed server still finds what it committed.
            set("fsync=off");
            set("full_page_writes=off");
            set("wal_level=minimal");
            set("max_wal_senders=0");
            set("autovacuum=off");
        }
        command
    }

    /// Does the server with this pid accept connections?
    pub fn is_ready(&self, pid: u32) -> bool {
        // Line 1 is the pid, line 8 the state: this is what `pg_ctl --wait` looks at.
        let Ok(file) = fs::read_to_string(self.data.join("postmaster.pid")) else {
            return false;
        };
        let mut lines = file.lines().map(str::trim);
        lines.next().and_then(|line| line.parse().ok()) == Some(pid)
            && lines.nth(6) == Some("ready")
    }

    /// Every process of a server on this folder, whoever started it: the first one is the
    /// postmaster, if it lives.
    pub fn processes(&self) -> Vec<Pid> {
        let mut found = process::in_folder("postgres", &self.data);
        let postmaster = fs::read_to_string(self.data.join("postmaster.pid"))
            .ok()
            .and_then(|file| file.lines().next()?.trim().parse().ok())
            .map(Pid::from_raw);
        found.sort_unstable_by_key(|pid| (Some(*pid) != postmaster, *pid));
        found
    }

    /// Creates the database, unless it is there: `true` if it was made.
    pub fn create_database(&self, port: u16, name: &str) -> Result<bool, Error> {
        let mut connection = PgConnection::establish(&self.url(port, "postgres"))?;
        let exists = diesel::select(
            diesel::dsl::sql::<Bool>("EXISTS (SELECT FROM pg_database WHERE datname = ")
                .bind::<Text, _>(name)
                .sql(")"),
        )
        .get_result::<bool>(&mut connection)?;
        if !exists {
            connection.batch_execute(&format!("CREATE DATABASE {}", quoted(name)))?;
        }
        Ok(!exists)
    }

    /// One of PostgreSQL's programs, run as the right user in a folder that this user can reach.
    fn program(&self, name: &str) -> Command {
        program(&self.programs, self.account.as_ref(), &self.folder, name)
    }
}

fn program(programs: &Programs, account: Option<&Account>, folder: &Path, name: &str) -> Command {
    use std::os::unix::process::CommandExt as _;

    let mut command = Command::new(programs.path(name));
    command.current_dir(folder).env("LC_ALL", "C").stdin(Stdio::null()).process_group(0);
    // What the caller's shell is set up for is another cluster.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
    if let Some(account) = account {
        account.apply(&mut command);
    }
    command
}

/// `initdb` beside the final place and a rename: what a kill leaves is no half-made cluster.
fn initialise(
    programs: &Programs,
    account: Option<&Account>,
    folder: &Path,
    key: &Path,
) -> Result<(), Error> {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("unfinished-") {
            // Best effort: rubbish of a killed attempt, and its initdb may still be dying.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    let unfinished = folder.join(format!("unfinished-{}", Uuid::new_v4().simple()));
    let output = program(programs, account, folder, "initdb")
        .arg("-D")
        .arg(&unfinished)
        .args(["--no-sync", "--locale=C", "--encoding=UTF8", "--auth=scram-sha-256"])
        .args(["--username", SUPERUSER, "--pwfile"])
        .arg(key)
        .output()
        .map_err(failed_to(|| "run initdb"))?;
    if !output.status.success() {
        let _ = fs::remove_dir_all(&unfinished);
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().find(|line| line.contains("error")).or(said.lines().last());
        return Err(Error::Program {
            program: "initdb",
            said: said.unwrap_or("it said nothing").to_owned(),
        });
    }
    fs::rename(&unfinished, folder.join("data"))
        .map_err(failed_to(|| "move the new cluster into place"))
}

/// An SQL identifier.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durable_cluster_keeps_its_data_and_its_password() {
        let parent = std::env::temp_dir().join(format!("cluster-test-{}", Uuid::new_v4().simple()));
        let wanted = parent.join("postgres");
        let first = Cluster::durable(&wanted).unwrap();
        let server = first.start(None).unwrap();
        assert!(first.create_database(server.port(), "order").unwrap());
        assert!(!first.create_database(server.port(), "order").unwrap());
        PgConnection::establish(&first.url(server.port(), "order"))
            .unwrap()
            .batch_execute("CREATE TABLE kept (id int)")
            .unwrap();
        server.stop();
        assert!(first.processes().is_empty());

        let second = Cluster::durable(&wanted).unwrap();
        assert_eq!(second.folder(), first.folder());
        let server = second.start(None).unwrap();
        PgConnection::establish(&second.url(server.port(), "order"))
            .unwrap()
            .batch_execute("INSERT INTO kept VALUES (1)")
            .unwrap();
        drop(server);
        fs::remove_dir_all(second.folder()).unwrap();
        let _ = fs::remove_dir_all(parent);
    }

    #[test]
    fn taken_port_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let cluster = Cluster::ephemeral().unwrap();
        match cluster.start(Some(port)) {
            Err(Error::PortTaken(taken)) => assert_eq!(taken, port),
            other => panic!("{other:?}"),
        }
    }
}
