//! The launcher's own RabbitMQ, and what becomes of the store without it.

use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use backing::process::in_folder;
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

use super::assert_nothing_is_left;
use super::harness::{
    Launcher, folder, gone, is_ready, order, pid, program, refusal, status, with_broker,
};

/// Nodes that start take a processor for seconds each: one test after the other.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ready(command: &mut Command) -> Launcher {
    let mut launcher = Launcher::spawn(command);
    launcher.wait_for("The store is ready");
    launcher
}

/// The broker that a running part was told of.
fn told(part: &Value) -> Option<String> {
    let environment = std::fs::read(format!("/proc/{}/environ", pid(part))).unwrap();
    let mut variables = environment.split(|byte| *byte == 0);
    let found = variables.find_map(|variable| variable.strip_prefix(b"AMQP_URL="));
    found.map(|url| String::from_utf8(url.to_vec()).unwrap())
}

/// RabbitMQ's own tool, as the node's folder has it.
fn rabbitmqctl(folder: &Path, arguments: &[&str]) -> String {
    let program = folder.join("rabbitmq/rabbitmqctl");
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn rabbitmq_runs_where_it_is_installed_and_store_alone_is_told() {
    let _turn = turn();
    let folder = folder();
    let path = folder.path();
    let stopped = with_broker(path).args(["status", "--json"]).output().unwrap();
    let stopped: Value = serde_json::from_slice(&stopped.stdout).unwrap();
    assert_eq!(stopped["parts"][5]["state"], "stopped");

    let mut launcher = ready(&mut with_broker(path));
    let parts = status(path);
    let rabbitmq = &parts["rabbitmq"];
    assert_eq!((&rabbitmq["state"], &rabbitmq["database"]), (&json!("running"), &Value::Null));
    assert!(Path::new(rabbitmq["log"].as_str().unwrap()).is_file());
    assert_eq!(told(&parts["store"]).as_deref(), rabbitmq["url"].as_str());
    for other in ["order", "warehouse", "warranty"] {
        assert_eq!(told(&parts[other]), None, "{other}");
    }
    launcher.signal(Signal::SIGINT);
    assert!(launcher.wait().success());
    assert_nothing_is_left(path, &parts);
}

#[test]
fn rabbitmq_comes_back_on_the_same_port_with_what_it_was_given() {
    let _turn = turn();
    let folder = folder();
    let path = folder.path();
    let mut launcher = ready(&mut with_broker(path));
    let before = status(path)["rabbitmq"].clone();
    rabbitmqctl(path, &["add_vhost", "kept"]);
    for stop in [&["stop", "rabbitmq"][..], &["stop", "rabbitmq", "--kill"]] {
        let running = status(path)["rabbitmq"].clone();
        order(path, stop);
        assert!(gone(pid(&running)));
        assert!(TcpStream::connect(address(&before)).is_err());
        assert_eq!(status(path)["rabbitmq"]["state"], "stopped");
        // Nobody else minds.
        assert!(is_ready(&status(path)["store"]));
        order(path, &["start", "rabbitmq"]);
        assert_eq!(status(path)["rabbitmq"]["url"], before["url"]);
        assert!(rabbitmqctl(path, &["list_vhosts", "--silent"]).contains("kept"));
    }
    // Frozen, it hears SIGTERM only once it goes on.
    let frozen = pid(&status(path)["rabbitmq"]);
    kill(frozen, Signal::SIGSTOP).unwrap();
    launcher.signal(Signal::SIGINT);
    assert!(launcher.wait().success());
    assert!(gone(frozen));

    // From run to run, too.
    let _launcher = ready(&mut with_broker(path));
    assert_eq!(status(path)["rabbitmq"]["url"], before["url"]);
    assert!(rabbitmqctl(path, &["list_vhosts", "--silent"]).contains("kept"));
}

fn address(rabbitmq: &Value) -> &str {
    let (_, address) = rabbitmq["url"].as_str().unwrap().split_once('@').unwrap();
    address.strip_suffix("/%2f").unwrap()
}

#[test]
fn killed_launcher_s_rabbitmq_is_ended_by_the_next_one() {
    let _turn = turn();
    let folder = folder();
    let path = folder.path();
    let mut first = ready(&mut with_broker(path));
    let left = status(path)["rabbitmq"].clone();
    first.signal(Signal::SIGKILL);
    first.wait();
    assert!(!gone(pid(&left)));

    let mut second = Launcher::spawn(&mut with_broker(path));
    let report =
        format!("stopping rabbitmq (pid {}), left by a launcher that was killed", pid(&left));
    assert_eq!(second.wait_for("stopping rabbitmq"), report);
    second.wait_for("The store is ready");
    assert!(gone(pid(&left)));
    let parts = status(path);
    assert_eq!(parts["rabbitmq"]["url"], left["url"]);
    let home = path.canonicalize().unwrap().join("rabbitmq");
    assert_eq!(in_folder("beam.smp", &home), [pid(&parts["rabbitmq"])]);
}

#[test]
fn rabbitmq_that_does_not_start_is_no_reason_to_do_without_a_store() {
    let folder = folder();
    let path = folder.path();
    // Its data is a file.
    std::fs::create_dir(path.join("rabbitmq")).unwrap();
    std::fs::write(path.join("rabbitmq/data"), "").unwrap();
    let mut launcher = Launcher::spawn(&mut with_broker(path));
    let line = launcher.wait_for("rabbitmq ended before it was ready");
    assert!(line.contains("deferred calls run from the databases alone"), "{line}");
    launcher.wait_for("The store is ready");
    assert_eq!(status(path)["rabbitmq"]["state"], "stopped");
    assert!(is_ready(&status(path)["store"]));
}

#[test]
fn given_broker_is_used_and_an_unwanted_one_is_not_started() {
    let folder = folder();
    let path = folder.path();
    let given = "amqp://user:secret@127.0.0.1:1/vhost";
    for (url, reason) in [(given, "that of AMQP_URL"), ("none", "AMQP_URL is `none`")] {
        let mut launcher = Launcher::spawn(program(path).env("AMQP_URL", url));
        let line = launcher.wait_for("rabbitmq");
        assert!(line.contains("absent") && line.contains(reason), "{line}");
        launcher.wait_for("The store is ready");
        let parts = status(path);
        assert_eq!(
            parts["rabbitmq"],
            json!({"name": "rabbitmq", "state": "absent", "pid": null, "url": null,
                   "database": null, "log": null})
        );
        assert_eq!(told(&parts["store"]), Some(url.to_owned()).filter(|url| url != "none"));
        assert_eq!(told(&parts["order"]), None);
        let error = refusal(program(path).args(["start", "rabbitmq"]));
        assert!(error.contains("rabbitmq is absent") && error.contains(reason), "{error}");
        assert!(!path.join("rabbitmq").exists());
    }
}

#[test]
fn machine_without_rabbitmq_is_told_what_to_install_and_has_a_store() {
    // Out of the sight of this one launcher, where that may be done.
    let hide = "mount -t tmpfs none /usr/lib/rabbitmq && exec \"$@\"";
    let mut hidden = Command::new("unshare");
    hidden.args(["--mount", "sh", "-c", hide, "sh", "true"]).stderr(Stdio::null());
    if !hidden.status().is_ok_and(|status| status.success()) {
        return;
    }
    let folder = folder();
    let path = folder.path();
    let as_it_is = with_broker(path);
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", hide, "sh"]).arg(as_it_is.get_program());
    for (name, value) in as_it_is.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    // Not the wrappers either that the package has there.
    command.env("PATH", "/usr/bin:/bin").env_remove("RABBITMQ_BINDIR").process_group(0);
    let mut launcher = Launcher::spawn(&mut command);
    let line = launcher.wait_for("rabbitmq ");
    assert!(line.contains("absent") && line.contains("apt-get install rabbitmq-server"), "{line}");
    launcher.wait_for("The store is ready");
    assert_eq!(status(path)["rabbitmq"]["state"], "absent");
    assert_eq!(told(&status(path)["store"]), None);
}

#[test]
fn taken_port_of_rabbitmq_is_one_line() {
    let folder = folder();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let error = refusal(with_broker(folder.path()).env("RABBITMQ_PORT", &port));
    assert!(error.contains(&format!("port {port} of rabbitmq is taken by it-")), "{error}");
    assert!(error.contains("; RABBITMQ_PORT chooses another"), "{error}");
}
