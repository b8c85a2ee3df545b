//! What the journal of sagas makes of an order whose saga has not ended.

use std::time::{Duration, Instant};

use service::testing::network::{Act, Rule};
use service::testing::{Response, assert_envelope, until};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::world::{PATIENT, SHORT, SOON, STOCK, World, assert_blames, uid, wish, wish_as};

/// A placing that is held at its last step.
async fn held(world: &World, user: Uuid, order: Uuid) -> (Rule, JoinHandle<Response>) {
    let rule = world.warranty.proxy.once("POST", Act::Hold);
    let placing = tokio::spawn(world.place(user, &wish_as(order)).send());
    until(SOON, "it is at its last step", async || {
        (world.warranty.proxy.count("POST") == 1).then_some(())
    })
    .await;
    (rule, placing)
}

/// As if its process had died: silent, and deaf for what it hears of itself.
fn crash(world: &World) {
    world.order.execute(
        "UPDATE saga SET lease_until = now() - interval '1 second', fence = fence + 1
         WHERE ended_at IS NULL",
    );
}

#[tokio::test]
async fn a_placing_that_a_crash_left_is_taken_back_by_itself_and_says_so_when_it_is_repeated() {
    let world = World::start().await;
    let (user, order) = (Uuid::new_v4(), Uuid::new_v4());
    let (rule, placing) = held(&world, user, order).await;
    crash(&world);
    world.is_as_before().await;
    until(SOON, "it has ended", async || (world.open_sagas() == 0).then_some(())).await;
    assert_blames_nobody(&placing.await.unwrap(), "rolled_back");
    // What was still on its way arrives too late.
    rule.release();
    let again = world.place(user, &wish_as(order)).send().await;
    assert_envelope(&again, 409, "already_undone");
    world.is_as_before().await;
    assert_envelope(&world.get(user, order).send().await, 404, "order_not_found");
}

fn assert_blames_nobody(answer: &Response, code: &str) {
    assert_envelope(answer, 503, code);
    assert_eq!(answer.header("x-failed-dependency"), None);
}

#[tokio::test]
async fn a_key_whose_placing_a_crash_left_places_one_order() {
    let world = World::start().await;
    let user = Uuid::new_v4();
    let rule = world.warranty.proxy.once("POST", Act::Hold);
    let first = tokio::spawn(world.place(user, &wish()).key("k").send());
    until(SOON, "it is at its last step", async || {
        (world.warranty.proxy.count("POST") == 1).then_some(())
    })
    .await;
    crash(&world);
    world.order.execute("UPDATE idempotency SET lease_until = now() - interval '1 second'");
    // It waits until the earlier attempt is taken back, and begins anew.
    let second = world.place(user, &wish()).key("k").send().await.ok();
    rule.release();
    first.await.unwrap();
    assert_eq!(world.place(user, &wish()).key("k").send().await.ok(), second);
    assert_eq!((world.effects(), world.left()), ((1, 1, 1), STOCK - 1));
    world.get(user, uid(&second["orderUid"])).send().await.ok();
}

#[tokio::test]
async fn an_order_that_is_being_placed_is_waited_for_and_another_one_under_its_id_is_422() {
    let world = World::start().await;
    let (user, order) = (Uuid::new_v4(), Uuid::new_v4());
    let (rule, placing) = held(&world, user, order).await;
    let mut other = wish_as(order);
    other["size"] = "L".into();
    for call in [world.place(user, &other), world.place(Uuid::new_v4(), &wish_as(order))] {
        assert_envelope(&call.send().await, 422, "idempotency_key_reused");
    }
    let hasty = world.place(user, &wish_as(order)).header("X-Request-Timeout", "200");
    assert_envelope(&hasty.send().await, 409, "idempotency_in_progress");
    let again = tokio::spawn(world.place(user, &wish_as(order)).send());
    rule.release();
    assert_eq!(placing.await.unwrap().ok(), again.await.unwrap().ok());
    assert_eq!((world.effects(), world.left()), ((1, 1, 1), STOCK - 1));
}

#[tokio::test]
async fn a_rollback_that_is_pending_says_so_when_it_is_repeated_and_is_done_soon_after_healing() {
    let open = Duration::from_secs(1);
    let world = World::with(&[SHORT, &[("BREAKER_OPEN_MS", "1000")]].concat()).await;
    for (party, name) in [(&world.warehouse, "warehouse"), (&world.warranty, "warranty")] {
        let (user, order) = (Uuid::new_v4(), Uuid::new_v4());
        party.proxy.on("POST", Act::LoseAnswer);
        party.proxy.on("DELETE", Act::Reset);
        let failed = world.place(user, &wish_as(order)).send().await;
        assert_blames(&failed, "rollback_pending", name);
        // Also once the breaker is open.
        for _ in 0..3 {
            let again = world.place(user, &wish_as(order)).send().await;
            assert_blames(&again, "rollback_pending", name);
        }
        until(SOON, "the breaker is open", async || {
            let health = world.client.get("/manage/health").send().await.ok();
            let states = health["components"]["dependencies"].as_array().unwrap().clone();
            states
                .iter()
                .any(|found| found["name"] == name && found["state"] == "open")
                .then_some(())
        })
        .await;
        let again = world.place(user, &wish_as(order)).send().await;
        assert_blames(&again, "rollback_pending", name);
        party.proxy.heal();
        let healed = Instant::now();
        world.is_as_before().await;
        until(SOON, "it has ended", async || (world.open_sagas() == 0).then_some(())).await;
        let took = healed.elapsed();
        assert!(took < open + Duration::from_secs(2), "{name}: {took:?}");
        let over = world.place(user, &wish_as(order)).send().await;
        assert_envelope(&over, 409, "already_undone");
    }
}

#[tokio::test]
async fn nothing_is_journaled_while_a_breaker_is_known_to_be_open() {
    let world = World::with(&[PATIENT, &[("BREAKER_OPEN_MS", "60000")]].concat()).await;
    let bought = world.placed(Uuid::new_v4()).await;
    let sagas = || world.order.number("SELECT count(*) FROM saga");
    assert_eq!(sagas(), 1);
    for name in ["warehouse", "warranty"] {
        let action = serde_json::json!({"action": "force_open"});
        let command = world.client.post(format!("/manage/resilience/{name}"));
        command.json(&action).send().await.ok();
        let refused = world.place(Uuid::new_v4(), &wish()).send().await;
        assert_blames(&refused, "rolled_back", name);
        assert_blames(&world.give_back(bought).send().await, "rolled_back", name);
        let action = serde_json::json!({"action": "reset"});
        let command = world.client.post(format!("/manage/resilience/{name}"));
        command.json(&action).send().await.ok();
    }
    assert_eq!(sagas(), 1);
    assert_eq!(world.warranty.proxy.count("*") + world.warehouse.proxy.count("*"), 2);
}

#[tokio::test]
async fn an_order_is_taken_back_also_when_its_process_ends_in_the_middle() {
    let world = World::start().await;
    let replica = world.replica().await;
    let user = Uuid::new_v4();
    let order = world.placed(user).await;
    let rule = world.warehouse.proxy.once("DELETE", Act::Hold);
    let undoing = tokio::spawn(world.give_back(order).compensate().send());
    until(SOON, "it is behind its pivot", async || {
        (world.warehouse.proxy.count("DELETE") == 1).then_some(())
    })
    .await;
    assert_envelope(&world.get(user, order).send().await, 404, "order_not_found");
    crash(&world);
    // Whoever asks again waits for whoever has taken over.
    let again = replica.client().delete(format!("{}/{order}", crate::world::ORDERS)).compensate();
    again.send().await.no_content();
    undoing.await.unwrap().no_content();
    rule.release();
    world.is_as_before().await;
    assert_eq!(world.open_sagas(), 0);
}

#[tokio::test]
async fn an_undo_that_is_pending_is_pending_for_whoever_repeats_it() {
    let world = World::with(SHORT).await;
    let order = world.placed(Uuid::new_v4()).await;
    world.warranty.proxy.on("DELETE", Act::Reset);
    for _ in 0..2 {
        let pending = world.give_back(order).compensate().send().await;
        assert_blames(&pending, "rollback_pending", "warranty");
    }
    // The item doesn't wait for the warranty.
    assert_eq!(world.left(), STOCK);
    world.warranty.proxy.heal();
    until(SOON, "completed without being asked again", async || {
        (world.open_sagas() == 0).then_some(())
    })
    .await;
    assert_eq!(world.effects(), (0, 0, 0));
    let begun = "SELECT count(*) FROM saga WHERE kind = 'take-back'";
    assert_eq!(world.order.number(begun), 1);
    world.give_back(order).compensate().send().await.no_content();
}
