//! Returning orders: as it goes well, and where it goes back or forward when it doesn't.

use serde_json::{Value, json};
use service::testing::network::{Act, DEFECT, ENDING, RUBBISH, Rule};
use service::testing::{Response, assert_envelope, until};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::world::{Party, SHORT, SOON, STOCK, World, assert_blames, served};

/// An order, and the warranty of its item, which is used already.
struct Bought {
    user: Uuid,
    order: Uuid,
    item: Uuid,
    warranty: Value,
}

impl Bought {
    async fn from(world: &World) -> Self {
        let user = Uuid::new_v4();
        let order = world.placed(user).await;
        world.claim(order, "broken,\nbadly").send().await.ok();
        let item = world.item_of(user, order).await;
        let warranty = world.warranty_of(item).await;
        assert_eq!(warranty["status"], "USE_WARRANTY");
        for party in [&world.warehouse, &world.warranty] {
            party.proxy.forget();
        }
        Self { user, order, item, warranty }
    }

    async fn status(&self, world: &World) -> Value {
        world.get(self.user, self.order).send().await.ok()["status"].clone()
    }

    /// All is as if the return had never been asked for.
    async fn is_as_before(&self, world: &World) {
        assert_eq!(self.status(world).await, "PAID");
        assert_eq!(world.warranty_of(self.item).await, self.warranty);
        assert_eq!(world.left(), STOCK - 1);
    }

    async fn is_returned(&self, world: &World) {
        assert_eq!(self.status(world).await, "CANCELED");
        assert_eq!(world.warranty_of(self.item).await["status"], "REMOVED_FROM_WARRANTY");
        assert_eq!(world.left(), STOCK);
    }

    /// The user tries again.
    async fn can_be_returned(&self, world: &World) {
        until(SOON, "returned", async || {
            let answer = world.give_back(self.order).send().await;
            (answer.status == 204).then_some(())
        })
        .await;
        self.is_returned(world).await;
    }
}

#[tokio::test]
async fn a_return_closes_the_warranty_gives_the_item_back_and_marks_the_order() {
    let world = World::start().await;
    let bought = Bought::from(&world).await;
    world.give_back(bought.order).send().await.no_content();
    bought.is_returned(&world).await;
    assert_eq!(world.open_sagas(), 0);
    // It stays in the list.
    let listed = world.list(bought.user).send().await.ok();
    assert_eq!(
        (&listed[0]["orderUid"], &listed[0]["status"]),
        (&json!(bought.order), &json!("CANCELED"))
    );
}

#[tokio::test]
async fn repeating_a_return_is_204_and_asks_nobody() {
    let world = World::start().await;
    let bought = Bought::from(&world).await;
    world.give_back(bought.order).send().await.no_content();
    world.warehouse.proxy.down().await;
    world.warranty.proxy.down().await;
    for _ in 0..3 {
        world.give_back(bought.order).send().await.no_content();
    }
    bought.is_returned(&world).await;
}

#[tokio::test]
async fn an_unknown_order_is_404_and_asks_nobody() {
    let world = World::start().await;
    let refused = world.give_back(Uuid::new_v4()).send().await;
    assert_envelope(&refused, 404, "order_not_found");
    assert_eq!(world.warehouse.proxy.count("*") + world.warranty.proxy.count("*"), 0);
}

#[tokio::test]
async fn an_item_that_surely_was_not_given_back_reopens_the_warranty_exactly() {
    let world = World::start().await;
    let bought = Bought::from(&world).await;
    world.warehouse.proxy.down().await;
    let failed = world.give_back(bought.order).send().await;
    assert_blames(&failed, "rolled_back", "warehouse");
    bought.is_as_before(&world).await;
    world.warehouse.proxy.up();

    world.warehouse.proxy.on("DELETE", ENDING);
    let failed = world.give_back(bought.order).send().await;
    assert_blames(&failed, "rolled_back", "warehouse");
    bought.is_as_before(&world).await;
    // Each attempt closed it, and each was undone.
    let closes = |seen: &str| world.warranty.proxy.count(seen);
    assert_eq!((closes("DELETE"), closes("POST")), (2, 2));

    world.warehouse.proxy.heal();
    bought.can_be_returned(&world).await;
}

#[tokio::test]
async fn an_item_that_warehouse_refuses_to_take_back_reopens_the_warranty() {
    let world = World::start().await;
    let bought = Bought::from(&world).await;
    world.warehouse.execute("DELETE FROM order_item");
    let refused = world.give_back(bought.order).send().await;
    assert_envelope(&refused, 404, "item_not_found");
    bought.is_as_before(&world).await;
}

#[tokio::test]
async fn a_return_whose_outcome_is_unknown_goes_forward_and_is_204_within_the_budget() {
    let world = World::start().await;
    for act in [Act::LoseAnswer, Act::Reset, DEFECT, RUBBISH] {
        let bought = Bought::from(&world).await;
        world.warehouse.proxy.once("DELETE", act.clone());
        world.give_back(bought.order).send().await.no_content();
        bought.is_returned(&world).await;
        assert_eq!(world.warehouse.proxy.count("DELETE"), 2, "{act:?}");
        // Never re-opened on the way.
        assert_eq!(world.warranty.proxy.count("POST"), 0, "{act:?}");
    }
}

#[tokio::test]
async fn a_return_that_cannot_be_completed_in_time_is_pending_and_completed_later() {
    let world = World::with(SHORT).await;
    let bought = Bought::from(&world).await;
    // The item is back at once, but nobody hears of it.
    world.warehouse.proxy.on("DELETE", Act::LoseAnswer);
    let pending = world.give_back(bought.order).send().await;
    assert_blames(&pending, "refund_pending", "warehouse");
    assert_eq!(world.left(), STOCK);
    assert_eq!(bought.status(&world).await, "PAID");
    assert_eq!(world.warranty_of(bought.item).await["status"], "REMOVED_FROM_WARRANTY");
    // Asking again tells the same, and takes nothing back.
    let again = world.give_back(bought.order).send().await;
    assert_blames(&again, "refund_pending", "warehouse");

    world.warehouse.proxy.heal();
    until(SOON, "completed without being asked again", async || {
        (bought.status(&world).await == "CANCELED").then_some(())
    })
    .await;
    bought.is_returned(&world).await;
    assert_eq!(world.warranty.proxy.count("POST"), 0);
    world.give_back(bought.order).send().await.no_content();
}

#[tokio::test]
async fn a_close_whose_outcome_is_unknown_is_undone_exactly() {
    let world = World::start().await;
    let bought = Bought::from(&world).await;
    for act in [Act::LoseAnswer, Act::Reset, DEFECT, RUBBISH] {
        world.warranty.proxy.once("DELETE", act);
        let failed = world.give_back(bought.order).send().await;
        assert_blames(&failed, "rolled_back", "warranty");
        bought.is_as_before(&world).await;
    }
    // The item was never asked for.
    assert_eq!(world.warehouse.proxy.count("*"), 0);
    bought.can_be_returned(&world).await;
}

#[tokio::test]
async fn a_close_that_arrives_after_its_undo_does_nothing() {
    let world = World::with(SHORT).await;
    let bought = Bought::from(&world).await;
    let held = world.warranty.proxy.once("DELETE", Act::Hold);
    let failed = world.give_back(bought.order).send().await;
    assert_blames(&failed, "rolled_back", "warranty");
    bought.is_as_before(&world).await;
    held.release();
    served(&held).await;
    bought.is_as_before(&world).await;
    bought.can_be_returned(&world).await;
}

#[tokio::test]
async fn a_close_whose_answer_comes_after_it_was_given_up_is_undone_exactly() {
    let world = World::with(SHORT).await;
    let bought = Bought::from(&world).await;
    let held = world.warranty.proxy.once("DELETE", Act::HoldAnswer);
    let failed = world.give_back(bought.order).send().await;
    assert_blames(&failed, "rolled_back", "warranty");
    bought.is_as_before(&world).await;
    held.release();
    served(&held).await;
    bought.is_as_before(&world).await;
    bought.can_be_returned(&world).await;
}

#[tokio::test]
async fn a_close_that_arrives_after_it_was_undone_leaves_a_later_claim_alone() {
    let world = World::with(SHORT).await;
    let user = Uuid::new_v4();
    let order = world.placed(user).await;
    let item = world.item_of(user, order).await;
    let held = world.warranty.proxy.once("DELETE", Act::Hold);
    assert_blames(&world.give_back(order).send().await, "rolled_back", "warranty");
    world.claim(order, "broken since").send().await.ok();
    let claimed = world.warranty_of(item).await;
    assert_eq!(claimed["status"], "USE_WARRANTY");
    held.release();
    served(&held).await;
    assert_eq!(world.warranty_of(item).await, claimed);
}

#[tokio::test]
async fn a_re_opening_that_arrives_after_a_later_return_opens_nothing() {
    let world = World::with(SHORT).await;
    let bought = Bought::from(&world).await;
    world.warehouse.proxy.down().await;
    let held = world.warranty.proxy.once("POST", Act::Hold);
    let failed = world.give_back(bought.order).send().await;
    assert_blames(&failed, "rollback_pending", "warranty");
    // It is repeated, and that one arrives.
    until(SOON, "re-opened", async || (world.open_sagas() == 0).then_some(())).await;
    bought.is_as_before(&world).await;
    world.warehouse.proxy.up();
    bought.can_be_returned(&world).await;
    held.release();
    served(&held).await;
    bought.is_returned(&world).await;
}

#[tokio::test]
async fn an_item_s_return_that_comes_late_or_is_answered_late_is_one_return() {
    let world = World::with(SHORT).await;
    for act in [Act::Hold, Act::HoldAnswer] {
        world.stock("M", STOCK);
        let bought = Bought::from(&world).await;
        let held = world.warehouse.proxy.once("DELETE", act.clone());
        // Given up after its timeout, and repeated.
        world.give_back(bought.order).send().await.no_content();
        bought.is_returned(&world).await;
        held.release();
        served(&held).await;
        bought.is_returned(&world).await;
        assert_eq!(world.warranty.proxy.count("POST"), 0, "{act:?}");
    }
}

#[tokio::test]
async fn a_warranty_that_is_down_leaves_all_as_it_was() {
    let world = World::start().await;
    let bought = Bought::from(&world).await;
    world.warranty.proxy.down().await;
    let failed = world.give_back(bought.order).send().await;
    assert_blames(&failed, "rolled_back", "warranty");
    assert_eq!(world.warehouse.proxy.count("*"), 0);
    bought.is_as_before(&world).await;
    world.warranty.proxy.up();
    bought.can_be_returned(&world).await;
}

#[tokio::test]
async fn a_warranty_that_cannot_be_reopened_at_once_is_reopened_later() {
    let world = World::with(SHORT).await;
    let bought = Bought::from(&world).await;
    world.warehouse.proxy.down().await;
    world.warranty.proxy.on("POST", Act::Reset);
    let failed = world.give_back(bought.order).send().await;
    assert_blames(&failed, "rollback_pending", "warranty");
    assert_eq!(world.warranty_of(bought.item).await["status"], "REMOVED_FROM_WARRANTY");
    // Until that is confirmed no other return begins.
    let early = world.give_back(bought.order).send().await;
    assert_blames(&early, "rollback_pending", "warranty");

    world.warranty.proxy.heal();
    until(SOON, "re-opened without being asked again", async || {
        (world.open_sagas() == 0).then_some(())
    })
    .await;
    bought.is_as_before(&world).await;
    world.warehouse.proxy.up();
    bought.can_be_returned(&world).await;
}

#[tokio::test]
async fn an_item_without_a_warranty_is_returned_all_the_same() {
    let world = World::start().await;
    let bought = Bought::from(&world).await;
    world.warranty.execute("DELETE FROM warranty");
    world.give_back(bought.order).send().await.no_content();
    assert_eq!(bought.status(&world).await, "CANCELED");
    assert_eq!(world.left(), STOCK);
}

/// A return that is held at Warranty or Warehouse, and is silent for as long as one whose process
/// has died.
async fn silent(world: &World, party: &Party, bought: &Bought) -> (Rule, JoinHandle<Response>) {
    let held = party.proxy.once("DELETE", Act::Hold);
    let returning = tokio::spawn(world.give_back(bought.order).send());
    until(SOON, "it is on its way", async || (party.proxy.count("DELETE") == 1).then_some(()))
        .await;
    // Nor does it hear of its own heartbeats any more.
    world.order.execute(
        "UPDATE saga SET lease_until = now() - interval '1 second', fence = fence + 1
         WHERE ended_at IS NULL",
    );
    (held, returning)
}

#[tokio::test]
async fn the_next_return_undoes_what_a_crash_left_before_the_pivot() {
    let world = World::start().await;
    let bought = Bought::from(&world).await;
    let (held, silent) = silent(&world, &world.warranty, &bought).await;
    // Warehouse says no, so all must be what it was before the crash.
    world.warehouse.proxy.on("DELETE", ENDING);
    let failed = world.give_back(bought.order).send().await;
    assert_blames(&failed, "rolled_back", "warehouse");
    bought.is_as_before(&world).await;
    // It was only slow: it finds out, and does nothing more.
    held.release();
    assert_envelope(&silent.await.unwrap(), 503, "rolled_back");
    bought.is_as_before(&world).await;
    world.warehouse.proxy.heal();
    bought.can_be_returned(&world).await;
}

#[tokio::test]
async fn the_next_return_completes_what_a_crash_left_behind_the_pivot() {
    let world = World::start().await;
    let bought = Bought::from(&world).await;
    let (held, silent) = silent(&world, &world.warehouse, &bought).await;
    world.give_back(bought.order).send().await.no_content();
    bought.is_returned(&world).await;
    held.release();
    silent.await.unwrap().no_content();
    bought.is_returned(&world).await;
    // Closed once, and never re-opened.
    assert_eq!((world.warranty.proxy.count("DELETE"), world.warranty.proxy.count("POST")), (1, 0));
}

#[tokio::test]
async fn a_return_that_its_own_database_fails_before_the_pivot_re_opens_the_warranty_by_itself() {
    let world = World::start().await;
    let bought = Bought::from(&world).await;
    world.order.execute(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'not now'; END $$;
         CREATE TRIGGER fail BEFORE UPDATE ON saga FOR EACH ROW
             WHEN (NEW.forward) EXECUTE FUNCTION fail()",
    );
    let failed = world.give_back(bought.order).send().await;
    assert_envelope(&failed, 503, "rolled_back");
    until(SOON, "re-opened", async || {
        (world.warranty_of(bought.item).await == bought.warranty).then_some(())
    })
    .await;
    bought.is_as_before(&world).await;
    world.order.execute("DROP TRIGGER fail ON saga");
    bought.can_be_returned(&world).await;
}

#[tokio::test]
async fn an_item_that_is_unknown_behind_the_pivot_has_nothing_to_return() {
    let world = World::start().await;
    let bought = Bought::from(&world).await;
    world.warehouse.execute("DELETE FROM order_item");
    let (held, silent) = silent(&world, &world.warehouse, &bought).await;
    // Whoever takes over doesn't know that it was never asked for.
    silent.await.unwrap().no_content();
    assert_eq!(bought.status(&world).await, "CANCELED");
    let closed = world.warranty_of(bought.item).await;
    assert_eq!(closed["status"], "REMOVED_FROM_WARRANTY");
    held.release();
}
