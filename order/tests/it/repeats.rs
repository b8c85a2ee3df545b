//! What `Idempotency-Key` promises where the effect reaches into other systems.

use std::time::Duration;

use serde_json::json;
use service::testing::network::Act;
use service::testing::{assert_envelope, until};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::world::{ORDERS, SHORT, SOON, STOCK, World, assert_blames, uid, wish, wish_as};

#[tokio::test]
async fn the_same_key_gets_the_same_order() {
    let world = World::start().await;
    let replica = world.replica().await;
    let user = Uuid::new_v4();
    let first = world.place(user, &wish()).key("k").send().await.ok();
    // Also from another process, with fields that nobody knows, in another order.
    let again = json!({"size": "M", "extra": 1, "model": wish()["model"]});
    let target = format!("{ORDERS}/{}/", user.to_string().to_uppercase());
    assert_eq!(replica.client().post(target).json(&again).key("k").send().await.ok(), first);
    assert_eq!((world.effects(), world.left()), ((1, 1, 1), STOCK - 1));
    // Another user's key is another key.
    let theirs = world.place(Uuid::new_v4(), &wish()).key("k").send().await.ok();
    assert_ne!(theirs, first);
}

#[tokio::test]
async fn the_same_key_with_other_content_is_422() {
    let world = World::start().await;
    let user = Uuid::new_v4();
    let order = uid(&world.place(user, &wish()).key("k").send().await.ok()["orderUid"]);
    for (field, value) in [("size", json!("L")), ("orderUid", json!(Uuid::new_v4()))] {
        let mut other = wish();
        other[field] = value;
        let refused = world.place(user, &other).key("k").send().await;
        assert_envelope(&refused, 422, "idempotency_key_reused");
    }
    world.give_back(order).key("k").send().await.no_content();
    let refused = world.give_back(order).key("k").compensate().send().await;
    assert_envelope(&refused, 422, "idempotency_key_reused");
    assert_eq!((world.effects(), world.left()), ((0, 0, 0), STOCK));
}

#[tokio::test]
async fn a_final_refusal_is_remembered() {
    let world = World::start().await;
    let user = Uuid::new_v4();
    world.stock("M", 0);
    assert_envelope(&world.place(user, &wish()).key("k").send().await, 409, "sold_out");
    world.stock("M", STOCK);
    assert_envelope(&world.place(user, &wish()).key("k").send().await, 409, "sold_out");
    assert_eq!(world.left(), STOCK);
    world.place(user, &wish()).key("l").send().await.ok();

    let order = Uuid::new_v4();
    for call in [world.give_back(order), world.claim(order, "x")] {
        assert_envelope(&call.clone().key("k").send().await, 404, "order_not_found");
    }
    world.place(user, &wish_as(order)).send().await.ok();
    for call in [world.give_back(order), world.claim(order, "x")] {
        assert_envelope(&call.clone().key("k").send().await, 404, "order_not_found");
    }
    assert_eq!((world.effects(), world.left()), ((2, 2, 2), STOCK - 2));
}

#[tokio::test]
async fn after_a_rollback_the_same_key_acts_anew() {
    let world = World::start().await;
    let user = Uuid::new_v4();
    world.warranty.proxy.down().await;
    let failed = world.place(user, &wish()).key("k").send().await;
    assert_blames(&failed, "rolled_back", "warranty");
    assert_eq!(world.order.number("SELECT count(*) FROM idempotency"), 0);
    world.warranty.proxy.up();
    let placed = until(SOON, "placed", async || {
        let answer = world.place(user, &wish()).key("k").send().await;
        (answer.status == 200).then(|| answer.ok())
    })
    .await;
    assert_eq!(world.place(user, &wish()).key("k").send().await.ok(), placed);
    assert_eq!((world.effects(), world.left()), ((1, 1, 1), STOCK - 1));
}

#[tokio::test]
async fn until_a_rollback_is_confirmed_the_same_key_says_that_it_is_pending() {
    let world = World::with(SHORT).await;
    let user = Uuid::new_v4();
    world.warehouse.proxy.on("POST", Act::LoseAnswer);
    world.warehouse.proxy.on("DELETE", Act::Reset);
    for _ in 0..2 {
        let pending = world.place(user, &wish()).key("k").send().await;
        assert_blames(&pending, "rollback_pending", "warehouse");
    }
    assert_eq!(world.left(), STOCK - 1, "taken once");
    world.warehouse.proxy.heal();
    until(SOON, "placed anew", async || {
        let answer = world.place(user, &wish()).key("k").send().await;
        if answer.status != 200 {
            assert_envelope(&answer, 503, "rollback_pending");
        }
        (answer.status == 200).then_some(())
    })
    .await;
    assert_eq!((world.effects(), world.left()), ((1, 1, 1), STOCK - 1));
}

#[tokio::test]
async fn a_key_that_is_being_worked_on_is_409_and_taken_over_when_its_holder_is_dead() {
    let world = World::start().await;
    let user = Uuid::new_v4();
    let held = world.warranty.proxy.once("POST", Act::Hold);
    let first = tokio::spawn(world.place(user, &wish()).key("k").send());
    until(SOON, "it is at its last step", async || {
        (world.warranty.proxy.count("POST") == 1).then_some(())
    })
    .await;
    let early = world.place(user, &wish()).key("k").send().await;
    assert_envelope(&early, 409, "idempotency_in_progress");

    // As if it had been silent for as long as a crash is.
    world.order.execute("UPDATE idempotency SET lease_until = now() - interval '1 second'");
    let second = tokio::spawn(world.place(user, &wish()).key("k").send());
    until(SOON, "taken over", async || {
        let taken = "SELECT count(*) FROM idempotency WHERE lease_until > now()";
        (world.order.number(taken) == 1).then_some(())
    })
    .await;
    held.release();
    // It was only slow: both have placed the same order.
    let second = second.await.unwrap().ok();
    assert_eq!(first.await.unwrap().ok(), second);
    assert_eq!((world.effects(), world.left()), ((1, 1, 1), STOCK - 1));
    assert_eq!(world.place(user, &wish()).key("k").send().await.ok(), second);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_with_the_same_key_at_once_place_one_order() {
    let world = World::start().await;
    let user = Uuid::new_v4();
    let calls: JoinSet<_> = (0..10).map(|_| world.place(user, &wish()).key("k").send()).collect();
    let mut placed = Vec::new();
    for answer in calls.join_all().await {
        if answer.status == 200 {
            placed.push(answer.ok());
        } else {
            assert_envelope(&answer, 409, "idempotency_in_progress");
        }
    }
    placed.dedup();
    assert_eq!(placed.len(), 1);
    assert_eq!((world.effects(), world.left()), ((1, 1, 1), STOCK - 1));
}

#[tokio::test]
async fn a_client_that_goes_away_changes_nothing() {
    let world = World::start().await;
    let (user, order) = (Uuid::new_v4(), Uuid::new_v4());
    let held = world.warranty.proxy.once("POST", Act::Hold);
    let placing = world.place(user, &wish_as(order)).key("k").send();
    let placing = tokio::spawn(tokio::time::timeout(Duration::from_secs(10), placing));
    until(SOON, "it is at its last step", async || {
        (world.warranty.proxy.count("POST") == 1).then_some(())
    })
    .await;
    placing.abort();
    assert!(placing.await.unwrap_err().is_cancelled());
    held.release();
    until(SOON, "it is carried out all the same", async || {
        (world.get(user, order).send().await.status == 200).then_some(())
    })
    .await;
    assert_eq!((world.effects(), world.left()), ((1, 1, 1), STOCK - 1));
}
