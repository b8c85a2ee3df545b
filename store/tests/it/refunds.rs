//! Refunds while a system is away: all is as before, or goes forward.

use serde_json::{Value, json};
use service::testing::network::{Act, DEFECT, RUBBISH};
use service::testing::{assert_envelope, sql, until};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::world::{PATIENT, SHORT, SOON, STOCK, STORE, World, assert_blames, met};

/// An order whose warranty is used already.
struct Bought {
    order: Uuid,
    item: Uuid,
    element: Value,
    warranty: Value,
}

impl Bought {
    async fn from(world: &World) -> Self {
        let order = world.bought().await;
        world.claim(order, "broken").send().await.ok();
        let item = world.behind.item_of(world.user, order).await;
        let warranty = world.behind.warranty_of(item).await;
        let element = world.get(order).send().await.ok();
        assert_eq!(element["warrantyStatus"], "USE_WARRANTY");
        Self { order, item, element, warranty }
    }

    async fn is_as_before(&self, world: &World) {
        assert_eq!(world.behind.warranty_of(self.item).await, self.warranty);
        assert_eq!((world.behind.effects(), world.behind.left()), ((1, 1, 1), STOCK - 1));
        until(SOON, "shown as before", async || {
            let shown = world.get(self.order).send().await;
            (shown.json() == self.element).then_some(())
        })
        .await;
    }

    /// The user tries again.
    async fn can_be_refunded(&self, world: &World) {
        until(SOON, "refunded", async || {
            (world.refund(self.order).send().await.status == 204).then_some(())
        })
        .await;
        self.is_refunded(world).await;
    }

    async fn is_refunded(&self, world: &World) {
        let shown = world.get(self.order).send().await.ok();
        assert_eq!(shown["status"], "CANCELED");
        assert_eq!(shown["warrantyStatus"], "REMOVED_FROM_WARRANTY");
        assert_eq!((world.behind.effects(), world.behind.left()), ((0, 0, 0), STOCK));
    }
}

#[tokio::test]
async fn a_refund_is_rolled_back_when_any_system_is_down() {
    let world = World::start().await;
    let bought = Bought::from(&world).await;
    world.behind.order.proxy.down().await;
    assert_blames(&world.refund(bought.order).send().await, "rolled_back", "order");
    world.behind.order.proxy.up();
    bought.is_as_before(&world).await;

    world.behind.warehouse.proxy.down().await;
    assert_blames(&world.refund(bought.order).send().await, "rolled_back", "warehouse");
    world.behind.warehouse.proxy.up();
    bought.is_as_before(&world).await;

    world.behind.warranty.proxy.down().await;
    assert_blames(&world.refund(bought.order).send().await, "rolled_back", "warranty");
    world.behind.warranty.proxy.up();
    bought.is_as_before(&world).await;
    bought.can_be_refunded(&world).await;
}

#[tokio::test]
async fn a_refund_whose_answer_is_lost_is_unknown_and_repeating_it_is_safe() {
    let world = World::start().await;
    for act in [Act::LoseAnswer, Act::Reset, DEFECT, RUBBISH] {
        let bought = Bought::from(&world).await;
        world.behind.order.proxy.once("DELETE", act);
        let unknown = world.refund(bought.order).key("k").send().await;
        assert_blames(&unknown, "outcome_unknown", "order");
        // The key was given back.
        world.refund(bought.order).key("k").send().await.no_content();
        bought.is_refunded(&world).await;
    }
}

#[tokio::test]
async fn a_refund_that_may_still_come_is_never_said_to_be_rolled_back() {
    let world = World::with(SHORT).await;
    let bought = Bought::from(&world).await;
    let held = world.behind.order.proxy.once("DELETE", Act::Hold);
    let first = world.refund(bought.order).send().await;
    assert_blames(&first, "outcome_unknown", "order");
    // It is on its way still, whatever becomes of the next ones.
    world.behind.warehouse.proxy.down().await;
    let second = world.refund(bought.order).send().await;
    assert_blames(&second, "outcome_unknown", "warehouse");
    world.behind.warehouse.proxy.up();
    world.behind.order.proxy.on("GET", Act::Reset);
    assert_blames(&world.refund(bought.order).send().await, "outcome_unknown", "order");
    world.behind.order.proxy.heal();
    held.release();
    bought.can_be_refunded(&world).await;

    // Nothing of it is left to the next order.
    let next = world.bought().await;
    world.behind.warehouse.proxy.down().await;
    assert_blames(&world.refund(next).send().await, "rolled_back", "warehouse");
}

#[tokio::test]
async fn a_refund_that_can_t_come_any_more_leaves_no_doubt() {
    let world = World::with(SHORT).await;
    let bought = Bought::from(&world).await;
    world.behind.order.proxy.once("DELETE", Act::Reset);
    assert_blames(&world.refund(bought.order).send().await, "outcome_unknown", "order");
    world.behind.warehouse.proxy.down().await;
    assert_blames(&world.refund(bought.order).send().await, "outcome_unknown", "warehouse");
    let later = "UPDATE refund_attempts SET begun_at = begun_at - INTERVAL '25 hours'";
    sql::execute(world.store.url(), later).unwrap();
    assert_blames(&world.refund(bought.order).send().await, "rolled_back", "warehouse");
}

#[tokio::test]
async fn nobody_else_s_try_makes_a_user_s_own_refund_uncertain() {
    let world = World::with(PATIENT).await;
    let bought = Bought::from(&world).await;
    let other = world.new_user("Robin");
    // It is about to hear that there is no such order.
    let held = world.behind.order.proxy.once("GET", Act::Hold);
    let theirs = world.client.delete(format!("{STORE}/{other}/{}/refund", bought.order));
    let theirs = tokio::spawn(theirs.send());
    met(&held).await;
    world.behind.warehouse.proxy.down().await;
    assert_blames(&world.refund(bought.order).send().await, "rolled_back", "warehouse");
    held.release();
    assert_envelope(&theirs.await.unwrap(), 404, "order_not_found");
}

#[tokio::test]
async fn a_refund_behind_its_pivot_goes_forward_within_the_budget() {
    let world = World::start().await;
    let bought = Bought::from(&world).await;
    world.behind.warehouse.proxy.once("DELETE", Act::LoseAnswer);
    world.refund(bought.order).send().await.no_content();
    bought.is_refunded(&world).await;
}

#[tokio::test]
async fn a_refund_that_cannot_be_completed_in_time_is_pending_and_completed_later() {
    let world = World::with(SHORT).await;
    let bought = Bought::from(&world).await;
    world.behind.warehouse.proxy.on("DELETE", Act::LoseAnswer);
    for _ in 0..2 {
        let pending = world.refund(bought.order).send().await;
        assert_blames(&pending, "refund_pending", "warehouse");
    }
    world.behind.warehouse.proxy.heal();
    until(SOON, "completed without being asked again", async || {
        let shown = world.get(bought.order).send().await.json();
        (shown["status"] == "CANCELED").then_some(())
    })
    .await;
    world.refund(bought.order).send().await.no_content();
    bought.is_refunded(&world).await;
}

#[tokio::test]
async fn a_warranty_that_cannot_be_reopened_at_once_is_reopened_later() {
    let world = World::with(SHORT).await;
    let bought = Bought::from(&world).await;
    world.behind.warehouse.proxy.down().await;
    world.behind.warranty.proxy.on("POST", Act::Reset);
    let pending = world.refund(bought.order).send().await;
    assert_blames(&pending, "rollback_pending", "warranty");
    world.behind.warranty.proxy.heal();
    until(SOON, "re-opened", async || {
        let warranty = world.behind.warranty_of(bought.item).await;
        (warranty == bought.warranty).then_some(())
    })
    .await;
    world.behind.warehouse.proxy.up();
    bought.is_as_before(&world).await;
    bought.can_be_refunded(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_refunds_at_once_give_one_item_back() {
    let world = World::start().await;
    let bought = Bought::from(&world).await;
    let calls: JoinSet<_> = (0..10).map(|_| world.refund(bought.order).send()).collect();
    for answer in calls.join_all().await {
        answer.no_content();
    }
    bought.is_refunded(&world).await;
    assert_eq!(world.behind.warehouse.proxy.count("DELETE"), 1);
    assert_eq!(world.list().send().await.ok()[0]["status"], json!("CANCELED"));
}
