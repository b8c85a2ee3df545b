//! The undo of a start whose outcome is unknown.

use service::testing::assert_envelope;
use uuid::Uuid;

use crate::world::{World, path};

#[tokio::test]
async fn an_undo_after_the_start_closes_it_for_good() {
    let world = World::start().await;
    let item = world.begun().await;
    let before = world.of(item).await;
    for _ in 0..3 {
        world.close(item).compensate().send().await.no_content();
        assert_eq!(world.status(item).await, "REMOVED_FROM_WARRANTY");
    }
    assert_envelope(&world.begin(item).send().await, 409, "already_undone");
    let restored = world.restore(&before, None).send().await;
    assert_envelope(&restored, 409, "already_undone");
    assert_eq!(world.status(item).await, "REMOVED_FROM_WARRANTY");
    assert_eq!(world.decision(item, 1).await, "REFUSED");
}

#[tokio::test]
async fn an_undo_before_the_start_refuses_the_late_start() {
    let world = World::start().await;
    let item = Uuid::new_v4();
    for _ in 0..2 {
        world.close(item).compensate().send().await.no_content();
    }
    assert_envelope(&world.begin(item).send().await, 409, "already_undone");
    assert_envelope(&world.begin(item).key("k").send().await, 409, "already_undone");
    assert_eq!(world.number("SELECT count(*) FROM warranty"), 0);
    assert_envelope(&world.client.get(path(item)).send().await, 404, "warranty_not_found");
    assert_envelope(&world.close(item).send().await, 404, "warranty_not_found");
}

#[tokio::test]
async fn an_undo_holds_even_under_the_name_of_a_close_that_was_undone() {
    let world = World::start().await;
    let item = world.begun().await;
    let before = world.of(item).await;
    world.restore(&before, Some("k")).send().await.no_content();
    world.close(item).compensate().key("k").send().await.no_content();
    assert_eq!(world.status(item).await, "REMOVED_FROM_WARRANTY");
    assert_envelope(&world.begin(item).send().await, 409, "already_undone");
}

#[tokio::test]
async fn only_the_header_with_true_makes_it_an_undo() {
    let world = World::start().await;
    for (value, status, code) in [
        ("false", 404, "warranty_not_found"),
        ("yes", 400, "invalid_request"),
        ("", 400, "invalid_request"),
    ] {
        let call = world.close(Uuid::new_v4()).header("X-Compensate", value);
        assert_envelope(&call.send().await, status, code);
    }
    assert_eq!(world.number("SELECT count(*) FROM tombstones"), 0);
}
