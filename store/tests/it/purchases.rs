//! Purchases while a system is away: nothing is left of them.

use serde_json::json;
use service::testing::network::{Act, DEFECT, Proxy, RUBBISH};
use service::testing::{Call, assert_envelope, until};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::systems::uid;
use crate::world::{PATIENT, SHORT, SOON, STOCK, World, assert_blames, bought, met, served};

/// Waits until purchases work again.
async fn can_buy(world: &World) -> Uuid {
    until(SOON, "bought", async || {
        let answer = world.purchase().send().await;
        (answer.status == 201).then(|| bought(&answer))
    })
    .await
}

#[tokio::test]
async fn a_purchase_is_rolled_back_when_any_system_is_down() {
    let world = World::start().await;
    let behind = &world.behind;
    for (name, party) in
        [("order", &behind.order), ("warehouse", &behind.warehouse), ("warranty", &behind.warranty)]
    {
        party.proxy.down().await;
        // The breaker opens on the way.
        for _ in 0..5 {
            let failed = world.purchase().send().await;
            assert_blames(&failed, "rolled_back", name);
        }
        party.proxy.up();
        until(SOON, "shown again", async || {
            (world.list().send().await.status == 200).then_some(())
        })
        .await;
        world.nothing_was_bought().await;
        let order = can_buy(&world).await;
        assert_eq!((world.behind.effects(), world.behind.left()), ((1, 1, 1), STOCK - 1));
        // As if it had never been.
        world.behind.give_back(order).compensate().send().await.no_content();
    }
}

#[tokio::test]
async fn a_purchase_whose_answer_is_lost_is_undone_by_its_id() {
    let world = World::start().await;
    for act in [Act::LoseAnswer, Act::Reset, DEFECT, RUBBISH] {
        world.behind.order.proxy.once("POST", act);
        let failed = world.purchase().send().await;
        assert_blames(&failed, "rolled_back", "order");
        world.nothing_was_bought().await;
    }
    can_buy(&world).await;
}

#[tokio::test]
async fn a_purchase_that_arrives_after_its_undo_has_no_effect() {
    let world = World::with(SHORT).await;
    let held = world.behind.order.proxy.once("POST", Act::Hold);
    let failed = world.purchase().send().await;
    assert_blames(&failed, "rolled_back", "order");
    held.release();
    until(SOON, "the late purchase is refused", async || {
        let seen = world.behind.order.proxy.seen();
        seen.iter().any(|seen| seen.method == "POST" && seen.status == Some(409)).then_some(())
    })
    .await;
    world.nothing_was_bought().await;
}

#[tokio::test]
async fn what_cannot_be_undone_at_once_is_undone_later() {
    let world = World::with(SHORT).await;
    // Bought, but nobody hears of it, and then nobody can take it back.
    world.behind.order.proxy.on("POST", Act::LoseAnswer);
    world.behind.order.proxy.on("DELETE", Act::Reset);
    let pending = world.purchase().send().await;
    assert_blames(&pending, "rollback_pending", "order");
    assert_eq!(world.behind.effects(), (1, 1, 1));
    world.behind.order.proxy.heal();
    world.behind.is_as_before().await;
    until(SOON, "shown again", async || (world.list().send().await.status == 200).then_some(()))
        .await;
    world.nothing_was_bought().await;
}

#[tokio::test]
async fn what_order_cannot_undo_at_once_is_pending_for_the_user_as_well() {
    let world = World::with(SHORT).await;
    world.behind.warranty.proxy.on("POST", Act::LoseAnswer);
    world.behind.warranty.proxy.on("DELETE", Act::Reset);
    let pending = world.purchase().send().await;
    assert_blames(&pending, "rollback_pending", "warranty");
    world.behind.warranty.proxy.heal();
    world.behind.is_as_before().await;
    world.nothing_was_bought().await;
    // Order is healthy: what is broken further down is no fault of its.
    let breakers = world.breakers(&world.client).await;
    assert!(breakers.contains(&("order".to_owned(), "closed".to_owned())), "{breakers:?}");
}

#[tokio::test]
async fn a_system_that_is_dead_two_hops_down_opens_no_breaker_on_order() {
    let world = World::start().await;
    world.behind.warehouse.proxy.down().await;
    for _ in 0..10 {
        assert_blames(&world.purchase().send().await, "rolled_back", "warehouse");
    }
    assert_eq!(world.behind.order.proxy.count("POST"), 10, "each purchase got to Order");
    let breakers = world.breakers(&world.client).await;
    assert!(breakers.contains(&("order".to_owned(), "closed".to_owned())), "{breakers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_forty_purchases_at_once_as_many_succeed_as_there_are_items() {
    let world = World::with(&[PATIENT, &[("DB_POOL_SIZE", "12")]].concat()).await;
    let calls: JoinSet<_> = (0..40).map(|_| world.purchase().send()).collect();
    let answers = calls.join_all().await;
    let (sold, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|a| a.status == 201);
    assert_eq!((sold.len(), refused.len()), (10, 30));
    for answer in refused {
        assert_envelope(answer, 409, "sold_out");
    }
    assert_eq!((world.behind.effects(), world.behind.left()), ((10, 10, 10), 0));
    let list = world.list().send().await;
    assert_eq!(list.header("x-total-count"), Some("10"));
}

/// Makes the commit that forgets an undo take a second, and cuts Store off from its database then:
/// it is committed, and Store never hears of it.
async fn lose_the_answer_of_the_next_commit(world: &World, database: &Proxy) {
    let sleeping = "SELECT count(*) FROM pg_stat_activity
                    WHERE datname = current_database() AND wait_event = 'PgSleep'";
    until(SOON, "it commits", async || (world.store.number(sleeping) == 1).then_some(())).await;
    database.down().await;
    until(SOON, "committed", async || (world.store.number(sleeping) == 0).then_some(())).await;
}

const SLOW_COMMIT: &str = "
    CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql
    AS 'BEGIN PERFORM pg_sleep(1); RETURN NULL; END';
    CREATE CONSTRAINT TRIGGER slow AFTER DELETE ON deferred DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION slow()";

#[tokio::test]
async fn a_purchase_whose_own_commit_has_no_answer_is_undone_unless_a_key_remembers_it() {
    let (world, database) = World::far_from_its_data().await;
    world.store.execute(SLOW_COMMIT);
    let buy = async |call: Call| {
        let (answer, ()) =
            tokio::join!(call.send(), lose_the_answer_of_the_next_commit(&world, &database));
        assert_envelope(&answer, 503, "database_unavailable");
        assert_eq!(world.behind.effects(), (1, 1, 1));
        database.up();
    };
    buy(world.purchase()).await;
    world.behind.is_as_before().await;
    until(SOON, "back", async || (world.list().send().await.status == 200).then_some(())).await;
    world.nothing_was_bought().await;

    buy(world.purchase().key("k")).await;
    let order = until(SOON, "remembered", async || {
        let answer = world.purchase().key("k").send().await;
        (answer.status == 201).then(|| bought(&answer))
    })
    .await;
    assert_eq!((world.behind.effects(), world.behind.left()), ((1, 1, 1), STOCK - 1));
    world.get(order).send().await.ok();
}

/// Calls in the ledger, whatever became of them.
const UNDOS: &str = "SELECT count(*) FROM deferred WHERE kind = 'undo-purchase'";

#[tokio::test]
async fn a_purchase_that_is_bought_or_refused_leaves_no_undo_behind() {
    let world = World::start().await;
    bought(&world.purchase().send().await);
    bought(&world.purchase().key("k").send().await);
    world.behind.stock("M", 0);
    assert_envelope(&world.purchase().send().await, 409, "sold_out");
    assert_eq!(world.store.number(UNDOS), 0);
}

#[tokio::test]
async fn a_purchase_that_outlives_its_undos_lease_is_undone_and_not_201() {
    let world = World::start().await;
    for key in [None, Some("k")] {
        let held = world.behind.order.proxy.once("POST", Act::HoldAnswer);
        let purchase = world.purchase();
        let purchase = key.map_or_else(|| purchase.clone(), |key| purchase.clone().key(key));
        let slow = tokio::spawn(purchase.send());
        served(&held).await;
        assert_eq!(world.behind.effects(), (1, 1, 1));
        // As if its process had been frozen since.
        world.store.execute("UPDATE deferred SET lease_until = now() - interval '1 second'");
        world.behind.is_as_before().await;
        held.release();
        let answer = slow.await.unwrap();
        assert_blames(&answer, "rolled_back", "order");
        world.nothing_was_bought().await;
        assert_eq!(world.store.number("SELECT count(*) FROM idempotency"), 0, "given back");
    }
    let order = bought(&world.purchase().key("k").send().await);
    assert_eq!(world.get(order).send().await.ok()["status"], "PAID");
}

#[tokio::test]
async fn while_a_purchase_is_being_undone_its_key_says_so_and_then_buys_under_a_new_id() {
    let world = World::with(SHORT).await;
    let held = world.behind.order.proxy.once("POST", Act::HoldAnswer);
    let lost = tokio::spawn(world.purchase().key("k").send());
    served(&held).await;
    // Its process is gone, and both leases are over; the undo is on its way, and gets nowhere.
    let undo = world.behind.order.proxy.on("DELETE", Act::Hang);
    world.store.execute("UPDATE deferred SET lease_until = now() - interval '1 second'");
    met(&undo).await;
    world.store.execute("UPDATE idempotency SET lease_until = now() - interval '1 second'");
    for _ in 0..2 {
        let pending = world.purchase().key("k").send().await;
        assert_blames(&pending, "rollback_pending", "order");
    }
    assert_eq!(world.behind.effects(), (1, 1, 1), "nothing was begun anew");
    held.release();
    assert_ne!(lost.await.unwrap().status, 201);
    world.behind.order.proxy.heal();
    let order = until(SOON, "bought anew", async || {
        let answer = world.purchase().key("k").send().await;
        (answer.status == 201).then(|| bought(&answer))
    })
    .await;
    assert_eq!((world.behind.effects(), world.behind.left()), ((1, 1, 1), STOCK - 1));
    assert_eq!(bought(&world.purchase().key("k").send().await), order);
}

#[tokio::test]
async fn a_purchase_whose_undo_an_operator_has_discarded_is_told_by_its_key_and_bought_once() {
    let world = World::with(SHORT).await;
    // Bought, but nobody hears of it, and then nobody can take it back.
    world.behind.order.proxy.on("POST", Act::LoseAnswer);
    world.behind.order.proxy.on("DELETE", Act::Reset);
    let pending = world.purchase().key("k").send().await;
    assert_blames(&pending, "rollback_pending", "order");
    let list = world.client.get("/manage/deferred").send().await.ok();
    let id = uid(&list["calls"][0]["id"]);
    until(SOON, "it is discarded", async || {
        let discard = world.client.post(format!("/manage/deferred/{id}/discard"));
        (discard.send().await.status == 200).then_some(())
    })
    .await;
    world.behind.order.proxy.heal();
    let reset = json!({"action": "reset"});
    world.client.post("/manage/resilience/order/write").json(&reset).send().await.ok();
    let order = bought(&world.purchase().key("k").send().await);
    assert_eq!(order, id, "it is the one that was made before");
    assert_eq!((world.behind.effects(), world.behind.left()), ((1, 1, 1), STOCK - 1));
    assert_eq!(bought(&world.purchase().key("k").send().await), order);
    assert_eq!(world.store.number("SELECT count(*) FROM deferred"), 0, "nobody will undo it");
}
