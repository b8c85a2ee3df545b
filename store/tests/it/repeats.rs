//! What `Idempotency-Key` promises a user.

use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection};
use serde_json::json;
use service::testing::network::Act;
use service::testing::{assert_envelope, until};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::world::{MODEL, SHORT, SOON, STOCK, STORE, World, assert_blames, bought, wish};

#[tokio::test]
async fn the_same_key_gets_the_same_answer() {
    let world = World::start().await;
    let first = world.purchase().key("k").send().await;
    let order = bought(&first);
    let again = json!({"size": "M", "unknown": true, "model": MODEL});
    let upper = world.user.to_string().to_uppercase();
    let again = world.client.post(format!("{STORE}/{upper}/purchase/")).json(&again);
    let replayed = again.key("k").send().await;
    assert_eq!(bought(&replayed), order);
    assert_eq!(replayed.header("location"), first.header("location"));
    assert_ne!(replayed.header("x-request-id"), first.header("x-request-id"));
    assert_eq!(world.behind.effects(), (1, 1, 1));

    let claim = world.claim(order, "broken").key("k").send().await.ok();
    assert_eq!(world.claim(order, "broken").key("k").send().await.ok(), claim);
    assert_eq!(world.claims(order).send().await.ok().as_array().unwrap().len(), 1);
    for _ in 0..2 {
        world.refund(order).key("k").send().await.no_content();
    }
    assert_eq!((world.behind.effects(), world.behind.left()), ((0, 0, 0), STOCK));
}

#[tokio::test]
async fn two_users_with_the_same_key_are_two_purchases() {
    let world = World::start().await;
    let other = world.new_user("Blake");
    let mine = bought(&world.purchase().key("k").send().await);
    let theirs = bought(&world.purchase_by(other, &wish()).key("k").send().await);
    assert_ne!(mine, theirs);
    assert_eq!((world.behind.effects(), world.behind.left()), ((2, 2, 2), STOCK - 2));
}

#[tokio::test]
async fn the_same_key_with_other_content_is_422() {
    let world = World::start().await;
    let order = bought(&world.purchase().key("k").send().await);
    let other = json!({"model": MODEL, "size": "L"});
    let refused = world.purchase_by(world.user, &other).key("k").send().await;
    assert_envelope(&refused, 422, "idempotency_key_reused");
    world.claim(order, "broken").key("k").send().await.ok();
    let refused = world.claim(order, "stolen").key("k").send().await;
    assert_envelope(&refused, 422, "idempotency_key_reused");
    assert_eq!((world.behind.effects(), world.behind.left()), ((1, 1, 1), STOCK - 1));
}

#[tokio::test]
async fn a_final_refusal_is_remembered() {
    let world = World::start().await;
    world.behind.stock("M", 0);
    assert_envelope(&world.purchase().key("k").send().await, 409, "sold_out");
    world.behind.stock("M", STOCK);
    assert_envelope(&world.purchase().key("k").send().await, 409, "sold_out");
    assert_eq!(world.behind.left(), STOCK);
    bought(&world.purchase().key("l").send().await);

    let unknown = Uuid::new_v4();
    for call in [world.refund(unknown), world.claim(unknown, "x")] {
        assert_envelope(&call.clone().key("k").send().await, 404, "order_not_found");
        let asked = world.asked();
        assert_envelope(&call.key("k").send().await, 404, "order_not_found");
        assert_eq!(world.asked(), asked);
    }
}

#[tokio::test]
async fn a_user_who_is_not_known_yet_may_come_back_with_the_same_key() {
    let world = World::start().await;
    let user = Uuid::new_v4();
    let purchase = world.purchase_by(user, &wish()).key("k");
    assert_envelope(&purchase.clone().send().await, 404, "user_not_found");
    world.store.execute(&format!("INSERT INTO users (name, user_uid) VALUES ('New', '{user}')"));
    bought(&purchase.send().await);
}

#[tokio::test]
async fn after_a_rollback_the_same_key_buys_under_a_new_id() {
    let world = World::start().await;
    world.behind.order.proxy.once("POST", Act::LoseAnswer);
    let failed = world.purchase().key("k").send().await;
    assert_blames(&failed, "rolled_back", "order");
    let undone = world.behind.order.number("SELECT count(*) FROM tombstones");
    assert_eq!(undone, 1);
    let order = bought(&world.purchase().key("k").send().await);
    let stone = format!("SELECT count(*) FROM tombstones WHERE id = '{order}'");
    assert_eq!(world.behind.order.number(&stone), 0);
    assert_eq!(bought(&world.purchase().key("k").send().await), order);
    assert_eq!((world.behind.effects(), world.behind.left()), ((1, 1, 1), STOCK - 1));
}

#[tokio::test]
async fn until_a_rollback_is_confirmed_the_same_key_says_that_it_is_pending() {
    let world = World::with(SHORT).await;
    world.behind.order.proxy.on("POST", Act::LoseAnswer);
    world.behind.order.proxy.on("DELETE", Act::Reset);
    for _ in 0..3 {
        let pending = world.purchase().key("k").send().await;
        assert_blames(&pending, "rollback_pending", "order");
    }
    assert_eq!(world.behind.effects(), (1, 1, 1), "bought once");
    world.behind.order.proxy.heal();
    let order = until(SOON, "bought anew", async || {
        let answer = world.purchase().key("k").send().await;
        if answer.status != 201 {
            assert_envelope(&answer, 503, "rollback_pending");
        }
        (answer.status == 201).then(|| bought(&answer))
    })
    .await;
    assert_eq!((world.behind.effects(), world.behind.left()), ((1, 1, 1), STOCK - 1));
    assert_eq!(world.get(order).send().await.ok()["status"], "PAID");
}

#[tokio::test]
async fn a_key_that_is_given_back_while_it_is_looked_at_is_free() {
    let world = World::start().await;
    let held = world.behind.order.proxy.once("POST", Act::Hold);
    let first = tokio::spawn(world.purchase().key("k").send());
    until(SOON, "the key is taken", async || {
        (world.store.number("SELECT count(*) FROM idempotency") == 1).then_some(())
    })
    .await;
    // Locked, it is found; by the time that it can be read it is gone.
    let mut giver = PgConnection::establish(&world.store.database_url).unwrap();
    giver.batch_execute("BEGIN; SELECT FROM idempotency FOR UPDATE").unwrap();
    let second = tokio::spawn(world.purchase().key("k").send());
    until(SOON, "it waits for the giver", async || {
        let waits = "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock'";
        (world.store.number(waits) == 1).then_some(())
    })
    .await;
    giver.batch_execute("DELETE FROM idempotency; COMMIT").unwrap();
    bought(&second.await.unwrap());
    held.release();
    assert_eq!(first.await.unwrap().status, 201, "it was forgotten, not undone");
}

#[tokio::test]
async fn a_key_that_is_being_worked_on_is_409_and_taken_over_when_its_holder_is_dead() {
    let world = World::start().await;
    let held = world.behind.order.proxy.once("POST", Act::Hold);
    let first = tokio::spawn(world.purchase().key("k").send());
    until(SOON, "it is on its way", async || {
        (world.behind.order.proxy.count("POST") == 1).then_some(())
    })
    .await;
    let early = world.purchase().key("k").send().await;
    assert_envelope(&early, 409, "idempotency_in_progress");
    // As if it had been silent for as long as a crash is.
    world.store.execute("UPDATE idempotency SET lease_until = now() - interval '1 second'");
    let order = bought(&world.purchase().key("k").send().await);
    held.release();
    // It was only slow: both have bought the same.
    assert_eq!(bought(&first.await.unwrap()), order);
    assert_eq!((world.behind.effects(), world.behind.left()), ((1, 1, 1), STOCK - 1));
}

#[tokio::test]
async fn a_purchase_that_a_crash_left_while_it_was_being_undone_is_undone_first() {
    let world = World::start().await;
    let held = world.behind.order.proxy.once("POST", Act::Hold);
    let lost = tokio::spawn(world.purchase().key("k").send());
    until(SOON, "it is on its way", async || {
        (world.behind.order.proxy.count("POST") == 1).then_some(())
    })
    .await;
    world.store.execute(
        "UPDATE idempotency SET state = 'undoing', lease_until = now() - interval '1 second'",
    );
    let order = bought(&world.purchase().key("k").send().await);
    // What comes late is refused, and whoever sent it finds out that it was overtaken.
    held.release();
    let overtaken = lost.await.unwrap();
    assert_ne!(overtaken.status, 201, "{overtaken:?}");
    assert_eq!((world.behind.effects(), world.behind.left()), ((1, 1, 1), STOCK - 1));
    assert_eq!(bought(&world.purchase().key("k").send().await), order);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_with_the_same_key_at_once_buy_one_item() {
    let world = World::start().await;
    let calls: JoinSet<_> = (0..10).map(|_| world.purchase().key("k").send()).collect();
    let mut orders = Vec::new();
    for answer in calls.join_all().await {
        if answer.status == 201 {
            orders.push(bought(&answer));
        } else {
            assert_envelope(&answer, 409, "idempotency_in_progress");
        }
    }
    orders.dedup();
    assert_eq!(orders.len(), 1);
    assert_eq!((world.behind.effects(), world.behind.left()), ((1, 1, 1), STOCK - 1));
}

#[tokio::test]
async fn a_client_that_goes_away_has_bought_all_the_same() {
    let world = World::start().await;
    let held = world.behind.order.proxy.once("POST", Act::Hold);
    let purchase = tokio::spawn(world.purchase().key("k").send());
    until(SOON, "it is on its way", async || {
        (world.behind.order.proxy.count("POST") == 1).then_some(())
    })
    .await;
    purchase.abort();
    assert!(purchase.await.unwrap_err().is_cancelled());
    held.release();
    let order = until(SOON, "known by its key", async || {
        let answer = world.purchase().key("k").send().await;
        (answer.status == 201).then(|| bought(&answer))
    })
    .await;
    assert_eq!(world.get(order).send().await.ok()["status"], "PAID");
    assert_eq!((world.behind.effects(), world.behind.left()), ((1, 1, 1), STOCK - 1));
}
