//! The undo of a call whose outcome is unknown.

use service::testing::assert_envelope;
use uuid::Uuid;

use crate::world::{STOCK, World, wish};

#[tokio::test]
async fn an_undo_after_the_take_puts_the_item_back() {
    let world = World::start().await;
    let item = world.taken_item().await;
    for _ in 0..3 {
        world.give_back(item).compensate().send().await.no_content();
        assert_eq!(world.left(), STOCK);
    }
    assert_envelope(&world.take(&wish(item)).send().await, 409, "already_undone");
    assert_eq!(world.left(), STOCK);
}

#[tokio::test]
async fn an_undo_before_the_take_refuses_the_late_take() {
    let world = World::start().await;
    let item = Uuid::new_v4();
    for _ in 0..2 {
        world.give_back(item).compensate().send().await.no_content();
    }
    for _ in 0..2 {
        assert_envelope(&world.take(&wish(item)).send().await, 409, "already_undone");
    }
    assert_eq!((world.left(), world.taken()), (STOCK, 0));
    // Not a thing of one key.
    assert_envelope(&world.take(&wish(item)).key("k").send().await, 409, "already_undone");
    assert_envelope(&world.get(item).send().await, 404, "item_not_found");
    // Someone who returns it, on the other hand, returns what never was.
    assert_envelope(&world.give_back(item).send().await, 404, "item_not_found");
}

#[tokio::test]
async fn an_undo_after_a_return_changes_nothing_and_stays() {
    let world = World::start().await;
    let item = world.taken_item().await;
    world.give_back(item).send().await.no_content();
    world.give_back(item).compensate().send().await.no_content();
    assert_eq!(world.left(), STOCK);
    assert_eq!(world.number("SELECT count(*) FROM tombstones"), 1);
}

#[tokio::test]
async fn only_the_header_with_true_makes_it_an_undo() {
    let world = World::start().await;
    for (value, status, code) in [
        ("false", 404, "item_not_found"),
        ("FALSE", 404, "item_not_found"),
        ("yes", 400, "invalid_request"),
        ("1", 400, "invalid_request"),
        ("", 400, "invalid_request"),
    ] {
        let call = world.give_back(Uuid::new_v4()).header("X-Compensate", value);
        assert_envelope(&call.send().await, status, code);
    }
    let call = world.give_back(Uuid::new_v4()).header("x-compensate", "True");
    call.send().await.no_content();
    assert_eq!(world.number("SELECT count(*) FROM tombstones"), 1);
}
