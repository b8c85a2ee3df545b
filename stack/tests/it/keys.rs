//! `Idempotency-Key` at Store: one effect per key, whatever happens in between.

use std::time::Duration;

use serde_json::json;
use service::testing::network::Act;
use service::testing::{Call, Response, assert_envelope, until};
use uuid::Uuid;

use crate::world::shop::{ALEX, MODEL, Promise as _, path, prompt};
use crate::world::{Part, RECOVERY, World, met, served};

/// How long a crash keeps a key, or an order's return: a lease of 4 s, and some time for the request.
const LEASE: Duration = RECOVERY;

/// Repeats a request until it succeeds. Until then it is told that it runs or is being undone, or
/// which system is away.
async fn in_the_end(limit: Duration, call: impl Fn() -> Call) -> Response {
    until(limit, "the request succeeds in the end", async || {
        let answer = call().send().await;
        if (200..300).contains(&answer.status) {
            return Some(answer);
        }
        let code = answer.json()["code"].as_str().unwrap().to_owned();
        let status = if code == "idempotency_in_progress" { 409 } else { 503 };
        assert_envelope(&answer, status, &code);
        tokio::time::sleep(Duration::from_millis(20)).await;
        None
    })
    .await
}

#[track_caller]
fn assert_same(first: &Response, again: &Response) {
    assert_eq!((first.status, first.json()), (again.status, again.json()));
    assert_eq!(first.header("location"), again.header("location"));
}

#[tokio::test]
async fn same_key_of_two_users_is_two_keys() {
    let world = World::start().await;
    let other = world.another_user();
    let first = world.buy().key("k").send().await.bought();
    let second = world.buy_as(other, MODEL).key("k").send().await.bought();
    assert_ne!(first, second);
    world.settles_with(&[first, second]).await;
}

#[tokio::test]
async fn replay_repeats_the_answer_and_nothing_else() {
    let world = World::start().await;
    let first = world.buy().key("k").send().await;
    let order = first.clone().bought();
    assert_same(&first, &world.buy().key("k").send().await);

    let claim = world.claim(order).key("k").send().await;
    assert_eq!(claim.clone().ok()["decision"], "RETURN");
    assert_same(&claim, &world.claim(order).key("k").send().await);
    assert_eq!(world.claims(order).send().await.ok().as_array().unwrap().len(), 1);
    let refused = world.claim(order).key("another").send().await.ok();
    assert_eq!(refused["decision"], "REFUSED");

    for _ in 0..2 {
        world.refund(order).key("k").send().await.no_content();
    }
    assert_same(&first, &world.buy().key("k").send().await);
    world.settles_with(&[]).await;
}

#[tokio::test]
async fn same_key_with_another_body_is_refused() {
    let world = World::start().await;
    let order = world.buy().key("k").send().await.bought();
    assert_envelope(&world.buy_as(ALEX, "Lego 42070").key("k").send().await, 422, REUSED);
    world.claim(order).key("k").send().await.ok();
    let other = world.store().post(format!("{}/warranty", path(order)));
    let other = other.json(&json!({"reason": "another brick"})).key("k");
    assert_envelope(&other.send().await, 422, REUSED);
    world.settles_with(&[order]).await;
}

const REUSED: &str = "idempotency_key_reused";

#[tokio::test]
async fn retry_after_a_rollback_makes_one_new_order() {
    let world = World::plan().impatient().start().await;
    world.kill(Part::Warranty).await;
    for _ in 0..3 {
        prompt(world.buy().key("k")).await.blames("rolled_back", Part::Warranty);
    }
    world.settles_with(&[]).await;
    world.restart(Part::Warranty).await;
    let order = in_the_end(RECOVERY, || world.buy().key("k")).await.bought();
    assert_eq!(world.buy().key("k").send().await.bought(), order);
    world.settles_with(&[order]).await;
}

#[tokio::test]
async fn retry_while_running_is_told_so() {
    let world = World::plan().proxied(Part::Order).start().await;
    let order = world.bought().await;
    let proxy = world.proxy(Part::Order);
    for (step, call) in OPERATIONS {
        let held = proxy.once(step, Act::Hold);
        let retry = async {
            met(&held).await;
            let told = prompt(call(&world, order).key("k")).await;
            assert_envelope(&told, 409, "idempotency_in_progress");
            proxy.heal();
        };
        let (first, ()) = tokio::join!(prompt(call(&world, order).key("k")), retry);
        assert!((200..300).contains(&first.status), "{first:?}");
        assert_same(&first, &call(&world, order).key("k").send().await);
    }
}

/// Something with an effect on an order.
type Operation = fn(&World, Uuid) -> Call;

/// What they ask of Order.
const OPERATIONS: [(&str, Operation); 3] = [
    ("POST /api/v1/orders/", |world, _| world.buy()),
    ("POST /api/v1/orders/", World::claim),
    ("DELETE /api/v1/orders/", World::refund),
];

#[tokio::test]
async fn retry_during_a_rollback_waits_for_it_and_then_makes_one_new_order() {
    let world = World::plan().start().await;
    world.freeze(Part::Warehouse);
    prompt(world.buy().key("k")).await.blames("rollback_pending", Part::Warehouse);
    for _ in 0..3 {
        let pending = prompt(world.buy().key("k")).await;
        assert_envelope(&pending, 503, "rollback_pending");
    }
    world.thaw(Part::Warehouse);
    let order = in_the_end(LEASE, || world.buy().key("k")).await.bought();
    world.settles_with(&[order]).await;
}

#[tokio::test]
async fn store_crashes_while_a_purchase_runs_and_the_same_key_makes_one_order() {
    // Before Order has it, and in the middle.
    for (part, step) in
        [(Part::Order, "POST /api/v1/orders/"), (Part::Warehouse, "POST /api/v1/warehouse")]
    {
        let world = World::plan().proxied(part).start().await;
        let held = world.proxy(part).once(step, Act::Hold);
        let crash = async {
            met(&held).await;
            world.kill(Part::Store).await;
        };
        let (cut, ()) = tokio::join!(world.buy().key("k").try_send(), crash);
        assert!(cut.is_err(), "{cut:?}");
        world.proxy(part).heal();
        world.restart(Part::Store).await;
        let order = in_the_end(LEASE, || world.buy().key("k")).await.bought();
        assert_eq!(world.buy().key("k").send().await.bought(), order);
        world.settles_with(&[order]).await;
    }
}

#[tokio::test]
async fn key_taken_over_while_order_is_away_is_not_given_back_for_a_second_order() {
    let world = World::plan().proxied(Part::Warehouse).impatient().start().await;
    let held = world.proxy(Part::Warehouse).once("POST /api/v1/warehouse", Act::Hold);
    let crash = async {
        met(&held).await;
        world.kill(Part::Store).await;
        world.proxy(Part::Warehouse).heal();
    };
    let (cut, ()) = tokio::join!(world.buy().key("k").try_send(), crash);
    assert!(cut.is_err(), "{cut:?}");
    // Order commits, and nobody hears of it.
    until(RECOVERY, "committed", async || (world.paid().await.len() == 1).then_some(())).await;
    world.kill(Part::Order).await;
    world.restart(Part::Store).await;
    // Whoever takes the key over can't reach Order: that says nothing of the one before.
    let answer = until(LEASE, "the lease of the one that crashed ends", async || {
        let answer = world.buy().key("k").send().await;
        (answer.json()["code"] != "idempotency_in_progress").then_some(answer)
    })
    .await;
    answer.blames("rollback_pending", Part::Order);
    world.restart(Part::Order).await;
    let order = in_the_end(LEASE * 2, || world.buy().key("k")).await.bought();
    world.settles_with(&[order]).await;
}

#[tokio::test]
async fn order_crashes_while_a_purchase_runs_and_the_same_key_makes_one_order() {
    let world = World::plan().proxied(Part::Warehouse).impatient().start().await;
    let held = world.proxy(Part::Warehouse).once("POST /api/v1/warehouse", Act::Hold);
    let crash = async {
        met(&held).await;
        world.kill(Part::Order).await;
    };
    let (answer, ()) = tokio::join!(prompt(world.buy().key("k")), crash);
    answer.blames("rollback_pending", Part::Order);
    world.restart(Part::Order).await;
    // Late, before or after the undo.
    world.proxy(Part::Warehouse).heal();
    let order = in_the_end(LEASE, || world.buy().key("k")).await.bought();
    served(&held, 1).await;
    world.settles_with(&[order]).await;
}

#[tokio::test]
async fn claim_survives_a_crash_of_store_and_of_order_and_is_decided_once() {
    for part in [Part::Store, Part::Order] {
        let world = World::plan().proxied(Part::Warehouse).impatient().start().await;
        let order = world.bought().await;
        let held = world.proxy(Part::Warehouse).once("POST /api/v1/warehouse/", Act::Hold);
        let crash = async {
            met(&held).await;
            world.kill(part).await;
        };
        let (answer, ()) = tokio::join!(world.claim(order).key("k").try_send(), crash);
        match part {
            Part::Store => assert!(answer.is_err()),
            _ => drop(answer.unwrap().queued(order)),
        }
        world.proxy(Part::Warehouse).heal();
        served(&held, 1).await;
        world.restart(part).await;
        // Order's own lease on the claim comes first.
        let decided = until(LEASE * 2, "the claim is decided", async || {
            let answer = in_the_end(LEASE, || world.claim(order).key("k")).await;
            (answer.status == 200).then(|| answer.ok())
        })
        .await;
        assert_eq!(decided["decision"], "RETURN");
        let claims = world.claims(order).send().await.ok();
        assert_eq!(claims.as_array().unwrap().len(), 1, "{claims}");
        assert_eq!(claims[0]["claimUid"], decided["claimUid"]);
    }
}

#[tokio::test]
async fn refund_survives_a_crash_of_store_and_of_order_before_and_behind_its_pivot() {
    let steps = [
        (Part::Store, Part::Warehouse, "DELETE /api/v1/warehouse/"),
        (Part::Order, Part::Warehouse, "DELETE /api/v1/warehouse/"),
        (Part::Order, Part::Warranty, "DELETE /api/v1/warranty/"),
    ];
    let crashes = steps.map(async |(crashing, part, step)| {
        let plan = World::plan().proxied(Part::Warehouse).proxied(Part::Warranty);
        let world = plan.impatient().start().await;
        let order = world.bought().await;
        let held = world.proxy(part).once(step, Act::Hold);
        let crash = async {
            met(&held).await;
            world.kill(crashing).await;
        };
        let (answer, ()) = tokio::join!(world.refund(order).key("k").try_send(), crash);
        match crashing {
            Part::Store => assert!(answer.is_err()),
            _ => answer.unwrap().blames("outcome_unknown", Part::Order),
        }
        world.proxy(part).heal();
        served(&held, 1).await;
        world.restart(crashing).await;
        in_the_end(LEASE, || world.refund(order).key("k")).await.no_content();
        assert_eq!(world.left(MODEL), 10_000);
        world.settles_with(&[]).await;
    });
    futures_util::future::join_all(crashes).await;
}
