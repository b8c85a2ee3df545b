//! Order's own database goes away, and comes back.

use backing::postgres::testing::TestCluster;
use order::MIGRATIONS;
use service::testing::network::Act;
use service::testing::{assert_envelope, plumbing, until};
use uuid::Uuid;

use crate::world::{SHORT, SOON, STOCK, World, wish_as};

/// Failing fast is the point here.
const FAST: &[(&str, &str)] = &[("DB_TIMEOUT_MS", "1000"), ("WARRANTY_TIMEOUT_MS", "2000")];

#[tokio::test(flavor = "multi_thread")]
async fn a_placing_that_loses_its_database_is_undone_or_kept_as_a_whole() {
    let cluster = TestCluster::dedicated();
    let database = cluster.database("order", |url| service::migrate::up(url, &MIGRATIONS));
    let world = World::on(database, &[SHORT, FAST].concat()).await;
    let (user, order) = (Uuid::new_v4(), Uuid::new_v4());
    let held = world.warranty.proxy.once("POST", Act::Hold);
    let placing = tokio::spawn(world.place(user, &wish_as(order)).send());
    until(SOON, "it is at its last step", async || {
        (world.warranty.proxy.count("POST") == 1).then_some(())
    })
    .await;
    cluster.stop();
    held.release();
    let failed = placing.await.unwrap();
    assert_envelope(&failed, 503, "database_unavailable");
    assert_eq!(failed.header("x-failed-dependency"), None);
    let claim = world.claim(order, "x");
    let place = world.place(user, &wish_as(order)).key("k");
    let calls =
        vec![world.get(user, order), world.list(user), world.give_back(order), claim, place];
    plumbing::database_is_missed(&world.order.server, "order", calls).await;

    cluster.start();
    // Nobody asks again: it is settled by itself.
    world.is_as_before().await;
    assert_envelope(&world.get(user, order).send().await, 404, "order_not_found");
    assert_eq!(world.left(), STOCK);
    until(SOON, "placed", async || {
        let answer = world.place(user, &wish_as(Uuid::new_v4())).send().await;
        (answer.status == 200).then_some(())
    })
    .await;
}
