//! Runs the real program, and asks it and its parts.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails where it is")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use backing::process::{start_time, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const SERVICES: [&str; 4] = ["store", "order", "warehouse", "warranty"];
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A folder that an unprivileged PostgreSQL can pass through, whatever the umask.
pub(crate) fn folder() -> TempDir {
    folder_with_mode(0o755)
}

pub(crate) fn folder_with_mode(mode: u32) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
    folder
}

/// The program, unaware of what this test was started with, and without RabbitMQ, which costs each
/// start some seconds of a processor.
pub(crate) fn program(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stack"));
    command.env("STACK_DIR", folder).env_remove("POSTGRES_PORT").env_remove("RABBITMQ_PORT");
    command.env("AMQP_URL", "none");
    for service in SERVICES.map(str::to_uppercase) {
        command.env(format!("{service}_PORT"), "0");
        command.env_remove(format!("{service}_DATABASE_URL"));
    }
    command
}

/// The program as it is without that: with a RabbitMQ of its own.
pub(crate) fn with_broker(folder: &Path) -> Command {
    let mut command = program(folder);
    command.env_remove("AMQP_URL");
    command
}

pub(crate) fn run(folder: &Path, arguments: &[&str]) -> Output {
    program(folder).args(arguments).output().unwrap()
}

/// Runs a command that has to succeed, and returns what it printed.
pub(crate) fn order(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command that has to fail with one line, and returns it.
pub(crate) fn refusal(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    error
}

/// `status --json`, by name.
pub(crate) fn status(folder: &Path) -> BTreeMap<String, Value> {
    let status: Value = serde_json::from_str(&order(folder, &["status", "--json"])).unwrap();
    let parts = status["parts"].as_array().unwrap().iter();
    parts.map(|part| (part["name"].as_str().unwrap().to_owned(), part.clone())).collect()
}

pub(crate) fn pid(part: &Value) -> Pid {
    Pid::from_raw(part["pid"].as_i64().unwrap().try_into().unwrap())
}

pub(crate) fn gone(pid: Pid) -> bool {
    start_time(pid).is_none()
}

/// One request by hand: status and body.
pub(crate) fn http(url: &Value, method: &str, path: &str, body: &str) -> (u16, String) {
    let address = url.as_str().unwrap().strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    // In one piece: a server may answer and close before a second one comes.
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

pub(crate) fn is_ready(part: &Value) -> bool {
    http(&part["url"], "GET", "/manage/health/ready", "").0 == 200
}

/// A running launcher. Dropped, it and its parts are gone.
pub(crate) struct Launcher {
    pub(crate) child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Launcher {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, lines, seen: Vec::new() }
    }

    /// Started, and ready.
    pub(crate) fn ready(folder: &Path) -> Self {
        let mut launcher = Self::spawn(&mut program(folder));
        launcher.wait_for("The store is ready");
        launcher
    }

    /// The next line with this in it.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        self.wait_until(text, |line| line.contains(text))
    }

    /// The next line that is so.
    pub(crate) fn wait_until(&mut self, text: &str, is: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + LIMIT;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if is(&line) => return line,
                Ok(line) => self.seen.push(line),
                Err(error) => panic!("no `{text}` ({error}) after: {:#?}", self.seen),
            }
        }
    }

    /// Waits until it has ended by itself, and returns how, and what it has printed that nobody waited
    /// for.
    pub(crate) fn end(&mut self, limit: Duration) -> (ExitStatus, String) {
        let end = Instant::now() + limit;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("no end after: {:#?}", self.seen),
            }
        }
        (self.wait(), self.seen.join("\n"))
    }

    /// What it has printed before the last line that was waited for.
    pub(crate) fn printed(&self) -> &[String] {
        &self.seen
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until(LIMIT, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.expect("the launcher did not end")
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::SIGINT);
            let ended = || matches!(self.child.try_wait(), Ok(Some(_)));
            if !wait_until(LIMIT, ended) {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
    }
}
