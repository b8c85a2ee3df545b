//! Claims.

use serde_json::json;
use service::testing::assert_envelope;

use crate::world::World;

#[tokio::test]
async fn a_claim_returns_what_is_in_stock_and_repairs_what_is_not() {
    let world = World::start().await;
    for (available, decision) in [(1, "RETURN"), (0, "FIXING"), (i64::from(i32::MAX), "RETURN")] {
        let item = world.begun().await;
        let before = world.of(item).await;
        let decided = world.claim(item, "it broke\nin two", available).send().await.ok();
        assert_eq!(decided, json!({"warrantyDate": before["warrantyDate"], "decision": decision}));
        let expected = json!({
            "itemUid": item, "warrantyDate": before["warrantyDate"], "status": "USE_WARRANTY",
            "comment": "it broke\nin two",
        });
        assert_eq!(world.of(item).await, expected);
    }
}

#[tokio::test]
async fn a_used_or_closed_warranty_is_refused_and_left_as_it_is() {
    let world = World::start().await;
    let closed = world.begun().await;
    world.close(closed).send().await.no_content();
    for item in [world.used().await, closed] {
        let before = world.of(item).await;
        let refused = world.claim(item, "another reason", 1).send().await.ok();
        assert_eq!(refused, json!({"warrantyDate": before["warrantyDate"], "decision": "REFUSED"}));
        assert_eq!(world.of(item).await, before);
    }
}

#[tokio::test]
async fn a_claim_counts_within_the_period_to_the_minute() {
    let world = World::start().await;
    let short = World::with(&[("WARRANTY_PERIOD_DAYS", "1")]).await;
    let long = World::with(&[("WARRANTY_PERIOD_DAYS", "36500")]).await;
    for (world, age, decision) in [
        (&world, "364 days 23:59:00", "RETURN"),
        (&world, "365 days 00:01:00", "REFUSED"),
        (&world, "-10 days", "RETURN"),
        (&short, "23:59:00", "RETURN"),
        (&short, "24:01:00", "REFUSED"),
        (&long, "36499 days 23:59:00", "RETURN"),
        (&long, "36500 days 00:01:00", "REFUSED"),
    ] {
        let item = world.begun().await;
        world.age(item, age);
        assert_eq!(world.decision(item, 1).await, decision, "{age}");
    }
}

#[tokio::test]
async fn a_replay_under_the_same_key_repeats_the_first_decision() {
    let world = World::start().await;
    let replica = world.replica().await;
    let item = world.begun().await;
    let first = world.claim(item, "broken", 1).key("k").send().await.ok();
    assert_eq!(first["decision"], "RETURN");
    // What is in stock is not the client's to repeat.
    for available in [1, 0] {
        let again = world.claim(item, "broken", available).key("k").send().await.ok();
        assert_eq!(again, first);
    }
    let body = json!({"reason": "broken", "availableCount": 0});
    let target = format!("{}/warranty", crate::world::path(item));
    let elsewhere = replica.client().post(target).json(&body).key("k").send().await.ok();
    assert_eq!(elsewhere, first);
    let other = world.claim(item, "another reason", 1).key("k").send().await;
    assert_envelope(&other, 422, "idempotency_key_reused");
    // A new claim meets a used warranty.
    assert_eq!(world.claim(item, "broken", 1).key("l").send().await.ok()["decision"], "REFUSED");
}

#[tokio::test]
async fn a_refusal_is_remembered_as_a_decision_too() {
    let world = World::start().await;
    let item = world.begun().await;
    let before = world.of(item).await;
    world.close(item).key("refund").send().await.no_content();
    let first = world.claim(item, "broken", 1).key("k").send().await.ok();
    assert_eq!(first["decision"], "REFUSED");
    world.restore(&before, Some("refund")).send().await.no_content();
    assert_eq!(world.claim(item, "broken", 1).key("k").send().await.ok(), first);
    assert_eq!(world.of(item).await, before);
}
