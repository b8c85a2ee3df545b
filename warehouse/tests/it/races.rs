//! Many at once, on one process and on two.

use service::testing::{Client, assert_envelope};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::world::{ITEMS, MODEL, STOCK, World, path, wish};

async fn all<T: Send + 'static>(
    tasks: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    tasks.into_iter().collect::<JoinSet<_>>().join_all().await
}

async fn status(client: Client, item: Uuid) -> u16 {
    client.post(ITEMS).json(&wish(item)).send().await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn of_40_takes_at_once_exactly_as_many_succeed_as_there_are_on_two_replicas() {
    let world = World::start().await;
    let other = world.replica().await;
    let clients = [world.client.clone(), other.client()];
    let takes = (0..40).map(|n| status(clients[n % 2].clone(), Uuid::new_v4()));
    let statuses = all(takes).await;
    let count = |wanted| statuses.iter().filter(|status| **status == wanted).count();
    assert_eq!((count(200), count(409)), (10, 30), "{statuses:?}");
    assert_eq!((world.left(), world.taken()), (0, STOCK));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_take_at_once_takes_one() {
    let world = World::start().await;
    let item = Uuid::new_v4();
    let statuses = all((0..10).map(|_| status(world.client.clone(), item))).await;
    assert_eq!(statuses, [200; 10]);
    assert_eq!((world.left(), world.taken()), (STOCK - 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_return_at_once_puts_one_back() {
    let world = World::start().await;
    let item = world.taken_item().await;
    let call = world.give_back(item);
    let statuses = all((0..10).map(|n| {
        let call = if n % 2 == 0 { call.clone() } else { call.clone().compensate() };
        async { call.send().await.status }
    }))
    .await;
    assert_eq!(statuses, [204; 10]);
    assert_eq!(world.left(), STOCK);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_item_is_taken_after_its_undo_in_whatever_order_the_two_arrive() {
    const ROUNDS: usize = 100;
    let world = World::start().await;
    let replica = world.replica().await;
    let other = replica.client();
    let (mut before, mut after) = (0, 0);
    for _ in 0..ROUNDS {
        let item = Uuid::new_v4();
        let take = tokio::spawn(status(world.client.clone(), item));
        let undo = tokio::spawn(other.delete(path(item)).compensate().send());
        undo.await.unwrap().no_content();
        match take.await.unwrap() {
            200 => before += 1,
            409 => after += 1,
            other => panic!("{other}"),
        }
        assert_eq!(world.left(), STOCK);
        assert_envelope(&world.take(&wish(item)).send().await, 409, "already_undone");
    }
    assert_eq!(before + after, ROUNDS);
    assert_eq!(world.number("SELECT count(*) FROM order_item WHERE NOT canceled"), 0);
    assert_eq!(world.left(), STOCK);
}

#[tokio::test(flavor = "multi_thread")]
async fn takes_and_returns_at_once_add_up() {
    let world = World::start().await;
    world.stock(MODEL, "M", 1000);
    let rounds = (0..40).map(|n| {
        let (client, item) = (world.client.clone(), Uuid::new_v4());
        async move {
            assert_eq!(status(client.clone(), item).await, 200);
            if n % 2 == 0 {
                client.delete(path(item)).send().await.no_content();
            }
        }
    });
    all(rounds).await;
    assert_eq!(world.left(), 980);
    assert_eq!(world.number("SELECT count(*) FROM order_item WHERE NOT canceled"), 20);
}
