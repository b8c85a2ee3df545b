//! Starting a server on a cluster.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{Cluster, SOFTWARE};
use crate::error::{Error, failed_to};
use crate::process;
use crate::server::{self, Kind, STOP, Server};

/// Recovery after a crash takes its time; a start from a clean stop takes some 50 ms.
const READY: Duration = Duration::from_secs(30);

/// What PostgreSQL says while what is left of its predecessor holds the shared memory.
const MEMORY_IN_USE: &str = "pre-existing shared memory block";
const LOOK_AGAIN: Duration = Duration::from_millis(50);

impl Cluster {
    /// Starts the server on the port, or on a free one, and blocks until it accepts connections.
    /// It logs to `server.log` in the cluster's folder.
    pub fn start(&self, wanted: Option<u16>) -> Result<Server, Error> {
        let end = Instant::now() + STOP;
        loop {
            match server::start(wanted, |_| false, |port| self.start_on(port)) {
                // A killed process isn't to be seen any more a moment before it lets go of its memory.
                Err(Error::Program { said, .. })
                    if said.contains(MEMORY_IN_USE) && Instant::now() < end =>
                {
                    std::thread::sleep(LOOK_AGAIN);
                }
                started => return started,
            }
        }
    }

    fn start_on(&self, port: u16) -> Result<Server, Error> {
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
        let kind = Kind {
            name: SOFTWARE.name,
            program: "postgres",
            folder: self.data.clone(),
            // Fast shutdown: clients are cut off, what they committed is kept.
            stop: &[Signal::SIGINT, Signal::SIGQUIT],
            ready: READY,
        };
        let is_ready = |pid| self.is_ready(pid);
        Server::settle(child, port, kind, is_ready, || {
            let said = fs::read_to_string(&path).unwrap_or_default();
            if said.lines().rev().take(5).any(|line| line.contains("already in use")) {
                return Error::PortTaken(port);
            }
            let said = said.lines().rev().find(|line| line.contains("FATAL"));
            let said = said.unwrap_or("it said nothing").to_owned();
            Error::Program { program: "postgres", said }
        })
    }
}
