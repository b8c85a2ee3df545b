//! What `Idempotency-Key` promises.

use serde_json::json;
use service::testing::{Response, assert_envelope};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::world::{ITEMS, MODEL, STOCK, World, wish};

#[tokio::test]
async fn the_same_key_gets_the_same_answer_and_takes_one_item() {
    let world = World::start().await;
    let replica = world.replica().await;
    let other = replica.client();
    let body = json!({"orderUid": Uuid::new_v4(), "model": MODEL, "size": "M"});
    let first = world.take(&body).key("k").send().await.ok();
    // Also from another process, with fields that nobody knows, in another order.
    let again = json!({"size": "M", "extra": 1, "model": MODEL, "orderUid": body["orderUid"]});
    let replayed = other.post(ITEMS).json(&again).key("k").send().await.ok();
    assert_eq!(replayed, first);
    assert_eq!((world.left(), world.taken()), (STOCK - 1, 1));
}

#[tokio::test]
async fn the_same_key_with_other_content_is_422() {
    let world = World::start().await;
    let body = json!({"orderUid": Uuid::new_v4(), "model": MODEL, "size": "M"});
    world.take(&body).key("k").send().await.ok();
    for (field, value) in [("size", json!("L")), ("orderItemUid", json!(Uuid::new_v4()))] {
        let mut other = body.clone();
        other[field] = value;
        let refused = world.take(&other).key("k").send().await;
        assert_envelope(&refused, 422, "idempotency_key_reused");
    }
    let item = world.taken_item().await;
    world.give_back(item).key("k").send().await.no_content();
    let refused = world.give_back(item).key("k").compensate().send().await;
    assert_envelope(&refused, 422, "idempotency_key_reused");
}

#[tokio::test]
async fn a_key_belongs_to_one_method_and_path() {
    let world = World::start().await;
    let (a, b) = (world.taken_item().await, world.taken_item().await);
    world.take(&wish(Uuid::new_v4())).key("k").send().await.ok();
    for item in [a, b] {
        world.give_back(item).key("k").send().await.no_content();
    }
    assert_eq!(world.left(), STOCK - 1);
}

#[tokio::test]
async fn a_final_refusal_is_remembered() {
    let world = World::start().await;
    world.stock(MODEL, "M", 0);
    let body = wish(Uuid::new_v4());
    let first = world.take(&body).key("k").send().await;
    assert_envelope(&first, 409, "sold_out");
    world.stock(MODEL, "M", STOCK);
    let replayed = world.take(&body).key("k").send().await;
    assert_envelope(&replayed, 409, "sold_out");
    assert_eq!(replayed.json()["message"], first.json()["message"]);
    assert_ne!(replayed.json()["requestId"], first.json()["requestId"]);
    assert_eq!(world.left(), STOCK);
    // It is the key's: another one acts anew.
    world.take(&body).key("l").send().await.ok();

    let item = Uuid::new_v4();
    assert_envelope(&world.give_back(item).key("k").send().await, 404, "item_not_found");
    world.take(&wish(item)).send().await.ok();
    assert_envelope(&world.give_back(item).key("k").send().await, 404, "item_not_found");
    assert_eq!(world.left(), STOCK - 2);
}

#[tokio::test]
async fn input_that_was_refused_leaves_the_key_unused() {
    let world = World::start().await;
    let mut body = wish(Uuid::new_v4());
    body["size"] = json!("too long a size");
    assert_envelope(&world.take(&body).key("k").send().await, 400, "invalid_request");
    body["size"] = json!("M");
    world.take(&body).key("k").send().await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_with_the_same_key_at_once_have_one_effect_and_one_answer() {
    let world = World::start().await;
    let body = json!({"orderUid": Uuid::new_v4(), "model": MODEL, "size": "M"});
    let calls: JoinSet<_> = (0..10).map(|_| world.take(&body).key("k").send()).collect();
    let answers = calls.join_all().await;
    let mut bodies: Vec<_> = answers.into_iter().map(Response::ok).collect();
    bodies.dedup();
    assert_eq!(bodies.len(), 1);
    assert_eq!((world.left(), world.taken()), (STOCK - 1, 1));
}

#[tokio::test]
async fn keys_are_forgotten_after_30_days() {
    let world = World::start().await;
    world.take(&wish(Uuid::new_v4())).key("old").send().await.ok();
    world.take(&wish(Uuid::new_v4())).key("new").send().await.ok();
    world.execute(
        "UPDATE idempotency SET created_at = now() - interval '30 days 1 minute' WHERE key = 'old';
         UPDATE idempotency SET created_at = now() - interval '29 days' WHERE key = 'new'",
    );
    // Each start looks for old ones, then every hour.
    let _replica = world.replica().await;
    let limit = std::time::Duration::from_secs(10);
    service::testing::until(limit, "the old key is gone", async || {
        let old = world.number("SELECT count(*) FROM idempotency WHERE key = 'old'");
        (old == 0).then_some(())
    })
    .await;
    assert_eq!(world.number("SELECT count(*) FROM idempotency WHERE key = 'new'"), 1);
}
