//! A running server, for callers that may block.

use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::error::{Error, failed_to};
use crate::{port, process};

/// Between looking for a free port and listening on it somebody else may be faster.
const ATTEMPTS: u32 = 5;

/// A clean stop may write a checkpoint.
pub(crate) const STOP: Duration = Duration::from_secs(20);

/// What a server runs as.
#[derive(Clone, Debug)]
pub(crate) struct Kind {
    /// The name by which errors tell it.
    pub(crate) name: &'static str,
    /// The program of each of its processes.
    pub(crate) program: &'static str,
    /// Their working folder.
    pub(crate) folder: PathBuf,
    /// How it is asked to stop, the most courteous way first.
    pub(crate) stop: &'static [Signal],
    /// What a start may take.
    pub(crate) ready: Duration,
}

/// A server that this process started. Dropped, it is stopped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    port: u16,
    kind: Kind,
}

/// Starts on the port, or on a free one. `again` tells whether a port that was taken is worth
/// another attempt.
pub(crate) fn start(
    wanted: Option<u16>,
    again: impl Fn(u16) -> bool,
    start_on: impl Fn(u16) -> Result<Server, Error>,
) -> Result<Server, Error> {
    let mut attempts = ATTEMPTS;
    loop {
        attempts -= 1;
        let port = match wanted {
            Some(port) => port,
            None => port::free(1).map_err(failed_to(|| "find a free port"))?[0],
        };
        let started = match port::check(port) {
            Ok(()) => start_on(port),
            Err(_) => Err(Error::PortTaken(port)),
        };
        match started {
            Err(Error::PortTaken(_)) if attempts > 0 && (wanted.is_none() || again(port)) => {}
            outcome => return outcome,
        }
    }
}

impl Server {
    /// Waits until it is ready; when it ends before, `why` tells.
    pub(crate) fn settle(
        child: Child,
        port: u16,
        kind: Kind,
        is_ready: impl Fn(u32) -> bool,
        why: impl FnOnce() -> Error,
    ) -> Result<Self, Error> {
        let mut server = Self { child, port, kind };
        let mut ended = false;
        let settled = process::wait_until(server.kind.ready, || {
            ended = server.ended();
            ended || is_ready(server.child.id())
        });
        match (ended, settled) {
            (true, _) => Err(why()),
            (false, true) => Ok(server),
            (false, false) => {
                let Kind { name, ready, .. } = server.kind;
                Err(Error::NotReady { name, seconds: ready.as_secs() })
            }
        }
    }

    /// The port of 127.0.0.1 that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its first process.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Stops it as an operator would: clients are cut off, what was confirmed to them is kept.
    /// Returns when it is done.
    pub fn stop(mut self) {
        self.end(self.kind.stop);
    }

    /// SIGKILL to every process of it, as a crash would. Returns when they are gone.
    pub fn kill(mut self) {
        self.end(&[]);
    }

    /// Stops every process of it where it stands: connections stay open, nobody answers.
    pub fn freeze(&self) {
        // The first one first: it can't start any more while the others are listed.
        process::signal(&[self.pid()], Signal::SIGSTOP);
        process::signal(&self.processes(), Signal::SIGSTOP);
    }

    /// Lets a frozen server go on.
    pub fn thaw(&self) {
        process::signal(&self.processes(), Signal::SIGCONT);
    }

    fn processes(&self) -> Vec<Pid> {
        process::in_folder(self.kind.program, &self.kind.folder)
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
            self.end(self.kind.stop);
        }
    }
}
