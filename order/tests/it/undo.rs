//! The undo of a placing whose outcome the caller does not know.

use serde_json::json;
use service::testing::network::Act;
use service::testing::{assert_envelope, until};
use uuid::Uuid;

use crate::world::{SHORT, SOON, STOCK, World, assert_blames, wish_as};

#[tokio::test]
async fn an_undo_before_the_placing_refuses_the_late_placing() {
    let world = World::start().await;
    let (user, order) = (Uuid::new_v4(), Uuid::new_v4());
    for _ in 0..2 {
        world.give_back(order).compensate().send().await.no_content();
    }
    assert_eq!(world.order.number("SELECT count(*) FROM tombstones"), 1);
    for _ in 0..2 {
        let late = world.place(user, &wish_as(order)).send().await;
        assert_envelope(&late, 409, "already_undone");
    }
    assert_envelope(&world.get(user, order).send().await, 404, "order_not_found");
    assert_eq!((world.effects(), world.left()), ((0, 0, 0), STOCK));
    // Without the header it is the return of what never was.
    assert_envelope(&world.give_back(order).send().await, 404, "order_not_found");
}

#[tokio::test]
async fn an_undone_order_disappears_with_all_that_it_held() {
    let world = World::start().await;
    let user = Uuid::new_v4();
    let (order, kept) = (world.placed(user).await, world.placed(user).await);
    let item = world.item_of(user, order).await;
    for _ in 0..2 {
        world.give_back(order).compensate().send().await.no_content();
        assert_envelope(&world.get(user, order).send().await, 404, "order_not_found");
        let list = world.list(user).send().await;
        assert_eq!(list.header("x-total-count"), Some("1"));
        assert_eq!(list.ok()[0]["orderUid"], json!(kept));
        assert_eq!(world.warranty_of(item).await["status"], "REMOVED_FROM_WARRANTY");
        assert_eq!((world.effects(), world.left()), ((1, 1, 1), STOCK - 1));
    }
    let late = world.place(user, &wish_as(order)).send().await;
    assert_envelope(&late, 409, "already_undone");
    assert_envelope(&world.claim(order, "x").send().await, 404, "order_not_found");
}

#[tokio::test]
async fn an_order_that_was_refunded_stays() {
    let world = World::start().await;
    let user = Uuid::new_v4();
    let order = world.placed(user).await;
    world.give_back(order).send().await.no_content();
    world.give_back(order).compensate().send().await.no_content();
    assert_eq!(world.get(user, order).send().await.ok()["status"], "CANCELED");
    assert_eq!((world.effects(), world.left()), ((0, 0, 0), STOCK));
    world.give_back(order).send().await.no_content();
}

#[tokio::test]
async fn an_undo_that_overtakes_the_placing_wins_and_leaves_nothing() {
    let world = World::start().await;
    // While its last step is still on its way, and when only its answer is.
    for act in [Act::Hold, Act::HoldAnswer] {
        let (user, order) = (Uuid::new_v4(), Uuid::new_v4());
        let answered = act == Act::HoldAnswer;
        world.warranty.proxy.forget();
        let held = world.warranty.proxy.once("POST", act);
        let placing = tokio::spawn(world.place(user, &wish_as(order)).send());
        until(SOON, "it is at its last step", async || {
            let seen = world.warranty.proxy.seen();
            let at_it = seen.iter().any(|seen| seen.status.is_some() || !answered);
            at_it.then_some(())
        })
        .await;
        world.give_back(order).compensate().send().await.no_content();
        held.release();
        assert_envelope(&placing.await.unwrap(), 409, "already_undone");
        world.is_as_before().await;
        assert_envelope(&world.get(user, order).send().await, 404, "order_not_found");
    }
}

#[tokio::test]
async fn an_undo_that_cannot_reach_everyone_is_completed_later() {
    let world = World::with(SHORT).await;
    let user = Uuid::new_v4();
    for (party, name) in [(&world.warehouse, "warehouse"), (&world.warranty, "warranty")] {
        let order = world.placed(user).await;
        party.proxy.on("DELETE", Act::Reset);
        let pending = world.give_back(order).compensate().send().await;
        assert_blames(&pending, "rollback_pending", name);
        // Whatever is still held for it, it is no order any more.
        assert_envelope(&world.get(user, order).send().await, 404, "order_not_found");
        party.proxy.heal();
        world.is_as_before().await;
        until(SOON, "confirmed", async || {
            let answer = world.give_back(order).compensate().send().await;
            (answer.status == 204).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn only_the_header_with_true_makes_it_an_undo() {
    let world = World::start().await;
    for (value, status, code) in [
        ("false", 404, "order_not_found"),
        ("yes", 400, "invalid_request"),
        ("1", 400, "invalid_request"),
        ("", 400, "invalid_request"),
    ] {
        let call = world.give_back(Uuid::new_v4()).header("X-Compensate", value);
        assert_envelope(&call.send().await, status, code);
    }
    assert_eq!(world.order.number("SELECT count(*) FROM tombstones"), 0);
}
