//! `sagas`: what an operator does about a purchase that can't be taken back.

use backing::process::wait_until;
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

use super::harness::{LIMIT, Launcher, folder, http, order, pid, program, refusal, run, status};
use super::{ALEX, ITEM};

fn read(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn purchase_that_waits_to_be_taken_back_is_listed_shown_and_retried() {
    let folder = folder();
    let path = folder.path();
    let error = refusal(program(path).arg("sagas"));
    assert!(error.contains("no launcher is running"), "{error}");

    let _launcher = Launcher::ready(path);
    let parts = status(path);
    // Nobody can say whether it has started the warranty, and have it undone.
    kill(pid(&parts["warranty"]), Signal::SIGSTOP).unwrap();
    let (refused, body) = http(&parts["store"]["url"], "POST", &format!("{ALEX}/purchase"), ITEM);
    assert_eq!((refused, &read(&body)["code"]), (503, &json!("rollback_pending")), "{body}");
    order(path, &["stop", "warranty", "--kill"]);

    let open = read(&order(path, &["sagas", "list", "--kind", "place", "--json"]));
    assert_eq!(open["sagas"].as_array().unwrap().len(), 1, "{open}");
    let id = open["sagas"][0]["id"].as_str().unwrap();
    let list = order(path, &["sagas"]);
    assert!(list.contains("place: 0 running 1 compensating 0 stuck, the oldest for"), "{list}");
    let line = format!("\n{id}  place      compensating  ");
    let (_, line) = list.split_once(&line).unwrap_or_else(|| panic!("{list}"));
    assert!(line.lines().next().unwrap().contains("warranty"), "why: {list}");
    for (state, found) in [("compensating", true), ("stuck", false), ("committed", false)] {
        let some = order(path, &["sagas", "list", "--state", state, "--kind", "place"]);
        assert_eq!(some.contains(id), found, "{some}");
    }
    let shown = read(&order(path, &["sagas", "show", id]));
    assert_eq!((&shown["id"], &shown["forward"]), (&json!(id), &json!(false)), "{shown}");
    let steps = shown["steps"].as_array().unwrap().iter();
    let steps: Vec<_> = steps.map(|step| (&step["name"], &step["state"])).collect();
    assert_eq!(json!(steps), json!([["take", "undone"], ["start", "undo_deferred"]]));

    let key = open["sagas"][0]["key"].as_str().unwrap();
    let told = order(path, &["explain", key]);
    for line in [
        "place take: undone at warehouse",
        "place start: warranty may have done it: the answer was lost",
        "place start: its undo failed at warranty, and is made later",
        "still to happen:\n",
        "not told by:\n  warranty (connection refused)\n",
    ] {
        assert!(told.contains(line), "no {line} in {told}");
    }
    let json = read(&order(path, &["explain", key, "--json"]));
    assert_eq!(json["orderUid"], key);

    // What is left of it is a deferred call of Order's, and found to be that.
    let calls = read(&order(path, &["deferred", "list", "--kind", "saga.undo", "--json"]));
    assert_eq!(calls["store"]["calls"], json!([]));
    let call = calls["order"]["calls"][0]["id"].as_str().unwrap();
    assert_eq!(read(&order(path, &["deferred", "show", call]))["payload"]["saga"], json!(id));
    let retried = |command: &str, id: &str, told: &str| {
        // Not while it is being tried.
        assert!(wait_until(LIMIT, || {
            let output = run(path, &[command, "retry", id]);
            output.status.success() && String::from_utf8(output.stdout).unwrap().starts_with(told)
        }));
    };
    retried("deferred", call, &format!("saga.undo {call} of order is on its way: "));
    retried("sagas", id, &format!("place {id} is on its way: compensating"));

    order(path, &["start", "warranty"]);
    let ended = || order(path, &["sagas", "list", "--state", "compensated", "--json"]).contains(id);
    assert!(wait_until(LIMIT, ended));
    let items = parts["warehouse"]["database"].as_str().unwrap();
    let left = "SELECT sum(available_count) FROM items";
    assert_eq!(service::testing::sql::number(items, left), 30_000);

    let error = refusal(program(path).args(["sagas", "retry", id]));
    assert!(error.contains("404 not_found"), "{error}");
    order(path, &["stop", "order"]);
    for command in [&["sagas"][..], &["sagas", "show", id], &["deferred", "show", call]] {
        let error = refusal(program(path).args(command));
        assert!(error.contains("order is not running; start it with"), "{error}");
    }
}
