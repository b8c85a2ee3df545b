//! Something happened, and its reply is lost; or it happens after it was given up.

use std::time::{Duration, Instant};

use service::testing::network::Act;
use service::testing::until;

use crate::world::shop::{MODEL, Promise as _, prompt};
use crate::world::{Part, World, served};

/// It is carried out, and its reply is cut off in the status line.
const LOST: Act = Act::CutAnswer(12);

const PLACE: &str = "POST /api/v1/orders/";
const RETURN: &str = "DELETE /api/v1/orders/";
const TAKE: &str = "POST /api/v1/warehouse";
const GIVE_BACK: &str = "DELETE /api/v1/warehouse/";
const START: &str = "POST /api/v1/warranty/";
const CLOSE: &str = "DELETE /api/v1/warranty/";

async fn world() -> World {
    let plan = World::plan().proxied(Part::Order).proxied(Part::Warehouse);
    plan.proxied(Part::Warranty).impatient().start().await
}

#[tokio::test]
async fn purchase_is_undone_whichever_reply_is_lost() {
    let world = world().await;
    for (part, step) in [(Part::Order, PLACE), (Part::Warehouse, TAKE), (Part::Warranty, START)] {
        let lost = world.proxy(part).once(step, LOST);
        prompt(world.buy()).await.blames("rolled_back", part);
        assert_eq!(lost.hits(), 1, "{step}");
        // Confirmed: nothing is left at once.
        world.settles_with(&[]).await;
    }
    let order = world.bought().await;
    world.settles_with(&[order]).await;
}

#[tokio::test]
async fn purchase_is_undone_when_the_reply_to_its_undo_is_lost_too() {
    let world = world().await;
    for (part, step, undo) in [
        (Part::Order, PLACE, RETURN),
        (Part::Warehouse, TAKE, GIVE_BACK),
        (Part::Warranty, START, CLOSE),
    ] {
        let (lost, undo_lost) =
            (world.proxy(part).once(step, LOST), world.proxy(part).once(undo, LOST));
        let answer = prompt(world.buy()).await;
        assert_eq!((lost.hits(), undo_lost.hits()), (1, 1), "{step}");
        // Repeated within the budget, or later.
        let code = answer.json()["code"].as_str().unwrap().to_owned();
        assert!(["rolled_back", "rollback_pending"].contains(&code.as_str()), "{answer:?}");
        answer.blames(&code, part);
        world.settles_with(&[]).await;
    }
}

#[tokio::test]
async fn call_that_arrives_after_its_undo_does_nothing() {
    let world = world().await;
    for (part, step) in [(Part::Order, PLACE), (Part::Warehouse, TAKE), (Part::Warranty, START)] {
        let held = world.proxy(part).once(step, Act::Hold);
        let answer = prompt(world.buy()).await;
        // Waiting for Order leaves little time to wait for its undo.
        let pending = part == Part::Order && answer.json()["code"] == "rollback_pending";
        answer.blames(if pending { "rollback_pending" } else { "rolled_back" }, part);
        assert_eq!(held.hits(), 1, "{step}");
        world.settles_with(&[]).await;
        world.proxy(part).heal();
        served(&held, 1).await;
        world.settles_with(&[]).await;
        assert_eq!(world.left(MODEL), 10_000);
    }
}

#[tokio::test]
async fn reply_that_comes_after_it_was_given_up_changes_nothing() {
    let world = world().await;
    for (part, step) in [(Part::Order, PLACE), (Part::Warehouse, TAKE), (Part::Warranty, START)] {
        let held = world.proxy(part).once(step, Act::HoldAnswer);
        let answer = world.buy().send().await;
        // Waiting for Order leaves little time to wait for its undo.
        let pending = part == Part::Order && answer.json()["code"] == "rollback_pending";
        answer.blames(if pending { "rollback_pending" } else { "rolled_back" }, part);
        assert_eq!(held.hits(), 1, "{step}");
        world.settles_with(&[]).await;
        world.proxy(part).heal();
        served(&held, 1).await;
        world.settles_with(&[]).await;
    }
    let order = world.bought().await;
    let before = world.get(order).send().await.ok();
    let held = world.proxy(Part::Warranty).once(CLOSE, Act::HoldAnswer);
    prompt(world.refund(order)).await.blames("rolled_back", Part::Warranty);
    world.proxy(Part::Warranty).heal();
    served(&held, 1).await;
    assert_eq!(world.get(order).send().await.ok(), before);
    world.settles_with(&[order]).await;
    let held = world.proxy(Part::Warehouse).once(GIVE_BACK, Act::HoldAnswer);
    prompt(world.refund(order)).await.no_content();
    world.proxy(Part::Warehouse).heal();
    served(&held, 1).await;
    world.settles_with(&[]).await;
}

#[tokio::test]
async fn refund_whose_close_lost_its_reply_re_opens_the_warranty_exactly() {
    let world = world().await;
    let order = world.bought().await;
    world.claim(order).send().await.ok();
    let before = world.get(order).send().await.ok();
    let lost = world.proxy(Part::Warranty).once(CLOSE, LOST);
    prompt(world.refund(order)).await.blames("rolled_back", Part::Warranty);
    assert_eq!(lost.hits(), 1);
    assert_eq!(world.get(order).send().await.ok(), before);
    world.settles_with(&[order]).await;
    prompt(world.refund(order)).await.no_content();
    world.settles_with(&[]).await;
}

#[tokio::test]
async fn close_that_arrives_after_it_was_undone_does_nothing() {
    let world = world().await;
    let order = world.bought().await;
    let before = world.get(order).send().await.ok();
    let held = world.proxy(Part::Warranty).once(CLOSE, Act::Hold);
    prompt(world.refund(order)).await.blames("rolled_back", Part::Warranty);
    world.proxy(Part::Warranty).heal();
    served(&held, 1).await;
    assert_eq!(world.get(order).send().await.ok(), before);
    world.settles_with(&[order]).await;
}

#[tokio::test]
async fn refund_whose_item_s_return_lost_its_reply_is_completed() {
    let world = world().await;
    let order = world.bought().await;
    let lost = world.proxy(Part::Warehouse).once(GIVE_BACK, LOST);
    prompt(world.refund(order)).await.no_content();
    assert_eq!(lost.hits(), 1);
    assert_eq!(world.left(MODEL), 10_000);
    world.settles_with(&[]).await;
}

#[tokio::test]
async fn refund_that_can_t_be_completed_in_time_is_pending_and_completed_by_itself() {
    let world = world().await;
    let order = world.bought().await;
    let warehouse = world.proxy(Part::Warehouse);
    let lost = warehouse.on(GIVE_BACK, LOST);
    prompt(world.refund(order)).await.blames("refund_pending", Part::Warehouse);
    assert!(lost.hits() >= 1);
    warehouse.heal();
    world.settles_with(&[]).await;
    assert_eq!(world.left(MODEL), 10_000);
    prompt(world.refund(order)).await.no_content();
}

#[tokio::test]
async fn refund_whose_answer_is_lost_is_of_unknown_outcome_and_can_be_repeated() {
    let world = world().await;
    let order = world.bought().await;
    let lost = world.proxy(Part::Order).once(RETURN, LOST);
    prompt(world.refund(order)).await.blames("outcome_unknown", Part::Order);
    assert_eq!(lost.hits(), 1);
    prompt(world.refund(order)).await.no_content();
    assert_eq!(world.left(MODEL), 10_000);
    world.settles_with(&[]).await;
}

#[tokio::test]
async fn claim_whose_answer_is_lost_is_decided_once_under_its_key() {
    let world = world().await;
    for (part, step) in [
        (Part::Order, "POST /api/v1/orders/"),
        (Part::Warehouse, "POST /api/v1/warehouse/"),
        (Part::Warranty, "POST /api/v1/warranty/"),
    ] {
        let order = world.bought().await;
        let key = format!("claim at {part:?}").replace(' ', "-");
        let lost = world.proxy(part).once(step, LOST);
        prompt(world.claim(order).key(&key)).await.queued(order);
        assert_eq!(lost.hits(), 1, "{step}");
        let begin = Instant::now();
        let decided = until(Duration::from_secs(7), "the claim is decided", async || {
            let answer = world.claim(order).key(&key).send().await;
            (answer.status == 200).then_some(answer)
        })
        .await;
        let decided = decided.ok();
        assert_eq!(decided["decision"], "RETURN", "{part:?}, after {:?}", begin.elapsed());
        let claims = world.claims(order).send().await.ok();
        assert_eq!(claims.as_array().unwrap().len(), 1);
        assert_eq!(claims[0]["claimUid"], decided["claimUid"]);
    }
}
