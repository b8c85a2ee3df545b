//! Placing an order while Warehouse or Warranty is away: nothing is left of it.

use std::time::{Duration, Instant};

use serde_json::json;
use service::testing::network::{Act, DEFECT, ENDING, RUBBISH};
use service::testing::{assert_envelope, until};
use uuid::Uuid;

use crate::world::{PATIENT, SHORT, SOON, STOCK, World, assert_blames, served, wish, wish_as};

/// Not found, not listed, and nothing is held for it.
async fn never_was(world: &World, user: Uuid, order: Uuid) {
    assert_envelope(&world.get(user, order).send().await, 404, "order_not_found");
    let list = world.list(user).send().await;
    assert_eq!(list.header("x-total-count"), Some("0"));
    assert_eq!(list.ok(), json!([]));
    assert_eq!((world.effects(), world.left()), ((0, 0, 0), STOCK));
}

#[tokio::test]
async fn an_order_is_rolled_back_when_warehouse_is_down() {
    let world = World::start().await;
    world.warehouse.proxy.down().await;
    let (user, order) = (Uuid::new_v4(), Uuid::new_v4());
    let failed = world.place(user, &wish_as(order)).send().await;
    assert_blames(&failed, "rolled_back", "warehouse");
    assert_eq!(world.warranty.proxy.count("*"), 0);
    never_was(&world, user, order).await;
}

#[tokio::test]
async fn an_order_is_rolled_back_when_warranty_is_down() {
    let world = World::start().await;
    world.warranty.proxy.down().await;
    let (user, order) = (Uuid::new_v4(), Uuid::new_v4());
    let failed = world.place(user, &wish_as(order)).send().await;
    assert_blames(&failed, "rolled_back", "warranty");
    // Taken, and given back before the answer.
    assert_eq!(
        (world.warehouse.proxy.count("POST"), world.warehouse.proxy.count("DELETE")),
        (1, 1)
    );
    never_was(&world, user, order).await;
    // This attempt is over for good; another one is not.
    world.warranty.proxy.up();
    assert_envelope(&world.place(user, &wish_as(order)).send().await, 409, "already_undone");
    until(SOON, "placed", async || {
        let answer = world.place(user, &wish()).send().await;
        (answer.status == 200).then_some(())
    })
    .await;
    assert_eq!((world.effects(), world.left()), ((1, 1, 1), STOCK - 1));
}

#[tokio::test]
async fn a_step_whose_outcome_is_unknown_is_undone_as_well() {
    let world = World::start().await;
    for act in [Act::LoseAnswer, Act::Reset, DEFECT, RUBBISH] {
        for (party, name) in [(&world.warehouse, "warehouse"), (&world.warranty, "warranty")] {
            let (user, order) = (Uuid::new_v4(), Uuid::new_v4());
            party.proxy.once("POST", act.clone());
            let failed = world.place(user, &wish_as(order)).send().await;
            assert_blames(&failed, "rolled_back", name);
            never_was(&world, user, order).await;
        }
    }
}

#[tokio::test]
async fn a_step_that_arrives_after_its_undo_has_no_effect() {
    let world = World::with(SHORT).await;
    for (party, name) in [(&world.warehouse, "warehouse"), (&world.warranty, "warranty")] {
        let (user, order) = (Uuid::new_v4(), Uuid::new_v4());
        let held = party.proxy.once("POST", Act::Hold);
        let failed = world.place(user, &wish_as(order)).send().await;
        assert_blames(&failed, "rolled_back", name);
        held.release();
        until(SOON, "the late step is refused", async || {
            let seen = party.proxy.seen();
            seen.iter().any(|seen| seen.method == "POST" && seen.status == Some(409)).then_some(())
        })
        .await;
        never_was(&world, user, order).await;
    }
}

#[tokio::test]
async fn a_step_whose_answer_comes_after_it_was_given_up_has_no_effect() {
    let world = World::with(SHORT).await;
    for (party, name) in [(&world.warehouse, "warehouse"), (&world.warranty, "warranty")] {
        for caller_gives_up in [false, true] {
            let (user, order) = (Uuid::new_v4(), Uuid::new_v4());
            let held = party.proxy.once("POST", Act::HoldAnswer);
            let mut call = world.place(user, &wish_as(order));
            if caller_gives_up {
                call = call.header("X-Request-Timeout", "500");
            }
            let failed = call.send().await;
            let code = if caller_gives_up { "rollback_pending" } else { "rolled_back" };
            assert_envelope(&failed, 503, code);
            if !caller_gives_up {
                assert_blames(&failed, code, name);
            }
            world.is_as_before().await;
            held.release();
            served(&held).await;
            until(SOON, "it has ended", async || (world.open_sagas() == 0).then_some(())).await;
            never_was(&world, user, order).await;
        }
    }
}

#[tokio::test]
async fn what_cannot_be_undone_at_once_is_undone_later() {
    for name in ["warehouse", "warranty"] {
        // Anew each time: the first round may leave a breaker open.
        let world = World::with(SHORT).await;
        let party = if name == "warehouse" { &world.warehouse } else { &world.warranty };
        let (user, order) = (Uuid::new_v4(), Uuid::new_v4());
        party.proxy.on("POST", Act::LoseAnswer);
        party.proxy.on("DELETE", Act::Reset);
        let failed = world.place(user, &wish_as(order)).send().await;
        assert_blames(&failed, "rollback_pending", name);
        // Already it is no order.
        assert_envelope(&world.get(user, order).send().await, 404, "order_not_found");
        assert_ne!(world.effects(), (0, 0, 0));
        party.proxy.heal();
        world.is_as_before().await;
        never_was(&world, user, order).await;
        assert_eq!(party.number("SELECT count(*) FROM tombstones"), 1);
    }
}

#[tokio::test]
async fn a_system_that_never_answers_costs_its_timeouts_and_is_rolled_back_when_it_wakes_up() {
    let world = World::with(SHORT).await;
    for (party, name) in [(&world.warehouse, "warehouse"), (&world.warranty, "warranty")] {
        let (user, order) = (Uuid::new_v4(), Uuid::new_v4());
        party.proxy.on("*", Act::Hang);
        let start = Instant::now();
        let failed = world.place(user, &wish_as(order)).send().await;
        assert_blames(&failed, "rollback_pending", name);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        party.proxy.heal();
        until(SOON, "undone", async || {
            let stones = party.number("SELECT count(*) FROM tombstones");
            (stones > 0).then_some(())
        })
        .await;
        never_was(&world, user, order).await;
        world.warranty.execute("DELETE FROM tombstones");
    }
}

#[tokio::test]
async fn an_order_is_not_to_be_seen_before_it_is_committed() {
    let world = World::start().await;
    let (user, order) = (Uuid::new_v4(), Uuid::new_v4());
    let held = world.warranty.proxy.once("POST", Act::Hold);
    let placing = tokio::spawn(world.place(user, &wish_as(order)).send());
    until(SOON, "it is at its last step", async || {
        (world.warranty.proxy.count("POST") == 1).then_some(())
    })
    .await;
    assert_eq!(world.left(), STOCK - 1);
    assert_envelope(&world.get(user, order).send().await, 404, "order_not_found");
    assert_eq!(world.list(user).send().await.ok(), json!([]));
    assert_envelope(&world.claim(order, "x").send().await, 404, "order_not_found");
    assert_envelope(&world.give_back(order).send().await, 404, "order_not_found");
    held.release();
    placing.await.unwrap().ok();
    assert_eq!(world.get(user, order).send().await.ok()["status"], "PAID");
}

#[tokio::test]
async fn an_open_breaker_refuses_at_once_and_says_why_and_for_how_long() {
    let open = [PATIENT, &[("BREAKER_OPEN_MS", "60000")]].concat();
    let world = World::with(&open).await;
    let user = Uuid::new_v4();
    // Nothing was taken, so there is nothing to undo on the way.
    world.warehouse.proxy.on("*", ENDING);
    for _ in 0..3 {
        assert_blames(&world.place(user, &wish()).send().await, "rolled_back", "warehouse");
    }
    let asked = world.warehouse.proxy.count("*");
    let rejected = world.place(user, &wish()).send().await;
    assert_blames(&rejected, "rolled_back", "warehouse");
    let message = rejected.json()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("answered 503"), "the last failure's explanation: {message}");
    for address in [&world.warehouse.proxy.url()[7..], "127.0.0.1", "http", "localhost"] {
        assert!(!message.contains(address), "{message}");
    }
    let wait: u64 = rejected.header("retry-after").unwrap().parse().unwrap();
    assert!((30..=60).contains(&wait), "{wait}");
    assert_eq!(world.warehouse.proxy.count("*"), asked);
    let health = world.client.get("/manage/health").send().await.ok();
    let breakers = &health["components"]["dependencies"];
    assert_eq!(breakers[0]["name"], "warehouse");
    assert_eq!(breakers[0]["state"], "open");
    assert_eq!(breakers[1]["state"], "closed");
}

#[tokio::test]
async fn a_healed_system_is_found_again_after_one_open_wait() {
    let world = World::start().await;
    let user = Uuid::new_v4();
    world.warranty.proxy.down().await;
    for _ in 0..5 {
        let failed = world.place(user, &wish()).send().await;
        assert_blames(&failed, "rolled_back", "warranty");
    }
    assert_eq!((world.effects(), world.left()), ((0, 0, 0), STOCK));
    world.warranty.proxy.up();
    until(SOON, "placed", async || {
        let answer = world.place(user, &wish()).send().await;
        (answer.status == 200).then_some(())
    })
    .await;
    assert_eq!((world.effects(), world.left()), ((1, 1, 1), STOCK - 1));
}

#[tokio::test]
async fn a_caller_without_time_opens_no_breaker_and_leaves_nothing() {
    let world = World::start().await;
    let user = Uuid::new_v4();
    for _ in 0..5 {
        let late = world.place(user, &wish()).header("X-Request-Timeout", "5").send().await;
        assert_envelope(&late, 503, "deadline_exceeded");
        assert_eq!(late.header("x-failed-dependency"), None);
    }
    assert_eq!(world.warehouse.proxy.count("*"), 0);
    // Time that runs out on the way is no fault of the system that was asked.
    world.warehouse.proxy.on("POST", Act::Hang);
    for _ in 0..5 {
        world.place(user, &wish()).header("X-Request-Timeout", "60").send().await;
    }
    let health = world.client.get("/manage/health").send().await.ok();
    assert_eq!(health["components"]["dependencies"][0]["state"], "closed", "{health}");
    world.warehouse.proxy.heal();
    world.is_as_before().await;
    world.place(user, &wish()).send().await.ok();
}
