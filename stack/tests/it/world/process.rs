//! One service as a process of its own, in the hands of a test.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use service::testing::{Client, until};

use super::Part;

/// How long a start or an end may take on a crowded machine.
const LIMIT: Duration = Duration::from_secs(30);

/// Ends the process should the test that owns it be killed, which runs no `Drop`: its end of the
/// pipe closes however it ends. A line says instead that the process is gone.
const GUARDIAN: &str = r#"read -r over || kill -KILL "$1""#;

/// A service, always on the same port and with the same variables. Dropped, it is gone.
pub(crate) struct Process {
    name: String,
    part: Part,
    port: u16,
    variables: Vec<(String, String)>,
    log: PathBuf,
    running: Mutex<Option<Running>>,
}

struct Running {
    child: Child,
    guardian: Child,
    line: Option<ChildStdin>,
}

impl Process {
    pub(super) fn new(
        name: String,
        part: Part,
        port: u16,
        variables: Vec<(String, String)>,
        folder: &std::path::Path,
    ) -> Self {
        let log = folder.join(format!("{name}.log"));
        Self { name, part, port, variables, log, running: Mutex::default() }
    }

    pub(crate) fn part(&self) -> Part {
        self.part
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(&self.url())
    }

    /// Starts it, and returns how long it took until it was ready.
    pub(crate) async fn start(&self) -> Duration {
        self.spawn();
        let begin = Instant::now();
        self.ready().await;
        begin.elapsed()
    }

    /// Starts it, and waits for nothing.
    pub(crate) fn spawn(&self) {
        self.spawn_with(&[]);
    }

    /// The same, once, with these variables besides.
    pub(crate) fn spawn_with(&self, variables: &[(&str, &str)]) {
        let log = || OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_stack"));
        // Held until its guardian watches.
        command.args(["service", "--held", self.part.name(), "serve"]);
        // Whoever is to have one is given its own.
        for name in ["AMQP_URL", "SERVICE_TOKENS", "MANAGEMENT_TOKENS"] {
            command.env_remove(name);
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.envs(variables.iter().copied());
        command.env("PORT", self.port.to_string()).env_remove("CONFIG_PATH");
        // Out of reach of the terminal's Ctrl-C, as the guardian: that ends the test, and the test
        // them.
        command.stdin(Stdio::piped()).stdout(log()).stderr(log()).process_group(0);
        let mut child = command.spawn().unwrap();
        let mut guardian = Command::new("/bin/sh")
            .args(["-c", GUARDIAN, "sh", &child.id().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        let line = guardian.stdin.take();
        let before = self.lock().replace(Running { child, guardian, line });
        assert!(before.is_none(), "{} runs already", self.name);
    }

    /// Waits until it is ready.
    pub(crate) async fn ready(&self) {
        assert!(self.comes_up().await, "{} ended: {}", self.name, self.last_words());
    }

    /// Waits until it is ready, or has ended. Whether it is ready.
    pub(crate) async fn comes_up(&self) -> bool {
        let client = self.client();
        until(LIMIT, &format!("{} is ready", self.name), async || {
            if self.exit_status().is_some() {
                return Some(false);
            }
            let answer = client.get("/manage/health/ready").try_send().await;
            answer.is_ok_and(|answer| answer.status == 200).then_some(true)
        })
        .await
    }

    pub(crate) fn pid(&self) -> Pid {
        let running = self.lock();
        let running = running.as_ref().unwrap_or_else(|| panic!("{} doesn't run", self.name));
        Pid::from_raw(running.child.id().cast_signed())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// A crash. Returns when it is gone.
    pub(crate) async fn kill(&self) {
        self.signal(Signal::SIGKILL);
        let status = self.ended().await;
        let killed = status.signal() == Some(9);
        assert!(killed, "{} had ended by itself, {status}: {}", self.name, self.last_words());
    }

    /// As an operator would. Returns when it is gone, with how it ended.
    pub(crate) async fn terminate(&self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.ended().await
    }

    /// Waits until it is gone.
    pub(crate) async fn ended(&self) -> ExitStatus {
        let what = format!("{} ends", self.name);
        let status = until(LIMIT, &what, async || self.exit_status()).await;
        let running = self.lock().take();
        running.unwrap().dismiss();
        status
    }

    /// How it ended, if it has.
    fn exit_status(&self) -> Option<ExitStatus> {
        self.lock().as_mut()?.child.try_wait().unwrap()
    }

    /// Whether it was started, and not ended by the test.
    pub(crate) fn is_running(&self) -> bool {
        self.lock().is_some()
    }

    /// What health says about its breaker on this dependency.
    pub(crate) async fn breaker(&self, dependency: Part) -> String {
        let health = self.client().get("/manage/health").send().await.json();
        let dependencies = health["components"]["dependencies"].as_array().unwrap().iter();
        let mut named = dependencies.filter(|found| found["name"] == dependency.name());
        named.next().unwrap()["state"].as_str().unwrap().to_owned()
    }

    /// Memory in KiB: its own, and its share of what it shares.
    pub(crate) fn pss(&self) -> u64 {
        stack_load::watch::memory(self.pid().as_raw()).unwrap()
    }

    /// All that it has said.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// The end of its log, for whoever reads a failed test.
    pub(super) fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(60)..];
        format!("--- {} ---\n{}\n", self.name, last.join("\n"))
    }

    /// A test that failed holding it has nothing to hide.
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    /// The process is gone and waited for: its pid may belong to somebody else from now on.
    fn dismiss(mut self) {
        if let Some(mut line) = self.line.take() {
            let _ = line.write_all(b"over\n");
        }
        let _ = self.guardian.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut running) = self.lock().take() {
            let _ = running.child.kill();
            let _ = running.child.wait();
            running.dismiss();
        }
    }
}
