//! `drill`, as a newcomer runs it: beside a running store, and where none runs.

use std::path::Path;
use std::time::Duration;

use backing::process::wait_until;
use diesel::connection::SimpleConnection as _;
use diesel::{Connection as _, PgConnection};
use nix::sys::signal::Signal;
use serde_json::Value;
use service::testing::sql;
use storm::sql::rows;

use super::harness::{Launcher, folder, http, is_ready, order, pid, program, refusal, run, status};
use super::{ALEX, ITEM, LIMIT, assert_nothing_is_left, is_frozen};

/// A drill, and the minute after which nothing is under way any more: a bound, and no promise.
const LONG: Duration = Duration::from_mins(4);

/// Of these choices something is frozen after some five seconds.
const SEED: &str = "1";

/// Everything runs, and can be used.
#[track_caller]
fn assert_whole(folder: &Path) {
    let parts = status(folder);
    let running = parts.values().filter(|part| part["state"] != "absent");
    for part in running {
        assert_eq!(part["state"], "running", "{part}");
        assert!(!is_frozen(pid(part)), "{part}");
        let service = !part["database"].is_null();
        assert!(!service || wait_until(LIMIT, || is_ready(part)), "{part}");
    }
}

/// Nothing of a drill watches what happens in the databases.
#[track_caller]
fn assert_forgotten(folder: &Path) {
    let notes = "(SELECT count(*) FROM information_schema.schemata WHERE schema_name = 'drill')";
    for part in status(folder).values().filter_map(|part| part["database"].as_str()) {
        assert!(wait_until(LIMIT, || sql::number(part, notes) == 0));
    }
}

fn orders_of(folder: &Path) -> String {
    status(folder)["order"]["database"].as_str().unwrap().to_owned()
}

/// What somebody else has.
fn of_alex(folder: &Path) -> (Value, Vec<[String; 3]>) {
    let parts = status(folder);
    let (code, orders) = http(&parts["store"]["url"], "GET", &format!("{ALEX}/orders"), "");
    assert_eq!(code, 200, "{orders}");
    let stock = rows(
        parts["warehouse"]["database"].as_str().unwrap(),
        "SELECT model AS a, size AS b, available_count::text AS c FROM items
         WHERE model NOT LIKE 'Rare %' ORDER BY id",
    );
    (serde_json::from_str(&orders).unwrap(), stock.unwrap())
}

#[test]
fn drill_shows_every_promise_kept_and_leaves_the_store_and_others_data_as_they_were() {
    let folder = folder();
    let path = folder.path();
    let mut launcher = Launcher::spawn(program(path).arg("--locked"));
    launcher.wait_for("The store is ready");
    let store = status(path)["store"]["url"].clone();
    let buy = || http(&store, "POST", &format!("{ALEX}/purchase"), ITEM).0 == 201;
    assert!(wait_until(LIMIT, buy));
    let before = of_alex(path);

    let drill = run(path, &["drill", "--seconds", "8", "--seed", SEED]);
    let printed = String::from_utf8(drill.stdout).unwrap();
    assert!(drill.status.success(), "{printed}");
    assert!(
        printed.contains("every promise held; again: cargo run -- drill --seed 1"),
        "{printed}"
    );
    let table = printed.lines().filter(|line| line.starts_with("| ") && line.contains("| yes  |"));
    assert_eq!(table.count(), 12, "{printed}");
    let seconds = printed.lines().filter(|line| line.contains(" s  bought "));
    assert!(seconds.count() >= 8, "{printed}");
    assert!(printed.contains("| store frozen"), "{printed}");
    assert_whole(path);
    assert_eq!(of_alex(path), before);
    assert_forgotten(path);

    // Ended early, it still says what it has seen.
    let mut early = Launcher::spawn(program(path).args(["drill", "--seed", SEED]));
    early.wait_for("| store frozen");
    early.wait_until("a purchase rolled back, and something frozen", |line| {
        line.contains("frozen") && !line.contains("rolled back 0,")
    });
    let second = refusal(program(path).arg("drill"));
    assert!(second.contains("a drill is going on already"), "{second}");
    early.signal(Signal::SIGINT);
    let (code, printed) = early.end(LONG);
    assert!(code.success() && printed.contains("ending early"), "{printed}");
    assert!(printed.contains("every promise held"), "{printed}");
    assert_whole(path);

    // Killed, it says nothing, and the launcher mends what it has broken.
    let mut killed = Launcher::spawn(program(path).args(["drill", "--seed", SEED]));
    killed.wait_for("| store frozen");
    killed.signal(Signal::SIGKILL);
    killed.wait();
    launcher.wait_for("the drill is over");
    assert_whole(path);
    assert_forgotten(path);

    // Where nothing was broken, nothing has held.
    let idle = run(path, &["drill", "--seconds", "1", "--seed", SEED]);
    let printed = String::from_utf8(idle.stdout).unwrap();
    assert_eq!(idle.status.code(), Some(1), "{printed}");
    assert!(printed.contains("| ?    | not tried; nothing was broken"), "{printed}");
    assert!(printed.contains("NOT every promise was tried"), "{printed}");

    // Whatever it waits for, Ctrl-C is heard.
    let mut holder = PgConnection::establish(orders_of(path).as_str()).unwrap();
    holder.batch_execute("BEGIN; LOCK TABLE orders").unwrap();
    let mut stuck = Launcher::spawn(program(path).args(["drill", "--seed", SEED]));
    stuck.wait_for("   1 s  bought 0");
    stuck.signal(Signal::SIGINT);
    stuck.wait_for("ending early");
    stuck.signal(Signal::SIGINT);
    let (code, printed) = stuck.end(LIMIT);
    assert_eq!(code.code(), Some(1), "{printed}");
    assert!(printed.contains("left in the databases: 302 made-up users (0c00"), "{printed}");
    drop(holder);
    launcher.wait_for("the drill is over");
    assert_forgotten(path);
    assert_whole(path);

    // What isn't whole is not broken further, nor mended.
    order(path, &["freeze", "warranty"]);
    let frozen = refusal(program(path).arg("drill"));
    assert!(frozen.contains("warranty says nothing, as if it were frozen"), "{frozen}");
    assert!(is_frozen(pid(&status(path)["warranty"])));
    order(path, &["start", "warranty"]);
    order(path, &["freeze", "postgres"]);
    let frozen = refusal(program(path).arg("drill"));
    assert!(frozen.contains("store is not well"), "{frozen}");
    order(path, &["start", "postgres"]);
    order(path, &["stop", "warranty"]);
    let down = refusal(program(path).arg("drill"));
    assert!(down.contains("warranty is not running; start it with"), "{down}");
}

#[test]
fn drill_on_a_store_of_its_own_ends_with_1_when_a_promise_is_broken() {
    let folder = folder();
    let path = folder.path();
    let own = path.join("drill");
    let drill = ["drill", "--seconds", "8", "--seed", SEED];
    let mut broken = Launcher::spawn(program(path).args(drill));
    broken.wait_for("   1 s  bought ");
    let second = refusal(program(path).arg("drill"));
    assert!(second.contains("a drill is going on already"), "{second}");
    let parts = status(&own);
    let orders = &orders_of(&own);
    // Those that their users know of: they have been told for a second.
    let told = "orders WHERE order_uid::text NOT LIKE '0a00%' AND user_uid::text LIKE '0c00%'
                AND status = 'PAID' AND order_date < clock_timestamp() - interval '1 s'";
    assert!(
        wait_until(LIMIT, || sql::number(orders, &format!("(SELECT count(*) FROM {told})")) > 0)
    );
    sql::execute(orders, &format!("DELETE FROM {told}")).unwrap();
    let (code, printed) = broken.end(LONG);
    assert_eq!(code.code(), Some(1), "{printed}");
    for promise in ["what was bought is there", "orders, items, warranties and stock add up"] {
        let mut rows = printed.lines().filter(|line| line.starts_with(&format!("| {promise}")));
        assert!(rows.any(|row| row.contains("| NO   | broken")), "{promise}: {printed}");
    }
    assert!(printed.contains(": what was bought is gone: Record"), "{printed}");
    assert!(printed.contains("NOT every promise held"), "{printed}");
    assert_nothing_is_left(&own, &parts);

    // It ends with the drill, however that ends.
    let mut killed = Launcher::spawn(program(path).args(drill));
    killed.wait_for("   1 s  bought ");
    let parts = status(&own);
    killed.signal(Signal::SIGKILL);
    killed.wait();
    assert!(wait_until(LIMIT, || !own.join("state.json").exists()));
    assert_nothing_is_left(&own, &parts);
}
