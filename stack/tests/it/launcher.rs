//! The launcher as its user meets it: the real program in a folder of its own, on any free ports.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails where it is")]

mod broker;
mod deferred;
mod doctor;
mod drill;
pub(crate) mod harness;
mod locked;
mod sagas;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use backing::postgres::testing::TestCluster;
use backing::process::{in_folder, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use self::harness::{
    LIMIT, Launcher, SERVICES, folder, folder_with_mode, gone, http, is_ready, order, pid, program,
    refusal, run, status, with_broker,
};

const ALEX: &str = "/api/v1/store/6d2cb5a0-943c-4b96-9aa6-89eac7bdfd2b";
const ITEM: &str = r#"{"model":"Lego 8070","size":"M"}"#;

/// Every process of these parts, PostgreSQL's own children included, is gone, and so is the state.
#[track_caller]
fn assert_nothing_is_left(folder: &Path, parts: &BTreeMap<String, Value>) {
    for part in parts.values().filter(|part| !part["pid"].is_null()) {
        assert!(gone(pid(part)), "{part} still runs");
    }
    let folder = folder.canonicalize().unwrap();
    assert!(in_folder("postgres", &folder.join("postgres/data")).is_empty());
    assert!(in_folder("beam.smp", &folder.join("rabbitmq")).is_empty());
    assert!(!folder.join("state.json").exists() && !folder.join("control.sock").exists());
}

#[test]
fn status_says_what_runs_and_where() {
    let folder = folder();
    let _launcher = Launcher::ready(folder.path());

    let text = order(folder.path(), &["status", "--json"]);
    let names = text.lines().filter(|line| line.contains("\"name\"")).map(str::trim);
    let expected = ["store", "order", "warehouse", "warranty", "postgres", "rabbitmq"]
        .map(|name| format!("\"name\": \"{name}\","));
    assert_eq!(names.collect::<Vec<_>>(), expected);

    let parts = status(folder.path());
    let postgres = parts["postgres"]["url"].as_str().unwrap();
    let server = postgres.strip_suffix("/postgres").unwrap();
    for name in SERVICES {
        let part = &parts[name];
        assert_eq!(part["state"], "running");
        assert!(is_ready(part));
        assert_eq!(part["database"], format!("{server}/{name}"));
        let log = part["log"].as_str().unwrap();
        assert!(Path::new(log).is_absolute() && Path::new(log).is_file());
        assert!(!gone(pid(part)));
    }
    assert_eq!(parts["postgres"]["state"], "running");
    assert_eq!(
        parts["rabbitmq"],
        json!({"name": "rabbitmq", "state": "absent", "pid": null, "url": null,
               "database": null, "log": null})
    );
}

#[test]
fn stop_returns_when_it_is_gone_and_start_when_it_is_ready() {
    let folder = folder();
    let _launcher = Launcher::ready(folder.path());
    let path = folder.path();
    for stop in [&["stop", "warehouse"][..], &["stop", "warehouse", "--kill"]] {
        let before = status(path)["warehouse"].clone();
        order(path, stop);
        assert!(gone(pid(&before)));
        let stopped = status(path)["warehouse"].clone();
        assert_eq!((&stopped["state"], &stopped["pid"]), (&json!("stopped"), &Value::Null));
        assert_eq!(stopped["url"], before["url"]);
        order(path, stop);

        order(path, &["start", "warehouse"]);
        let after = status(path)["warehouse"].clone();
        assert!(is_ready(&after));
        assert_eq!(after["url"], before["url"]);
        order(path, &["start", "warehouse"]);
        assert_eq!(status(path)["warehouse"], after);
    }

    // Frozen, it goes on when it is started.
    let frozen = pid(&status(path)["warehouse"]);
    order(path, &["freeze", "warehouse"]);
    assert!(is_frozen(frozen));
    order(path, &["start", "warehouse"]);
    assert!(!is_frozen(frozen) && is_ready(&status(path)["warehouse"]));
    // A frozen process hears SIGTERM only once it goes on.
    order(path, &["freeze", "warehouse"]);
    order(path, &["stop", "warehouse"]);
    assert!(gone(frozen));
    order(path, &["start", "warehouse"]);
}

#[test]
fn postgres_comes_back_on_the_same_port_with_the_same_data() {
    let folder = folder();
    let _launcher = Launcher::ready(folder.path());
    let path = folder.path();
    let before = status(path);
    for stop in [&["stop", "postgres"][..], &["stop", "postgres", "--kill"]] {
        let buy = || http(&before["store"]["url"], "POST", &format!("{ALEX}/purchase"), ITEM).0;
        assert!(wait_until(LIMIT, || buy() == 201));
        order(path, stop);
        assert!(TcpStream::connect(postgres_address(&before)).is_err());
        order(path, &["start", "postgres"]);
        assert_eq!(status(path)["postgres"]["url"], before["postgres"]["url"]);
    }
    assert!(wait_until(LIMIT, || orders(&before["store"]).is_some_and(|orders| orders >= 2)));
}

fn is_frozen(pid: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().any(|line| line.starts_with("State:\tT"))
}

fn orders(store: &Value) -> Option<usize> {
    let (status, body) = http(&store["url"], "GET", &format!("{ALEX}/orders"), "");
    (status == 200).then(|| serde_json::from_str::<Vec<Value>>(&body).unwrap().len())
}

fn postgres_address(parts: &BTreeMap<String, Value>) -> &str {
    let url = parts["postgres"]["url"].as_str().unwrap();
    url.split_once('@').unwrap().1.strip_suffix("/postgres").unwrap()
}

#[test]
fn part_that_dies_is_reported_and_stays_down_until_it_is_started() {
    let folder = folder();
    let mut launcher = Launcher::ready(folder.path());
    let victim = pid(&status(folder.path())["warranty"]);
    kill(victim, Signal::SIGKILL).unwrap();
    assert_eq!(
        launcher.wait_for("warranty"),
        format!(
            "warranty (pid {victim}) ended: signal 9; start it again with cargo run -- start warranty"
        )
    );
    assert_eq!(status(folder.path())["warranty"]["state"], "stopped");
    assert_eq!(status(folder.path())["order"]["state"], "running");
    order(folder.path(), &["start", "warranty"]);
    assert!(is_ready(&status(folder.path())["warranty"]));
}

#[test]
fn ctrl_c_leaves_nothing_running_and_the_data_for_the_next_run() {
    let folder = folder();
    let mut first = Launcher::ready(folder.path());
    let parts = status(folder.path());
    let (status_code, body) =
        http(&parts["store"]["url"], "POST", &format!("{ALEX}/purchase"), ITEM);
    assert_eq!(status_code, 201, "{body}");
    first.signal(Signal::SIGINT);
    assert!(first.wait().success());
    assert_nothing_is_left(folder.path(), &parts);

    let mut second = Launcher::ready(folder.path());
    let parts = status(folder.path());
    assert_eq!(orders(&parts["store"]), Some(1));
    second.signal(Signal::SIGTERM);
    assert!(second.wait().success());
    assert_nothing_is_left(folder.path(), &parts);
}

#[test]
fn second_ctrl_c_waits_for_nobody() {
    let folder = folder();
    let mut launcher = Launcher::ready(folder.path());
    let parts = status(folder.path());
    // A request without its end: draining takes its time.
    let address = parts["store"]["url"].as_str().unwrap().strip_prefix("http://").unwrap();
    let mut held = TcpStream::connect(address).unwrap();
    held.write_all(format!("POST {ALEX}/purchase HTTP/1.1\r\n").as_bytes()).unwrap();
    let begin = Instant::now();
    launcher.signal(Signal::SIGINT);
    launcher.wait_for("stopping everything");
    launcher.signal(Signal::SIGINT);
    assert!(launcher.wait().success());
    assert!(begin.elapsed() < Duration::from_secs(8), "it waited: {:?}", begin.elapsed());
    assert_nothing_is_left(folder.path(), &parts);
}

#[test]
fn signal_while_starting_leaves_nothing_running() {
    let folder = folder();
    // The first sign of life comes once the cluster is there, the socket before.
    let mut launcher = Launcher::spawn(&mut program(folder.path()));
    assert!(wait_until(LIMIT, || folder.path().join("state.json").exists()));
    let state: Value =
        serde_json::from_slice(&fs::read(folder.path().join("state.json")).unwrap()).unwrap();
    launcher.signal(Signal::SIGINT);
    assert!(launcher.wait().success());
    let parts = state["processes"].as_array().unwrap().iter();
    let parts = parts.map(|part| (part["name"].to_string(), part.clone())).collect();
    assert_nothing_is_left(folder.path(), &parts);
}

#[test]
fn killed_launcher_s_parts_are_ended_by_the_next_one() {
    let folder = folder();
    let mut first = Launcher::ready(folder.path());
    let left = status(folder.path());
    // Even one that can't hear.
    kill(pid(&left["order"]), Signal::SIGSTOP).unwrap();
    first.signal(Signal::SIGKILL);
    first.wait();
    assert!(!gone(pid(&left["store"])) && !gone(pid(&left["postgres"])));
    assert_eq!(status(folder.path())["store"]["state"], "stopped");

    let mut second = Launcher::spawn(&mut program(folder.path()));
    let store = pid(&left["store"]);
    let report = format!("stopping store (pid {store}), left by a launcher that was killed");
    assert_eq!(second.wait_for("stopping store"), report);
    second.wait_for("stopping postgres");
    second.wait_for("The store is ready");
    for part in left.values().filter(|part| !part["pid"].is_null()) {
        assert!(gone(pid(part)), "{part} still runs");
    }
    let parts = status(folder.path());
    assert_eq!(parts["postgres"]["url"], left["postgres"]["url"]);
    drop(second);
    assert_nothing_is_left(folder.path(), &parts);
}

#[test]
fn second_launcher_is_refused_and_told_the_first_one_s_pid() {
    let folder = folder();
    let first = Launcher::ready(folder.path());
    let error = refusal(&mut program(folder.path()));
    assert!(error.contains(&format!("(pid {})", first.child.id())), "{error}");
    assert!(is_ready(&status(folder.path())["store"]));
}

#[test]
fn taken_port_is_one_line_and_nothing_is_started() {
    let folder = folder();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (part, variable) in [("order", "ORDER"), ("postgres", "POSTGRES")] {
        let error = refusal(program(folder.path()).env(format!("{variable}_PORT"), &port));
        assert!(error.contains(&format!("port {port} of {part} is taken by it-")), "{error}");
        let pid = format!("(pid {}); {variable}_PORT", std::process::id());
        assert!(error.contains(&pid), "{error}");
        assert_nothing_is_left(folder.path(), &BTreeMap::new());
    }
}

#[test]
fn without_a_launcher_everything_is_stopped_and_orders_are_refused() {
    let folder = folder();
    let parts = status(folder.path());
    for name in SERVICES.into_iter().chain(["postgres"]) {
        assert_eq!(parts[name]["state"], "stopped");
        assert_eq!(parts[name].as_object().unwrap().len(), 6);
    }
    for command in ["start", "stop"] {
        let error = refusal(program(folder.path()).args([command, "store"]));
        assert!(error.contains("no launcher is running"), "{error}");
    }
    let usage = run(folder.path(), &["stop", "shop"]);
    assert_eq!(usage.status.code(), Some(2));
    assert!(String::from_utf8(usage.stderr).unwrap().contains("store, order, warehouse"));
}

#[test]
fn what_is_missing_or_wrong_gets_one_line() {
    let folder = folder();
    let error = refusal(program(folder.path()).env("PG_BINDIR", "/nowhere"));
    assert!(error.contains("PG_BINDIR must be the folder"), "{error}");
    let error = refusal(with_broker(folder.path()).env("RABBITMQ_BINDIR", "/nowhere"));
    assert!(error.contains("RABBITMQ_BINDIR must be the folder"), "{error}");
    let error = refusal(program(folder.path()).env("AMQP_URL", "localhost"));
    assert!(error.contains("AMQP_URL must be like amqp://"), "{error}");
    let error = refusal(program(folder.path()).env("ORDER_DATABASE_URL", "postgres://x"));
    assert!(error.contains("set STORE_DATABASE_URL, WAREHOUSE_DATABASE_URL"), "{error}");
    let error = refusal(program(folder.path()).env("STORE_PORT", "http"));
    assert!(error.contains("STORE_PORT must be a port"), "{error}");
    assert_nothing_is_left(folder.path(), &BTreeMap::new());
}

#[test]
fn given_databases_are_used_and_no_cluster_is_made() {
    let cluster = TestCluster::shared();
    let folder = folder();
    let mut command = program(folder.path());
    let databases = SERVICES.map(|service| {
        let made = |_: &str| Ok::<(), std::convert::Infallible>(());
        (service, cluster.database(&format!("given_{service}"), made))
    });
    for (service, database) in &databases {
        command.env(format!("{}_DATABASE_URL", service.to_uppercase()), database.url());
    }
    let mut launcher = Launcher::spawn(&mut command);
    launcher.wait_for("The store is ready");
    let parts = status(folder.path());
    for (service, database) in &databases {
        assert_eq!(parts[*service]["database"], database.url());
    }
    assert_eq!(parts["postgres"]["state"], "absent");
    assert!(!folder.path().join("postgres").exists());
    let error = refusal(program(folder.path()).args(["stop", "postgres"]));
    assert!(error.contains("postgres is absent"), "{error}");
    let error = refusal(program(folder.path()).arg("drill"));
    assert!(error.contains("the databases are somebody's"), "{error}");
}

#[test]
fn folder_out_of_postgres_s_reach_is_replaced_and_said_so() {
    if !nix::unistd::geteuid().is_root() {
        // An ordinary user runs PostgreSQL itself, and reaches its own folders.
        return;
    }
    let folder = folder_with_mode(0o700);
    let mut launcher = Launcher::spawn(&mut program(folder.path()));
    let line = launcher.wait_for("never as root");
    let (_, data) = line.split_once("so its data is in ").expect(&line);
    launcher.wait_for("The store is ready");
    assert!(Path::new(data).join("data/PG_VERSION").is_file());
    drop(launcher);
    fs::remove_dir_all(data).unwrap();
}

#[test]
fn ctrl_c_under_load_leaves_no_purchase_half_done() {
    let folder = folder();
    let mut launcher = Launcher::ready(folder.path());
    let url = status(folder.path())["store"]["url"].clone();
    let ended = AtomicBool::new(false);
    let bought = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    let buy = || http(&url, "POST", &format!("{ALEX}/purchase"), ITEM).0 == 201;
                    // Refused connections end a test's request by a panic: that is the end.
                    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(buy)) {
                        Ok(true) => drop(bought.fetch_add(1, Ordering::Relaxed)),
                        Ok(false) => {}
                        Err(_) => return,
                    }
                }
            });
        }
        assert!(wait_until(LIMIT, || bought.load(Ordering::Relaxed) > 20));
        launcher.signal(Signal::SIGINT);
        assert!(launcher.wait().success());
        ended.store(true, Ordering::Relaxed);
    });
    let _launcher = Launcher::ready(folder.path());
    let parts = status(folder.path());
    let number = |part: &str, sql: &str| {
        let url = parts[part]["database"].as_str().unwrap();
        service::testing::sql::number(url, sql)
    };
    let paid = number("order", "SELECT count(*) FROM orders WHERE status = 'PAID'");
    let left = number("warehouse", "SELECT sum(available_count) FROM items");
    let open = number("warranty", "SELECT count(*) FROM warranty WHERE status = 'ON_WARRANTY'");
    assert_eq!((30_000 - left, open), (paid, paid));
    assert!(usize::try_from(paid).unwrap() >= bought.load(Ordering::Relaxed));
}
