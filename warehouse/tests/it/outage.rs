//! PostgreSQL goes away, and comes back.

use std::time::Duration;

use backing::postgres::testing::TestCluster;
use serde_json::json;
use service::testing::{TestServer, assert_envelope, plumbing, sql, until};
use uuid::Uuid;

use crate::world::{ITEMS, configured, migrate, path, wish};

/// As they come: this is about how long things take.
const REAL: [(&str, &str); 2] = [("DB_TIMEOUT_MS", "1000"), ("REQUEST_BUDGET_MS", "1900")];

const RECOVERY: Duration = Duration::from_secs(15);

/// Everything that needs the database says so in time. The outcome of the take is unknown: where the
/// database was only frozen, it may happen yet.
async fn is_down(server: &TestServer, take: Uuid) {
    let (client, item) = (server.client(), Uuid::new_v4());
    let claim = json!({"reason": "broken"});
    let calls = vec![
        client.get(path(item)),
        client.get(format!("{ITEMS}?itemUid={item}")),
        client.post(ITEMS).json(&wish(take)),
        client.delete(path(item)).key("k"),
        client.post(format!("{}/warranty", path(item))).json(&claim),
    ];
    plumbing::database_is_missed(server, "warehouse", calls).await;
}

/// By itself, and what was under way is undone as a caller would.
async fn is_back(server: &TestServer, takes: &[Uuid]) {
    server.ready(RECOVERY).await;
    let client = server.client();
    for take in takes {
        until(RECOVERY, "an undo", async || {
            let answer = client.delete(path(*take)).compensate().send().await;
            (answer.status == 204).then_some(())
        })
        .await;
        let late = client.post(ITEMS).json(&wish(*take)).send().await;
        assert_envelope(&late, 409, "already_undone");
    }
    assert_eq!(client.get("/manage/health").send().await.ok()["status"], "Work");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_stops_crashes_or_freezes_is_503_in_time_and_found_again() {
    let cluster = TestCluster::dedicated();
    let database = cluster.database("warehouse", migrate);
    let url = database.url();
    let stock = "INSERT INTO items (model, size, available_count) VALUES ('Lego 8070', 'M', 10)";
    sql::execute(url, stock).expect("stock");
    let config = configured(url, &REAL);
    let server = TestServer::start(|listener, end| warehouse::run(config, listener, end)).await;
    for (name, lose, regain) in [
        ("stop", TestCluster::stop as fn(&TestCluster), TestCluster::start as fn(&TestCluster)),
        ("freeze", TestCluster::freeze, TestCluster::thaw),
        ("kill", TestCluster::kill, TestCluster::start),
    ] {
        let takes = [Uuid::new_v4(), Uuid::new_v4()];
        // Of what is answered this cluster writes some a moment later: a crash must not lose that.
        sql::execute(url, "CHECKPOINT").expect("a checkpoint");
        lose(&cluster);
        is_down(&server, takes[0]).await;
        // Once more, when nobody is left to find out.
        is_down(&server, takes[1]).await;
        regain(&cluster);
        is_back(&server, &takes).await;
        let held = sql::number(url, "SELECT count(*) FROM order_item WHERE NOT canceled");
        let left = sql::number(url, "SELECT sum(available_count) FROM items");
        assert_eq!((held, left), (0, 10), "after {name}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_starts_without_its_database_and_gets_ready_when_that_comes() {
    let cluster = TestCluster::dedicated();
    let database = cluster.database("nothing", |_| anyhow::Ok(()));
    cluster.stop();
    let config = configured(database.url(), &REAL);
    let server = TestServer::spawn(|listener, end| warehouse::run(config, listener, end)).await;
    let client = server.client();
    assert_eq!(client.get("/manage/health/live").send().await.status, 200);
    assert_eq!(client.get("/manage/health/ready").send().await.status, 503);
    is_down(&server, Uuid::new_v4()).await;
    cluster.start();
    server.ready(RECOVERY).await;
    let answer = client.get(path(Uuid::new_v4())).send().await;
    assert_envelope(&answer, 404, "item_not_found");
    server.stop().await;
}
