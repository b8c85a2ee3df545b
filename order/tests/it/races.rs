//! The same at once, and opposites at once, on two processes that share a database.

use service::testing::{Response, assert_envelope, until};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::world::{ORDERS, SOON, STOCK, World, wish, wish_as};

/// Sends them all at once.
async fn all<F>(calls: impl IntoIterator<Item = F>) -> Vec<Response>
where
    F: Future<Output = Response> + Send + 'static,
{
    calls.into_iter().collect::<JoinSet<_>>().join_all().await
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_placings_of_the_same_id_at_once_are_one_order_and_one_item() {
    let world = World::start().await;
    let server = world.replica().await;
    let replica = server.client();
    let (user, order) = (Uuid::new_v4(), Uuid::new_v4());
    let calls = (0..10).map(|n| {
        let client = if n % 2 == 0 { &world.client } else { &replica };
        client.post(format!("{ORDERS}/{user}")).json(&wish_as(order)).send()
    });
    for answer in all(calls).await {
        assert_eq!(answer.ok()["orderUid"], order.to_string());
    }
    assert_eq!((world.effects(), world.left()), ((1, 1, 1), STOCK - 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_id_of_two_users_at_once_is_the_order_of_one() {
    let world = World::start().await;
    let (order, users) = (Uuid::new_v4(), [Uuid::new_v4(), Uuid::new_v4()]);
    let calls = users
        .iter()
        .map(|user| world.client.post(format!("{ORDERS}/{user}")).json(&wish_as(order)).send());
    let mut answers: Vec<_> = all(calls).await.iter().map(|answer| answer.status).collect();
    answers.sort_unstable();
    assert_eq!(answers, [200, 422]);
    assert_eq!((world.effects(), world.left()), ((1, 1, 1), STOCK - 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_returns_at_once_give_one_item_back() {
    let world = World::start().await;
    let server = world.replica().await;
    let replica = server.client();
    let order = world.placed(Uuid::new_v4()).await;
    let calls = (0..10).map(|n| {
        let client = if n % 2 == 0 { &world.client } else { &replica };
        client.delete(format!("{ORDERS}/{order}")).send()
    });
    for answer in all(calls).await {
        answer.no_content();
    }
    assert_eq!((world.effects(), world.left()), ((0, 0, 0), STOCK));
    // One of them did it: the others found it running, or done.
    assert_eq!(world.warranty.proxy.count("DELETE"), 1);
    assert_eq!(world.warehouse.proxy.count("DELETE"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_orders_are_placed_as_there_are_items() {
    let world = World::start().await;
    let calls = (0..30).map(|_| world.place(Uuid::new_v4(), &wish()).send());
    let answers = all(calls).await;
    let (placed, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|a| a.status == 200);
    assert_eq!((placed.len(), refused.len()), (10, 20));
    for answer in refused {
        assert_envelope(answer, 409, "sold_out");
    }
    assert_eq!((world.effects(), world.left()), ((10, 10, 10), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_placing_and_its_undo_at_once_leave_nothing() {
    let world = World::start().await;
    let server = world.replica().await;
    let replica = server.client();
    for _ in 0..10 {
        let (user, order) = (Uuid::new_v4(), Uuid::new_v4());
        let placing = tokio::spawn(world.place(user, &wish_as(order)).send());
        let undoing = replica.delete(format!("{ORDERS}/{order}")).compensate().send();
        undoing.await.no_content();
        let placed = placing.await.unwrap();
        if placed.status != 200 {
            assert_envelope(&placed, 409, "already_undone");
        }
        // The loser tidies up behind its answer.
        world.is_as_before().await;
        assert_envelope(&world.get(user, order).send().await, 404, "order_not_found");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_return_and_an_undo_at_once_give_one_item_back() {
    let world = World::start().await;
    let server = world.replica().await;
    let replica = server.client();
    for _ in 0..10 {
        let user = Uuid::new_v4();
        let order = world.placed(user).await;
        let returning = tokio::spawn(world.give_back(order).send());
        let undoing = replica.delete(format!("{ORDERS}/{order}")).compensate().send();
        undoing.await.no_content();
        let returned = returning.await.unwrap();
        if returned.status != 204 {
            assert_envelope(&returned, 404, "order_not_found");
        }
        until(SOON, "the item is back", async || {
            (world.effects() == (0, 0, 0) && world.left() == STOCK).then_some(())
        })
        .await;
    }
}
