//! Store's own database goes away, and comes back.

use backing::postgres::testing::TestCluster;
use service::testing::{plumbing, until};

use crate::world::{SHORT, SOON, STOCK, World, bought};

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_is_503_and_found_again() {
    let cluster = TestCluster::dedicated();
    let database = cluster.database("store", |url| service::migrate::up(url, &store::MIGRATIONS));
    let world = World::on(database, &[SHORT, &[("DB_TIMEOUT_MS", "1000")]].concat()).await;
    let order = world.bought().await;
    let asked = world.asked();
    cluster.stop();
    let calls = vec![
        world.purchase(),
        world.purchase().key("k"),
        world.get(order),
        world.list(),
        world.claim(order, "x").key("k"),
        world.claims(order),
        world.refund(order).key("k"),
    ];
    plumbing::database_is_missed(&world.store.server, "store", calls).await;
    assert_eq!(world.asked(), asked);
    cluster.start();
    world.store.server.ready(SOON).await;
    until(SOON, "bought", async || {
        let answer = world.purchase().key("k").send().await;
        (answer.status == 201).then(|| bought(&answer))
    })
    .await;
    assert_eq!((world.behind.effects(), world.behind.left()), ((2, 2, 2), STOCK - 2));
}
