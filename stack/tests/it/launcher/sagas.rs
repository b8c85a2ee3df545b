//! `sagas`: what an operator does about a refund that can't be completed.

use backing::process::wait_until;
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

use super::harness::{LIMIT, Launcher, folder, http, order, pid, program, refusal, run, status};
use super::{ALEX, ITEM};

fn read(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn refund_that_waits_for_a_part_is_listed_shown_and_retried() {
    let folder = folder();
    let path = folder.path();
    let error = refusal(program(path).arg("sagas"));
    assert!(error.contains("no launcher is running"), "{error}");

    let _launcher = Launcher::ready(path);
    let parts = status(path);
    let url = &parts["store"]["url"];
    let bought = read(&http(url, "POST", &format!("{ALEX}/purchase"), ITEM).1);
    let uid = bought["orderUid"].as_str().unwrap();
    // Nobody can say whether it has the item back.
    kill(pid(&parts["warehouse"]), Signal::SIGSTOP).unwrap();
    let (refused, body) = http(url, "DELETE", &format!("{ALEX}/{uid}/refund"), "");
    assert_eq!((refused, &read(&body)["code"]), (503, &json!("refund_pending")), "{body}");
    order(path, &["stop", "warehouse", "--kill"]);

    let list = order(path, &["sagas"]);
    assert!(list.contains("return: 1 running 0 compensating 0 stuck, the oldest for"), "{list}");
    let line = list.lines().find(|line| line.contains(uid)).unwrap();
    let id = line.split(' ').next().unwrap();
    assert_eq!(line, list.lines().last().unwrap(), "what has ended needs nobody: {list}");
    for (filter, found) in [("running", true), ("stuck", false), ("committed", false)] {
        let some = order(path, &["sagas", "list", "--state", filter, "--kind", "return"]);
        assert_eq!(some.contains(id), found, "{some}");
    }
    let shown = read(&order(path, &["sagas", "show", id]));
    assert_eq!((&shown["id"], &shown["forward"]), (&json!(id), &json!(true)), "{shown}");
    let steps = shown["steps"].as_array().unwrap().iter();
    let steps: Vec<_> = steps.map(|step| (&step["name"], &step["state"])).collect();
    let expected = json!([["look", "done"], ["close", "done"], ["give-back", "unknown"]]);
    assert_eq!(json!(steps), expected);

    // What is left of it is a deferred call of Order's, and found to be that.
    let calls = read(&order(path, &["deferred", "list", "--kind", "saga.resume", "--json"]));
    assert_eq!(calls["store"]["calls"], json!([]));
    let call = calls["order"]["calls"][0]["id"].as_str().unwrap();
    assert_eq!(read(&order(path, &["deferred", "show", call]))["payload"]["saga"], json!(id));
    // Not while it is being tried.
    let retried = |command: &str, id: &str, told: &str| {
        assert!(wait_until(LIMIT, || {
            let output = run(path, &[command, "retry", id]);
            output.status.success() && String::from_utf8(output.stdout).unwrap().starts_with(told)
        }));
    };
    retried("deferred", call, &format!("saga.resume {call} of order is on its way: "));
    retried("sagas", id, &format!("return {id} is on its way: running"));

    order(path, &["start", "warehouse"]);
    let ended = || order(path, &["sagas", "list", "--state", "committed", "--json"]).contains(id);
    assert!(wait_until(LIMIT, ended));
    let (_, shown) = http(url, "GET", &format!("{ALEX}/{uid}"), "");
    assert_eq!(read(&shown)["status"], "CANCELED", "{shown}");

    let error = refusal(program(path).args(["sagas", "retry", id]));
    assert!(error.contains("404 not_found"), "{error}");
    order(path, &["stop", "order"]);
    for command in [&["sagas"][..], &["sagas", "show", id], &["deferred", "show", call]] {
        let error = refusal(program(path).args(command));
        assert!(error.contains("order is not running; start it with"), "{error}");
    }
}
