//! Store's own database goes away, and comes back.

use backing::postgres::testing::TestCluster;
use service::testing::network::Act;
use service::testing::{assert_envelope, plumbing, until};

use crate::world::{SHORT, SOON, STOCK, World, bought, served};

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
    let promised = "(SELECT count(*) FROM claims) + (SELECT count(*) FROM deferred)";
    assert_eq!(world.store.number(promised), 0, "nothing was promised");
    world.store.server.ready(SOON).await;
    until(SOON, "bought", async || {
        let answer = world.purchase().key("k").send().await;
        (answer.status == 201).then(|| bought(&answer))
    })
    .await;
    assert_eq!((world.behind.effects(), world.behind.left()), ((2, 2, 2), STOCK - 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purchase_that_the_database_does_not_see_the_end_of_is_undone() {
    let cluster = TestCluster::dedicated();
    let database = cluster.database("store", |url| service::migrate::up(url, &store::MIGRATIONS));
    let world = World::on(database, &[SHORT, &[("DB_TIMEOUT_MS", "1000")]].concat()).await;
    let held = world.behind.order.proxy.once("POST", Act::HoldAnswer);
    let purchase = tokio::spawn(world.purchase().send());
    served(&held).await;
    assert_eq!(world.behind.effects(), (1, 1, 1));
    cluster.kill();
    held.release();
    // It is bought, and nobody may be told so: that it will stay can't be written down.
    assert_envelope(&purchase.await.unwrap(), 503, "database_unavailable");
    cluster.start();
    world.behind.is_as_before().await;
    world.store.server.ready(SOON).await;
    until(SOON, "nothing is shown", async || {
        let list = world.list().send().await;
        (list.status == 200).then(|| assert_eq!(list.ok(), serde_json::json!([])))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_the_database_does_not_see_the_end_of_is_decided_once() {
    let cluster = TestCluster::dedicated();
    let database = cluster.database("store", |url| service::migrate::up(url, &store::MIGRATIONS));
    let world = World::on(database, &[SHORT, &[("DB_TIMEOUT_MS", "1000")]].concat()).await;
    let order = world.bought().await;
    let held = world.behind.order.proxy.once("POST", Act::HoldAnswer);
    let claim = tokio::spawn(world.claim(order, "broken").key("k").send());
    served(&held).await;
    cluster.kill();
    held.release();
    let answer = claim.await.unwrap();
    assert!(matches!(answer.status, 202 | 503), "{answer:?}");
    cluster.start();
    let decided = until(SOON, "decided", async || {
        let claims = world.claims(order).send().await;
        let claims = (claims.status == 200).then(|| claims.ok())?;
        (claims[0]["status"] == "DECIDED").then(|| claims.clone())
    })
    .await;
    assert_eq!((decided.as_array().unwrap().len(), &decided[0]["decision"]), (1, &"RETURN".into()));
    let found = until(SOON, "found by its key", async || {
        let answer = world.claim(order, "broken").key("k").send().await;
        (answer.status == 200).then(|| answer.ok())
    })
    .await;
    assert_eq!(found["claimUid"], decided[0]["claimUid"]);
}
