//! Claims while a system is away. What cannot be decided now is not accepted.

use serde_json::{Value, json};
use service::testing::network::{Act, DEFECT, RUBBISH};
use service::testing::{assert_envelope, until};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::world::{SHORT, SOON, World, assert_blames};

/// The one claim that is kept.
async fn kept(world: &World, order: Uuid) -> Value {
    let claims = world.claims(order).send().await.ok();
    assert_eq!(claims.as_array().unwrap().len(), 1, "{claims}");
    claims[0].clone()
}

#[tokio::test]
async fn a_claim_that_cannot_be_decided_blames_who_is_away_and_is_not_kept() {
    let world = World::start().await;
    let order = world.bought().await;
    let client = world.behind.client.clone();
    world.behind.warehouse.proxy.down().await;
    assert_blames(
        &world.claim(order, "broken").key("k").send().await,
        "dependency_unavailable",
        "warehouse",
    );
    world.behind.warehouse.proxy.up();
    world.behind.warranty.proxy.down().await;
    for _ in 0..10 {
        let failed = world.claim(order, "broken").key("k").send().await;
        assert_blames(&failed, "dependency_unavailable", "warranty");
    }
    // Each hop on the way is healthy.
    for (client, name) in [(&world.client, "order"), (&client, "warehouse")] {
        let breakers = world.breakers(client).await;
        assert!(breakers.contains(&(name.to_owned(), "closed".to_owned())), "{breakers:?}");
    }
    assert_eq!(world.claims(order).send().await.ok(), json!([]));
    world.behind.warranty.proxy.up();
    // The key was given back each time, and it is the same claim all along.
    let decided = until(SOON, "decided", async || {
        let answer = world.claim(order, "broken").key("k").send().await;
        (answer.status == 200).then(|| answer.ok())
    })
    .await;
    assert_eq!(decided["decision"], "RETURN");
    assert_eq!(kept(&world, order).await["claimUid"], decided["claimUid"]);
}

#[tokio::test]
async fn without_order_nobody_knows_whose_order_it_is() {
    let world = World::start().await;
    let order = world.bought().await;
    world.behind.order.proxy.down().await;
    for call in [world.claim(order, "broken"), world.claims(order)] {
        assert_blames(&call.send().await, "dependency_unavailable", "order");
    }
    world.behind.order.proxy.up();
    let decided = until(SOON, "decided", async || {
        let answer = world.claim(order, "broken").send().await;
        (answer.status == 200).then(|| answer.ok())
    })
    .await;
    assert_eq!(decided["decision"], "RETURN");
    // What is kept here is shown without Order.
    world.behind.order.proxy.down().await;
    assert_eq!(kept(&world, order).await["claimUid"], decided["claimUid"]);
}

#[tokio::test]
async fn a_claim_whose_answer_is_lost_is_decided_once() {
    let world = World::start().await;
    for act in [Act::LoseAnswer, Act::Reset, DEFECT, RUBBISH] {
        let order = world.bought().await;
        world.behind.order.proxy.once("POST", act);
        let lost = world.claim(order, "broken").key("k").send().await;
        assert_blames(&lost, "dependency_unavailable", "order");
        let found = world.claim(order, "broken").key("k").send().await.ok();
        // Not REFUSED, as a second claim would be.
        assert_eq!(found["decision"], "RETURN");
        assert_eq!(world.claim(order, "broken").key("k").send().await.ok(), found);
        assert_eq!(kept(&world, order).await["claimUid"], found["claimUid"]);
    }
}

#[tokio::test]
async fn a_claim_that_hangs_is_answered_in_time_and_decided_once() {
    let world = World::with(SHORT).await;
    let order = world.bought().await;
    // Decided, and lost on the last hop.
    world.behind.warranty.proxy.once("POST", Act::LoseAnswer);
    let lost = world.claim(order, "broken").key("k").send().await;
    assert_blames(&lost, "dependency_unavailable", "warranty");
    world.behind.order.proxy.once("POST", Act::Hang);
    let lost = world.claim(order, "broken").key("k").send().await;
    assert_blames(&lost, "dependency_unavailable", "order");
    let found = until(SOON, "decided", async || {
        let answer = world.claim(order, "broken").key("k").send().await;
        (answer.status == 200).then(|| answer.ok())
    })
    .await;
    assert_eq!(found["decision"], "RETURN");
    kept(&world, order).await;
}

#[tokio::test]
async fn an_order_without_a_warranty_is_refused_at_once() {
    let world = World::start().await;
    let order = world.bought().await;
    let item = world.behind.item_of(world.user, order).await;
    world.behind.warranty.execute("DELETE FROM warranty");
    let refused = world.claim(order, "broken").send().await;
    assert_envelope(&refused, 404, "warranty_not_found");
    assert_eq!(refused.json()["message"], format!("Warranty not found for itemUid '{item}'"));
    assert_eq!(world.claims(order).send().await.ok(), json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_ten_claims_at_once_one_is_honoured() {
    let world = World::start().await;
    let order = world.bought().await;
    let calls: JoinSet<_> = (0..10).map(|_| world.claim(order, "broken").send()).collect();
    let answers = calls.join_all().await;
    let decisions: Vec<_> = answers.into_iter().map(|a| a.ok()["decision"].clone()).collect();
    let count = |decision: &str| decisions.iter().filter(|found| **found == decision).count();
    assert_eq!((count("RETURN"), count("REFUSED")), (1, 9), "{decisions:?}");
    assert_eq!(world.claims(order).send().await.ok().as_array().unwrap().len(), 10);
}
