//! `deferred`: what an operator does about the calls that services make later.

use backing::process::wait_until;
use serde_json::Value;

use super::harness::{LIMIT, Launcher, folder, http, order, program, refusal, run, status};
use super::{ALEX, ITEM};

#[test]
fn waiting_claim_is_listed_shown_discarded_and_retried() {
    let folder = folder();
    let path = folder.path();
    let error = refusal(program(path).arg("deferred"));
    assert!(error.contains("no launcher is running"), "{error}");

    let _launcher = Launcher::ready(path);
    let url = status(path)["store"]["url"].clone();
    let (_, bought) = http(&url, "POST", &format!("{ALEX}/purchase"), ITEM);
    let bought: Value = serde_json::from_str(&bought).unwrap();
    order(path, &["stop", "warranty"]);
    let claim = format!("{ALEX}/{}/warranty", bought["orderUid"].as_str().unwrap());
    let (accepted, body) = http(&url, "POST", &claim, r#"{"reason": "a brick is missing"}"#);
    assert_eq!(accepted, 202, "{body}");
    let body: Value = serde_json::from_str(&body).unwrap();
    let id = body["claimUid"].as_str().unwrap();

    let list = order(path, &["deferred"]);
    let (stores, orders) = list.split_once("\norder, broker: Absent\n").unwrap();
    assert!(stores.starts_with("store, broker: Absent\n") && stores.contains(id), "{list}");
    assert!(orders.contains("saga.undo: 0 pending") && !orders.contains(id), "{list}");
    let shown: Value = serde_json::from_str(&order(path, &["deferred", "show", id])).unwrap();
    assert_eq!((&shown["id"], &shown["kind"]), (&body["claimUid"], &Value::from("claim")));

    // Not while it is being tried.
    assert!(wait_until(LIMIT, || run(path, &["deferred", "discard", id]).status.success()));
    let parked = order(path, &["deferred", "list", "--state", "parked", "--kind", "claim"]);
    assert!(parked.contains(id) && parked.contains("discarded"), "{parked}");

    order(path, &["start", "warranty"]);
    let retried = order(path, &["deferred", "retry", id]);
    assert!(retried.contains(&format!("claim {id} of store is on its way")), "{retried}");
    let done = || order(path, &["deferred", "list", "--state", "done", "--json"]);
    assert!(wait_until(LIMIT, || done().contains(id)));

    let error = refusal(program(path).args(["deferred", "retry", id]));
    assert!(error.contains("409 wrong_state"), "{error}");
    let unknown = "00000000-0000-4000-8000-000000000000";
    let error = refusal(program(path).args(["deferred", "show", unknown]));
    assert!(error.contains("404 not_found"), "{error}");
    order(path, &["stop", "store"]);
    let error = refusal(program(path).args(["deferred", "show", id]));
    assert!(error.contains("store is not running"), "{error}");
    // What can be shown is.
    let list = run(path, &["deferred"]);
    assert_eq!(list.status.code(), Some(1));
    assert!(String::from_utf8(list.stdout).unwrap().starts_with("order, broker: Absent\n"));
    assert!(String::from_utf8(list.stderr).unwrap().contains("store is not running"));
}
