//! A service's process as a platform runs it: with its app's variables and nothing else.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::world::Part;

pub(crate) type Variables = BTreeMap<String, String>;

/// What a platform gives a process to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// As in [`crate::world::process`]: the process ends with the test, however that ends.
const GUARDIAN: &str = r#"read -r over || kill -KILL "$1""#;

/// A running process. Dropped, it is gone.
pub(crate) struct Dyno {
    child: Child,
    guardian: Child,
    line: Option<ChildStdin>,
    port: u16,
}

/// The command of an image, here: `/service` is this service's binary there.
fn command(part: Part, words: &[String], held: bool, variables: &Variables, log: &Path) -> Command {
    let mut command = if words[0] == "/service" {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stack"));
        command.arg("service").args(held.then_some("--held")).arg(part.name()).args(&words[1..]);
        command
    } else {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command
    };
    let log = || -> File { OpenOptions::new().create(true).append(true).open(log).unwrap() };
    command.env_clear().envs(variables).stdin(Stdio::null()).stdout(log()).stderr(log());
    command.process_group(0);
    command
}

/// Runs a command to its end.
pub(crate) fn run(part: Part, words: &[String], variables: &Variables, log: &Path) -> ExitStatus {
    command(part, words, false, variables, log).status().unwrap()
}

impl Dyno {
    pub(crate) fn start(
        part: Part,
        words: &[String],
        variables: &Variables,
        port: u16,
        log: &Path,
    ) -> Self {
        let mut command = command(part, words, true, variables, log);
        command.env("PORT", port.to_string()).stdin(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut guardian = Command::new("/bin/sh")
            .args(["-c", GUARDIAN, "sh", &child.id().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        // It may be of those that end at once.
        let _ = child.stdin.take().unwrap().write_all(b"\n");
        let line = guardian.stdin.take();
        Self { child, guardian, line, port }
    }

    /// As a platform tells it: `crashed`, `up` when it listens, else `starting`.
    pub(crate) fn state(&mut self) -> &'static str {
        if self.child.try_wait().unwrap().is_some() {
            return "crashed";
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let listens = TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok();
        if listens { "up" } else { "starting" }
    }

    /// SIGTERM, and SIGKILL for what doesn't end.
    pub(crate) fn stop(mut self) {
        if self.child.try_wait().unwrap().is_none() {
            kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM).unwrap();
        }
        let end = Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Dyno {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(mut line) = self.line.take() {
            let _ = line.write_all(b"over\n");
        }
        let _ = self.guardian.wait();
    }
}
