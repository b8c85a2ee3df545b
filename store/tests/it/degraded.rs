//! Reads while Order, Warehouse or Warranty is away.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use service::testing::network::{Act, DEFECT, RUBBISH, TAKEN_BACK};
use service::testing::{assert_envelope, operator, until};

use crate::systems::Party;
use crate::world::{PATIENT, SHORT, SOON, World, assert_blames};

/// What each of them owns of an element.
const ITEM: [&str; 2] = ["model", "size"];
const WARRANTY: [&str; 2] = ["warrantyDate", "warrantyStatus"];

fn party<'a>(world: &'a World, name: &str) -> &'a Party {
    if name == "warehouse" { &world.behind.warehouse } else { &world.behind.warranty }
}

/// The element without what these fields hold, and marked so.
fn without(element: &Value, fields: &[&str], degraded: &Value) -> Value {
    let mut element = element.clone();
    for field in fields {
        element[*field] = Value::Null;
    }
    element["degraded"] = degraded.clone();
    element
}

/// The element as it was, and marked so.
fn remembered(element: &Value, degraded: &Value) -> Value {
    let mut element = element.clone();
    element["degraded"] = degraded.clone();
    element["stale"] = degraded.clone();
    element
}

#[tokio::test]
async fn what_was_never_seen_is_null_and_marked_degraded() {
    let world = World::start().await;
    for (name, fields) in [("warehouse", ITEM), ("warranty", WARRANTY)] {
        let order = world.bought().await;
        party(&world, name).proxy.on("GET", Act::Reset);
        let degraded = world.get(order).send().await.ok();
        let listed = world.list().send().await.ok();
        party(&world, name).proxy.heal();
        let whole = world.get(order).send().await.ok();
        assert_eq!(degraded, without(&whole, &fields, &json!([name])));
        assert_eq!(listed[0], degraded);
        // Nothing is marked where nothing is missing.
        assert!(whole.get("degraded").is_none() && whole.get("stale").is_none());
    }
}

#[tokio::test]
async fn what_was_seen_is_shown_again_and_marked_stale() {
    let world = World::start().await;
    let order = world.bought().await;
    let whole = world.get(order).send().await.ok();
    for name in ["warehouse", "warranty"] {
        party(&world, name).proxy.on("GET", Act::Reset);
        let expected = remembered(&whole, &json!([name]));
        // With the breaker open as well.
        for _ in 0..5 {
            assert_eq!(world.get(order).send().await.ok(), expected);
            let list = world.list().send().await;
            assert_eq!(list.header("x-total-count"), Some("1"));
            assert_eq!(list.ok(), json!([expected]));
        }
        party(&world, name).proxy.heal();
        until(SOON, "whole again", async || {
            (world.get(order).send().await.ok() == whole).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn with_both_away_each_order_shows_what_is_known_of_it() {
    let world = World::start().await;
    let seen = world.bought().await;
    let whole = world.get(seen).send().await.ok();
    let unseen = world.bought().await;
    world.behind.warehouse.proxy.down().await;
    world.behind.warranty.proxy.down().await;
    let both = json!(["warehouse", "warranty"]);
    assert_eq!(world.get(seen).send().await.ok(), remembered(&whole, &both));
    let list = world.list().send().await.ok();
    assert_eq!(list[1], remembered(&whole, &both));
    let fields = [ITEM, WARRANTY].concat();
    assert_eq!(list[0], without(&list[0], &fields, &both));
    assert_eq!(list[0]["orderUid"], json!(unseen));
    assert!(list[0].get("stale").is_none(), "{list}");
}

#[tokio::test]
async fn what_went_through_the_store_is_remembered_as_it_went() {
    let world = World::start().await;
    let order = world.bought().await;
    let whole = world.get(order).send().await.ok();
    world.claim(order, "broken").send().await.ok();
    let away = json!(["warranty"]);
    let mut expected = remembered(&whole, &away);
    world.behind.warranty.proxy.on("GET", Act::Reset);
    expected["warrantyStatus"] = json!("USE_WARRANTY");
    assert_eq!(world.get(order).send().await.ok(), expected);
    world.behind.warranty.proxy.heal();
    until(SOON, "refunded", async || {
        (world.refund(order).send().await.status == 204).then_some(())
    })
    .await;
    world.behind.warranty.proxy.down().await;
    expected["warrantyStatus"] = json!("REMOVED_FROM_WARRANTY");
    expected["status"] = json!("CANCELED");
    assert_eq!(world.get(order).send().await.ok(), expected);
}

#[tokio::test]
async fn an_item_that_is_not_known_is_null_and_nobody_is_to_blame() {
    let world = World::start().await;
    let order = world.bought().await;
    world.get(order).send().await.ok();
    world.behind.warehouse.execute("DELETE FROM order_item");
    let shown = world.get(order).send().await.ok();
    assert_eq!(shown["model"], Value::Null);
    assert!(shown.get("degraded").is_none(), "{shown}");
}

#[tokio::test]
async fn however_a_system_fails_it_is_as_if_it_were_down() {
    let world = World::with(SHORT).await;
    let order = world.bought().await;
    for act in [Act::Reset, Act::LoseAnswer, DEFECT, RUBBISH, Act::Hang] {
        for name in ["warehouse", "warranty"] {
            let whole = until(SOON, "whole", async || {
                let answer = world.get(order).send().await;
                let whole = answer.status == 200 && answer.json().get("degraded").is_none();
                whole.then(|| answer.ok())
            })
            .await;
            party(&world, name).proxy.on("GET", act.clone());
            let shown = world.get(order).send().await.ok();
            assert_eq!(shown, remembered(&whole, &json!([name])), "{act:?}");
            party(&world, name).proxy.heal();
        }
        world.behind.order.proxy.on("GET", act.clone());
        for call in [world.get(order), world.list(), world.claims(order)] {
            let failed = call.send().await;
            assert_blames(&failed, "dependency_unavailable", "order");
        }
        world.behind.order.proxy.heal();
    }
}

#[tokio::test]
async fn without_order_there_is_nothing_to_show() {
    let world = World::start().await;
    let order = world.bought().await;
    world.get(order).send().await.ok();
    world.behind.order.proxy.down().await;
    // The breaker opens on the way.
    for _ in 0..5 {
        for call in [world.get(order), world.list(), world.claims(order)] {
            assert_blames(&call.send().await, "dependency_unavailable", "order");
        }
    }
    world.behind.order.proxy.up();
    until(SOON, "shown again", async || {
        (world.get(order).send().await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_open_breaker_says_why_and_for_how_long() {
    let open = [PATIENT, &[("BREAKER_OPEN_MS", "60000")]].concat();
    let world = World::with(&open).await;
    let (order, other) = (world.bought().await, world.bought().await);
    // Writes have a breaker of their own.
    world.behind.order.proxy.on("DELETE", DEFECT);
    for _ in 0..3 {
        assert_blames(&world.refund(order).send().await, "outcome_unknown", "order");
    }
    world.behind.order.proxy.on("*", DEFECT);
    for _ in 0..3 {
        assert_blames(&world.list().send().await, "dependency_unavailable", "order");
    }
    let asked = world.asked();
    for (call, code) in [
        (world.list(), "dependency_unavailable"),
        (world.get(order), "dependency_unavailable"),
        (world.claim(order, "x"), "dependency_unavailable"),
        (world.purchase(), "rolled_back"),
        // Of this one nobody knows what became of the refunds before; of the other one there are none.
        (world.refund(order), "outcome_unknown"),
        (world.refund(other), "rolled_back"),
    ] {
        let rejected = call.send().await;
        assert_blames(&rejected, code, "order");
        let message = rejected.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains("answered 500"), "the last failure's explanation: {message}");
        for address in ["127.0.0.1", "localhost", "http:"] {
            assert!(!message.contains(address), "{message}");
        }
        let wait: u64 = rejected.header("retry-after").unwrap().parse().unwrap();
        assert!((30..=60).contains(&wait), "{wait}");
    }
    assert_eq!(world.asked(), asked);
    let breakers = world.breakers(&world.client).await;
    let open: Vec<_> = breakers.iter().filter(|(_, state)| state == "open").collect();
    assert_eq!(open, [&("order".to_owned(), "open".to_owned())]);
}

#[tokio::test]
async fn reads_that_fail_do_not_close_the_way_for_purchases() {
    let world = World::with(PATIENT).await;
    world.behind.order.proxy.on("GET", DEFECT);
    for _ in 0..5 {
        assert_blames(&world.list().send().await, "dependency_unavailable", "order");
    }
    let reads = operator::breaker(&world.client, "order/read").await;
    assert_eq!((&reads["state"], &reads["failures"]), (&json!("open"), &json!(3)));
    world.bought().await;
    assert_eq!(operator::breaker(&world.client, "order/write").await["state"], "closed");
    // Health names the dependency once, with what is worst.
    let breakers = world.breakers(&world.client).await;
    let states: Vec<_> = breakers.iter().filter(|(name, _)| name == "order").collect();
    assert_eq!(states, [&("order".to_owned(), "open".to_owned())]);
}

#[tokio::test]
async fn a_system_that_hangs_costs_a_read_its_timeout_once() {
    let world = World::with(SHORT).await;
    for _ in 0..5 {
        world.bought().await;
    }
    world.behind.warehouse.proxy.on("GET", Act::Hang);
    world.behind.warranty.proxy.on("GET", Act::Hang);
    let start = Instant::now();
    let list = world.list().send().await.ok();
    let took = start.elapsed();
    assert_eq!(list.as_array().unwrap().len(), 5);
    assert_eq!(list[4]["degraded"], json!(["warehouse", "warranty"]));
    // Both at once, whatever the number of orders.
    assert!(took >= Duration::from_millis(990), "{took:?}");
    assert!(took < Duration::from_millis(1980), "{took:?}");
}

#[tokio::test]
async fn a_caller_without_time_opens_no_breaker() {
    let world = World::with(SHORT).await;
    let order = world.bought().await;
    for party in [&world.behind.order, &world.behind.warehouse, &world.behind.warranty] {
        party.proxy.on("*", Act::Hang);
    }
    let asked = world.asked();
    for time in ["5", "5", "5", "5", "60", "60", "60", "60"] {
        for call in [world.list(), world.purchase(), world.refund(order), world.claim(order, "x")] {
            let late = call.header("X-Request-Timeout", time).send().await;
            assert_eq!(late.status, 503, "{late:?}");
            assert!(
                ["deadline_exceeded", "outcome_unknown", "rollback_pending"]
                    .contains(&late.json()["code"].as_str().unwrap()),
                "{late:?}"
            );
        }
    }
    assert!(world.asked() > asked, "some had time enough to ask");
    for (name, state) in world.breakers(&world.client).await {
        assert_eq!(state, "closed", "{name}");
    }
}

#[tokio::test]
async fn without_time_nothing_is_begun() {
    let world = World::start().await;
    let order = world.bought().await;
    let asked = world.asked();
    for call in [world.list(), world.get(order), world.purchase(), world.refund(order)] {
        let late = call.header("X-Request-Timeout", "0").send().await;
        assert_envelope(&late, 503, "deadline_exceeded");
        assert_eq!(late.header("x-failed-dependency"), None);
    }
    assert_eq!(world.asked(), asked);
}

#[tokio::test]
async fn order_that_takes_back_for_want_of_time_opens_no_breaker() {
    let world = World::start().await;
    let order = world.bought().await;
    for method in ["POST", "DELETE"] {
        world.behind.order.proxy.on(method, TAKEN_BACK);
    }
    for _ in 0..5 {
        let refund = world.refund(order).send().await;
        // It waits that long for the purchase to be undone.
        let purchase = world.purchase().header("X-Request-Timeout", "500").send().await;
        for late in [refund, purchase] {
            assert_envelope(&late, 503, "rollback_pending");
            assert_eq!(late.json()["message"], "there was no time left");
        }
    }
    for (name, state) in world.breakers(&world.client).await {
        assert_eq!(state, "closed", "{name}");
    }
}
