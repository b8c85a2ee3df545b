//! A running node, for callers that may block.

use std::fs;
use std::process::Child;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::{Node, SOFTWARE};
use crate::error::{Error, failed_to};
use crate::{port, process};

/// A start takes some 3 s of a free processor; tests share theirs.
const READY: Duration = Duration::from_mins(1);
/// A clean stop takes some 2 s.
const STOP: Duration = Duration::from_secs(20);

/// A server that this process started. Dropped, it is stopped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    port: u16,
}

impl Node {
    /// Starts the server on the port, or on a free one, and blocks until it accepts connections.
    /// It logs to `server.log` in the node's folder.
    pub fn start(&self, wanted: Option<u16>) -> Result<Server, Error> {
        // Between looking for a free port and listening on it somebody else may be faster. With the
        // port given that is the port for the tools, which nobody has asked for.
        let mut attempts = 5;
        loop {
            attempts -= 1;
            let port = match wanted {
                Some(port) => port,
                None => port::free(1).map_err(failed_to(|| "find a free port"))?[0],
            };
            match self.start_on(port) {
                Err(Error::PortTaken(_))
                    if attempts > 0 && (wanted.is_none() || port::check(port).is_ok()) => {}
                outcome => return outcome,
            }
        }
    }

    fn start_on(&self, port: u16) -> Result<Server, Error> {
        port::check(port).map_err(|_| Error::PortTaken(port))?;
        let path = self.folder().join("server.log");
        let opening = || format!("open {}", path.display());
        let log = fs::OpenOptions::new().create(true).append(true).open(&path);
        let log = log.map_err(failed_to(opening))?;
        let copy = log.try_clone().map_err(failed_to(opening))?;
        let from = log.metadata().map_or(0, |log| log.len());
        let mut command = self.command(port)?;
        let child = command.stdout(copy).stderr(log).spawn();
        let child = child.map_err(failed_to(|| "run rabbitmq-server"))?;
        let mut server = Server { child, port };
        let mut ended = false;
        let settled = process::wait_until(READY, || {
            ended = server.ended();
            ended || Self::is_ready(port)
        });
        if ended {
            let said = fs::read(&path).unwrap_or_default();
            let said = said.get(usize::try_from(from).unwrap_or(0)..).unwrap_or_default();
            let said = String::from_utf8_lossy(said);
            return Err(if said.contains("eaddrinuse") || said.contains("in use by another") {
                Error::PortTaken(port)
            } else {
                let said = said.lines().find(|line| line.contains("error")).or(said.lines().last());
                let said = said.unwrap_or("it said nothing").to_owned();
                Error::Program { program: "rabbitmq-server", said }
            });
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

    /// The node's process.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Stops it as an operator would: what it was given is kept. Returns when it is done.
    pub fn stop(mut self) {
        self.end(&[Signal::SIGTERM]);
    }

    /// SIGKILL, as a crash would. Returns when it is gone.
    pub fn kill(mut self) {
        self.end(&[]);
    }

    /// Stops it where it stands: connections stay open, nobody answers.
    pub fn freeze(&self) {
        process::signal(&[self.pid()], Signal::SIGSTOP);
    }

    /// Lets a frozen server go on.
    pub fn thaw(&self) {
        process::signal(&[self.pid()], Signal::SIGCONT);
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
        if !self.ended() {
            process::signal(&[self.pid()], Signal::SIGKILL);
            process::wait_until(STOP, || self.ended());
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
            self.end(&[Signal::SIGTERM]);
        }
    }
}
