//! What `Idempotency-Key` promises.

use service::testing::assert_envelope;
use uuid::Uuid;

use crate::world::World;

#[tokio::test]
async fn a_start_and_a_close_are_replayed_under_their_keys() {
    let world = World::start().await;
    let item = Uuid::new_v4();
    for _ in 0..2 {
        world.begin(item).key("k").send().await.no_content();
    }
    for _ in 0..2 {
        world.close(item).key("k").send().await.no_content();
    }
    // The start again: remembered, and without effect.
    world.begin(item).key("k").send().await.no_content();
    assert_eq!(world.status(item).await, "REMOVED_FROM_WARRANTY");
    assert_eq!(world.number("SELECT count(*) FROM idempotency"), 2);
}

#[tokio::test]
async fn the_same_key_with_other_content_is_422() {
    let world = World::start().await;
    let item = world.begun().await;
    let before = world.of(item).await;
    world.begin(item).key("k").send().await.no_content();
    let refused = world.restore(&before, None).key("k").send().await;
    assert_envelope(&refused, 422, "idempotency_key_reused");
    world.restore(&before, None).key("r").send().await.no_content();
    let refused = world.restore(&before, Some("x")).key("r").send().await;
    assert_envelope(&refused, 422, "idempotency_key_reused");
    world.close(item).key("c").send().await.no_content();
    let refused = world.close(item).key("c").compensate().send().await;
    assert_envelope(&refused, 422, "idempotency_key_reused");
    assert_eq!(world.number("SELECT count(*) FROM tombstones"), 0);
}

#[tokio::test]
async fn a_final_refusal_is_remembered() {
    let world = World::start().await;
    let item = Uuid::new_v4();
    let first = world.claim(item, "broken", 1).key("k").send().await;
    assert_envelope(&first, 404, "warranty_not_found");
    world.begin(item).send().await.no_content();
    let again = world.claim(item, "broken", 1).key("k").send().await;
    assert_envelope(&again, 404, "warranty_not_found");
    assert_eq!(again.json()["message"], first.json()["message"]);
    assert_eq!(world.status(item).await, "ON_WARRANTY");
}

#[tokio::test]
async fn a_key_belongs_to_one_item() {
    let world = World::start().await;
    let (a, b) = (world.begun().await, world.begun().await);
    for item in [a, b] {
        world.close(item).key("k").send().await.no_content();
        assert_eq!(world.status(item).await, "REMOVED_FROM_WARRANTY");
    }
    // So does a name: the undo of one close is none of the other.
    let mut before = world.of(a).await;
    before["status"] = "ON_WARRANTY".into();
    world.restore(&before, Some("k")).send().await.no_content();
    assert_eq!(world.status(a).await, "ON_WARRANTY");
    assert_eq!(world.status(b).await, "REMOVED_FROM_WARRANTY");
}
