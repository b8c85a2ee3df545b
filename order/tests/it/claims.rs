//! Claims, passed on to Warehouse and decided by Warranty.

use serde_json::json;
use service::testing::network::{Act, DEFECT, RUBBISH};
use service::testing::{assert_envelope, until};
use uuid::Uuid;

use crate::world::{SHORT, SOON, STOCK, World, assert_blames};

#[tokio::test]
async fn a_claim_is_decided_by_what_is_in_stock() {
    let world = World::start().await;
    let user = Uuid::new_v4();
    for (left, decision) in [(STOCK, "RETURN"), (0, "FIXING")] {
        world.stock("M", STOCK);
        let order = world.placed(user).await;
        let item = world.item_of(user, order).await;
        let date = world.warranty_of(item).await["warrantyDate"].clone();
        world.stock("M", left);
        let decided = world.claim(order, "broken").send().await.ok();
        assert_eq!(decided, json!({"warrantyDate": date, "decision": decision}));
        let now = world.warranty_of(item).await;
        assert_eq!((&now["status"], &now["comment"]), (&json!("USE_WARRANTY"), &json!("broken")));
        assert_eq!(world.claim(order, "again").send().await.ok()["decision"], "REFUSED");
    }
}

#[tokio::test]
async fn a_claim_on_a_refunded_order_is_refused() {
    let world = World::start().await;
    let order = world.placed(Uuid::new_v4()).await;
    world.give_back(order).send().await.no_content();
    assert_eq!(world.claim(order, "broken").send().await.ok()["decision"], "REFUSED");
}

#[tokio::test]
async fn what_is_not_known_is_404_and_says_who_does_not_know_it() {
    let world = World::start().await;
    let user = Uuid::new_v4();
    let unknown = world.claim(Uuid::new_v4(), "broken").send().await;
    assert_envelope(&unknown, 404, "order_not_found");
    assert_eq!(world.warehouse.proxy.count("*"), 0);

    let order = world.placed(user).await;
    let item = world.item_of(user, order).await;
    world.warranty.execute("DELETE FROM warranty");
    let without = world.claim(order, "broken").send().await;
    assert_envelope(&without, 404, "warranty_not_found");
    assert_eq!(without.json()["message"], format!("Warranty not found for itemUid '{item}'"));

    world.warehouse.execute("DELETE FROM order_item");
    assert_envelope(&world.claim(order, "broken").send().await, 404, "item_not_found");
}

#[tokio::test]
async fn a_replay_under_the_same_key_repeats_the_first_decision() {
    let world = World::start().await;
    let order = world.placed(Uuid::new_v4()).await;
    let first = world.claim(order, "broken").key("k").send().await.ok();
    assert_eq!(first["decision"], "RETURN");
    world.stock("M", 0);
    assert_eq!(world.claim(order, "broken").key("k").send().await.ok(), first);
    let other = world.claim(order, "another reason").key("k").send().await;
    assert_envelope(&other, 422, "idempotency_key_reused");
    // Also where a crash came before the answer was written down here: the key goes all the way.
    world.order.execute("DELETE FROM idempotency");
    assert_eq!(world.claim(order, "broken").key("k").send().await.ok(), first);
    assert_eq!(world.claim(order, "broken").key("l").send().await.ok()["decision"], "REFUSED");
}

#[tokio::test]
async fn a_claim_whose_answer_was_lost_is_decided_once() {
    let world = World::start().await;
    let order = world.placed(Uuid::new_v4()).await;
    world.warehouse.proxy.on("POST", Act::LoseAnswer);
    let lost = world.claim(order, "broken").key("k").send().await;
    assert_blames(&lost, "dependency_unavailable", "warehouse");
    world.warehouse.proxy.heal();
    let found = world.claim(order, "broken").key("k").send().await.ok();
    assert_eq!(found["decision"], "RETURN");
}

#[tokio::test]
async fn a_warehouse_that_fails_is_blamed_whatever_way_it_fails() {
    let world = World::with(SHORT).await;
    let order = world.placed(Uuid::new_v4()).await;
    for act in [Act::Reset, DEFECT, RUBBISH, Act::Hang] {
        // The breaker may still be open, or probing: that is the same to the user.
        world.warehouse.proxy.on("POST", act);
        let failed = world.claim(order, "broken").key("k").send().await;
        assert_blames(&failed, "dependency_unavailable", "warehouse");
    }
    world.warehouse.proxy.heal();
    world.warehouse.proxy.down().await;
    let failed = world.claim(order, "broken").key("k").send().await;
    assert_blames(&failed, "dependency_unavailable", "warehouse");
    world.warehouse.proxy.up();
    // The key was given back each time.
    let decided = until(SOON, "decided", async || {
        let answer = world.claim(order, "broken").key("k").send().await;
        (answer.status == 200).then(|| answer.ok())
    })
    .await;
    assert_eq!(decided["decision"], "RETURN");
}

#[tokio::test]
async fn a_chain_that_is_broken_at_warranty_does_not_open_the_breaker_on_warehouse() {
    let world = World::start().await;
    let user = Uuid::new_v4();
    let order = world.placed(user).await;
    world.warranty.proxy.down().await;
    for _ in 0..10 {
        let failed = world.claim(order, "broken").send().await;
        assert_blames(&failed, "dependency_unavailable", "warranty");
    }
    let health = world.client.get("/manage/health").send().await.ok();
    for dependency in health["components"]["dependencies"].as_array().unwrap() {
        assert_eq!(dependency["state"], "closed", "{dependency}");
    }
    assert_eq!(world.warehouse.proxy.count("POST"), 1 + 10, "each claim got to Warehouse");
    world.warranty.proxy.up();
    until(SOON, "decided", async || {
        let answer = world.claim(order, "broken").send().await;
        (answer.status == 200).then_some(())
    })
    .await;
}
