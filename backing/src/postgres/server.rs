//! A running server, for callers that may block.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::{Cluster, SOFTWARE};
use crate::error::{Error, failed_to};
use crate::{port, process};

/// Recovery after a crash takes its time; a start from a clean stop takes some 50 ms.
const READY: Duration = Duration::from_secs(30);
/// A fast shutdown writes a checkpoint.
const STOP: Duration = Duration::from_secs(20);

/// A server that this process started. Dropped, it is stopped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    port: u16,
    data: PathBuf,
}

impl Cluster {
    /// Starts the server on the port, or on a free one, and blocks until it accepts connections.
    /// It logs to `server.log` in the cluster's folder.
    pub fn start(&self, wanted: Option<u16>) -> Result<Server, Error> {
        // Between looking for a free port and listening on it somebody else may be faster.
        let mut attempts = if wanted.is_some() { 1 } else { 5 };
        loop {
            attempts -= 1;
            let port = match wanted {
                Some(port) => port,
                None => port::free(1).map_err(failed_to(|| "find a free port"))?[0],
            };
            match self.start_on(port) {
                Err(Error::PortTaken(_)) if attempts > 0 => {}
                outcome => return outcome,
            }
        }
    }

    fn start_on(&self, port: u16) -> Result<Server, Error> {
        port::check(port).map_err(|_| Error::PortTaken(port))?;
        // A killed postmaster's children end by themselves, and hold the shared memory until then.
        process::wait_until(STOP, || self.processes().is_empty());
        let path = self.folder().join("server.log");
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(failed_to(|| format!("open {}", path.display())))?;
        let child = self
            .command(port)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(failed_to(|| "run postgres"))?;
        let mut server = Server { child, port, data: self.data.clone() };
        let mut ended = false;
        let settled = process::wait_until(READY, || {
            ended = server.child.try_wait().is_ok_and(|status| status.is_some());
            ended || self.is_ready(server.child.id())
        });
        if ended {
            let said = fs::read_to_string(&path).unwrap_or_default();
            return Err(
                if said.lines().rev().take(5).any(|line| line.contains("already in use")) {
                    Error::PortTaken(port)
                } else {
                    let said = said.lines().rev().find(|line| line.contains("FATAL"));
                    let said = said.unwrap_or("it said nothing").to_owned();
                    Error::Program { program: "postgres", said }
                },
            );
        }
        if settled {
            Ok(server)
        } else {
            Err(Error::NotReady { name: SOFTWARE.name, seconds: READY.as_secs() })
        }
    }
}

impl Server {
    /// The port of 127.0.0.1 that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The postmaster's process.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Fast shutdown: clients are cut off, what they committed is kept. Returns when it is done.
    pub fn stop(mut self) {
        self.end(&[Signal::SIGINT, Signal::SIGQUIT]);
    }

    /// SIGKILL to every process of it, as a crash would. Returns when they are gone.
    pub fn kill(mut self) {
        self.end(&[]);
    }

    /// Stops every process of it where it stands: connections stay open, nobody answers.
    pub fn freeze(&self) {
        // The postmaster first: it can't fork any more while the others are listed.
        process::signal(&[self.pid()], Signal::SIGSTOP);
        process::signal(&self.processes(), Signal::SIGSTOP);
    }

    /// Lets a frozen server go on.
    pub fn thaw(&self) {
        process::signal(&self.processes(), Signal::SIGCONT);
    }

    fn processes(&self) -> Vec<Pid> {
        process::in_folder("postgres", Path::new(&self.data))
    }

    /// Tries each signal in turn, then SIGKILL.
    fn end(&mut self, signals: &[Signal]) {
        for signal in signals {
            if self.ended() {
                return;
            }
            process::signal(&[self.pid()], *signal);
            self.thaw();
            process::wait_until(STOP, || self.ended());
        }
        if !self.ended() || !self.processes().is_empty() {
            process::signal(&[self.pid()], Signal::SIGSTOP);
            process::signal(&self.processes(), Signal::SIGKILL);
            process::wait_until(STOP, || self.ended() && self.processes().is_empty());
        }
    }

    fn ended(&mut self) -> bool {
        // Once reaped the pid may belong to somebody else: `Child` knows, and so must we.
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.ended() {
            self.end(&[Signal::SIGINT, Signal::SIGQUIT]);
        }
    }
}
