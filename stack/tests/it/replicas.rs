//! Two of every service on the same databases keep the same promises.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use service::testing::network::Act;
use service::testing::{Response, assert_envelope, until};
use uuid::Uuid;

use crate::outage::{Away, outage};
use crate::purchase::{forty_purchases_of_ten_items, purchase_list_claim_and_refund};
use crate::world::shop::{ALEX, MODEL, Promise as _, SIZE, prompt};
use crate::world::{Part, World, met, served};

async fn two_of_each() -> World {
    World::plan().replicas(2).start().await
}

#[tokio::test]
async fn two_replicas_sell_claim_and_refund() {
    purchase_list_claim_and_refund(&two_of_each().await).await;
}

#[tokio::test]
async fn two_replicas_sell_ten_items_ten_times() {
    forty_purchases_of_ten_items(&two_of_each().await).await;
}

#[tokio::test]
async fn two_replicas_cost_what_the_contract_says_while_both_warehouses_are_frozen() {
    outage(&two_of_each().await, Part::Warehouse, Away::Frozen).await;
}

#[tokio::test]
#[ignore = "nightly: every outage once more takes minutes"]
async fn two_replicas_cost_what_the_contract_says_in_every_outage() {
    for part in [Part::Warehouse, Part::Warranty, Part::Order] {
        for away in [Away::Stopped, Away::Killed, Away::Frozen] {
            outage(&two_of_each().await, part, away).await;
        }
    }
}

#[tokio::test]
async fn key_is_one_key_at_both_replicas() {
    let world = World::plan().replicas(2).proxied(Part::Order).start().await;
    let order = world.proxy(Part::Order);
    let held = order.once("POST /api/v1/orders/", Act::Hold);
    let retries = async {
        met(&held).await;
        for _ in 0..2 {
            let told = prompt(world.buy().key("k")).await;
            assert_envelope(&told, 409, "idempotency_in_progress");
        }
        order.heal();
    };
    let (first, ()) = tokio::join!(prompt(world.buy().key("k")), retries);
    let first = first.bought();
    for _ in 0..2 {
        assert_eq!(world.buy().key("k").send().await.bought(), first);
    }
    world.settles_with(&[first]).await;
}

#[tokio::test]
async fn other_replica_takes_over_what_a_crash_left() {
    let world = World::plan().replicas(2).proxied(Part::Order).start().await;
    let order = world.proxy(Part::Order);
    let held = order.once("POST /api/v1/orders/", Act::Hold);
    let first = world.replica(Part::Store, 0);
    let wish = json!({"model": MODEL, "size": SIZE});
    let target = format!("/api/v1/store/{ALEX}/purchase");
    let crash = async {
        met(&held).await;
        first.kill().await;
    };
    let call = first.client().post(&target).json(&wish).key("k");
    let (cut, ()) = tokio::join!(call.try_send(), crash);
    assert!(cut.is_err(), "{cut:?}");
    order.heal();
    // Within the lease of 5 s, and some time for the request.
    let second = world.replica(Part::Store, 1).client();
    let bought = until(Duration::from_secs(8), "the other one takes over", async || {
        let answer = second.post(&target).json(&wish).key("k").send().await;
        (answer.status == 201).then(|| answer.bought())
    });
    let bought = bought.await;
    served(&held, 1).await;
    world.settles_with(&[bought]).await;
}

#[tokio::test]
async fn crash_of_one_order_is_felt_by_its_callers_alone() {
    let world = two_of_each().await;
    world.replica(Part::Order, 0).kill().await;
    let mut bought = Vec::new();
    let mut refused = 0;
    for _ in 0..10 {
        let answer = prompt(world.buy()).await;
        if answer.status == 201 {
            bought.push(answer.bought());
        } else {
            answer.blames("rolled_back", Part::Order);
            refused += 1;
        }
    }
    assert_eq!((bought.len(), refused), (5, 5));
    world.settles_with(&bought).await;
    world.restart(Part::Order).await;
    bought.extend(world.works_again(Instant::now()).await);
    world.settles_with(&bought).await;
}

/// 204, or 503 that says to repeat.
#[track_caller]
fn is_refunded_or_to_be_repeated(answer: &Response) {
    if answer.status != 204 {
        let code = answer.json()["code"].as_str().unwrap_or_default().to_owned();
        assert_envelope(answer, 503, &code);
    }
}

#[tokio::test]
async fn twenty_refunds_of_an_order_at_once_return_its_item_once() {
    let world = two_of_each().await;
    for _ in 0..5 {
        let order = world.bought().await;
        let refunds = (0..20).map(|_| prompt(world.refund(order)));
        for answer in join_all(refunds).await {
            is_refunded_or_to_be_repeated(&answer);
        }
        prompt(world.refund(order)).await.no_content();
        assert_eq!(world.left(MODEL), 10_000);
        world.settles_with(&[]).await;
    }
}

#[tokio::test]
async fn claim_and_refund_at_once_leave_the_order_refunded() {
    let world = two_of_each().await;
    for _ in 0..20 {
        let order = world.bought().await;
        let (claim, refund) = tokio::join!(prompt(world.claim(order)), prompt(world.refund(order)));
        let decision = claim.ok()["decision"].as_str().unwrap().to_owned();
        assert!(["RETURN", "REFUSED"].contains(&decision.as_str()), "{decision}");
        refund.no_content();
        let shown = world.get(order).send().await.ok();
        assert_eq!(shown["warrantyStatus"], "REMOVED_FROM_WARRANTY");
    }
    world.settles_with(&[]).await;
}

#[tokio::test]
async fn order_is_never_there_after_its_undo_was_confirmed() {
    race_place_and_undo(60).await;
}

#[tokio::test]
#[ignore = "nightly: more of the same race"]
async fn order_is_never_there_after_its_undo_was_confirmed_in_2000_rounds() {
    race_place_and_undo(2000).await;
}

async fn race_place_and_undo(rounds: u32) {
    let world = two_of_each().await;
    let [one, other] = [0, 1].map(|replica| world.replica(Part::Order, replica).client());
    let (mut placed, mut refused) = (0, 0);
    for round in 0..rounds {
        let order = Uuid::new_v4();
        let wish = json!({"model": MODEL, "size": SIZE, "orderUid": order});
        let path = format!("/api/v1/orders/{order}");
        let place = one.post(format!("/api/v1/orders/{ALEX}")).json(&wish).send();
        let undo = async {
            // From before the first step to behind the last one.
            tokio::time::sleep(Duration::from_micros(u64::from(round % 30) * 1000)).await;
            until(Duration::from_secs(5), "the undo is confirmed", async || {
                let undone = other.delete(&path).compensate().send().await;
                (undone.status == 204).then_some(())
            })
            .await;
            // From here on it is not there, whatever its placing is at.
            let missing = one.get(format!("/api/v1/orders/{ALEX}/{order}")).send().await;
            assert_envelope(&missing, 404, "order_not_found");
        };
        let (answer, ()) = tokio::join!(place, undo);
        match answer.status {
            200 => placed += 1,
            409 => refused += 1,
            _ => panic!("{answer:?}"),
        }
        let again = other.post(format!("/api/v1/orders/{ALEX}")).json(&wish).send().await;
        assert_envelope(&again, 409, "already_undone");
    }
    eprintln!("{placed} placed before their undo, {refused} refused after it");
    world.settles_with(&[]).await;
    assert_eq!(world.left(MODEL), 10_000);
}
