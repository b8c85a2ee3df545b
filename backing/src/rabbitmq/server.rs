//! Starting a server on a node.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{EMULATOR, Node, SOFTWARE};
use crate::error::{Error, failed_to};
use crate::port;
use crate::server::{self, Kind, Server};

/// A start takes some 3 s of a free processor; tests share theirs.
const READY: Duration = Duration::from_mins(1);

impl Node {
    /// Starts the server on the port, or on a free one, and blocks until it accepts connections.
    /// It logs to `server.log` in the node's folder.
    pub fn start(&self, wanted: Option<u16>) -> Result<Server, Error> {
        // When the given one is free it was the port for the tools, which nobody has asked for.
        server::start(wanted, |port| port::check(port).is_ok(), |port| self.start_on(port))
    }

    fn start_on(&self, port: u16) -> Result<Server, Error> {
        let path = self.folder().join("server.log");
        let opening = || format!("open {}", path.display());
        let log = fs::OpenOptions::new().create(true).append(true).open(&path);
        let log = log.map_err(failed_to(opening))?;
        let copy = log.try_clone().map_err(failed_to(opening))?;
        let from = log.metadata().map_or(0, |log| log.len());
        let mut command = self.command(port)?;
        let child = command.stdout(copy).stderr(log).spawn();
        let child = child.map_err(failed_to(|| "run rabbitmq-server"))?;
        let kind = Kind {
            name: SOFTWARE.name,
            program: EMULATOR,
            folder: self.folder.clone(),
            stop: &[Signal::SIGTERM],
            ready: READY,
        };
        Server::settle(
            child,
            port,
            kind,
            |_| Self::is_ready(port),
            || {
                let said = fs::read(&path).unwrap_or_default();
                let said = said.get(usize::try_from(from).unwrap_or(0)..).unwrap_or_default();
                let said = String::from_utf8_lossy(said);
                if said.contains("eaddrinuse") || said.contains("in use by another") {
                    return Error::PortTaken(port);
                }
                let said = said.lines().find(|line| line.contains("error")).or(said.lines().last());
                let said = said.unwrap_or("it said nothing").to_owned();
                Error::Program { program: "rabbitmq-server", said }
            },
        )
    }
}
