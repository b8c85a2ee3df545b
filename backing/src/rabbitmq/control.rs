//! What is asked of a running node past AMQP.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::Duration;

use super::Node;
use super::programs::Programs;
use crate::error::{Error, failed_to};

static TURN: Mutex<()> = Mutex::new(());

/// How often a node is asked that doesn't take the connection, and how long after each time.
const TRIES: u32 = 40;
const PAUSE: Duration = Duration::from_millis(250);

impl Node {
    /// Has the running node evaluate Erlang's `expression` (without its full stop) and returns the
    /// value as Erlang writes it. It takes some 10 ms, where `rabbitmqctl`, which has the node do
    /// the same, takes a second to start. Gives up after `limit` seconds.
    pub(super) fn evaluate(&self, expression: &str, limit: u32) -> Result<String, Error> {
        let path = self.folder.join("distribution.port");
        let port =
            fs::read_to_string(&path).map_err(failed_to(|| format!("read {}", path.display())))?;
        let call = || {
            let mut command = self.program(&Programs::erl_call()?);
            command.arg("-address").arg(format!("127.0.0.1:{port}"));
            command.args(["-r", "-timeout", &limit.to_string(), "-e"]);
            run(command, "erl_call", &format!("{expression}.\n"))
        };
        // One at a time: a node that has just started, or is busy, refuses several of them at once.
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut output = call()?;
        for _ in 0..TRIES {
            if !String::from_utf8_lossy(&output.stderr).contains("failed to connect") {
                break;
            }
            sleep(PAUSE);
            output = call()?;
        }
        let said = String::from_utf8_lossy(&output.stdout);
        match said.trim().strip_prefix("{ok, ").and_then(|said| said.strip_suffix('}')) {
            Some(value) => Ok(value.to_owned()),
            None => Err(failure("erl_call", &output)),
        }
    }

    /// The output of RabbitMQ's own `rabbitmqctl`.
    pub(super) fn rabbitmqctl(&self, arguments: &[&str]) -> Result<String, Error> {
        let mut command = self.program(&self.folder.join("rabbitmqctl"));
        command.args(arguments);
        let output = run(command, "rabbitmqctl", "")?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(failure("rabbitmqctl", &output))
        }
    }
}

/// A binary, as Erlang's source has it.
pub(super) fn binary(text: &str) -> String {
    format!("<<\"{}\"/utf8>>", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn run(mut command: Command, program: &'static str, input: &str) -> Result<Output, Error> {
    let failed = || failed_to(move || format!("run {program}"));
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed())?;
    if let Some(mut stdin) = child.stdin.take() {
        // It may have ended without reading: what it said tells why.
        let _ = stdin.write_all(input.as_bytes());
    }
    child.wait_with_output().map_err(failed())
}

fn failure(program: &'static str, output: &Output) -> Error {
    let said = [&output.stderr, &output.stdout].map(|said| String::from_utf8_lossy(said));
    let said = said.iter().map(|said| said.trim()).find(|said| !said.is_empty());
    Error::Program { program, said: said.unwrap_or("it said nothing").to_owned() }
}
