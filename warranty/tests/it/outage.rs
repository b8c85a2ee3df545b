//! PostgreSQL goes away, and comes back.

use std::time::Duration;

use backing::postgres::testing::TestCluster;
use serde_json::json;
use service::testing::{TestServer, plumbing, sql, until};
use uuid::Uuid;

use crate::world::{WARRANTIES, configured, migrate, path};

const RECOVERY: Duration = Duration::from_secs(15);

async fn is_down(server: &TestServer) {
    let (client, item) = (server.client(), Uuid::new_v4());
    let claim = json!({"reason": "broken", "availableCount": 1});
    let calls = vec![
        client.get(path(item)),
        client.get(format!("{WARRANTIES}?itemUid={item}")),
        client.post(path(item)),
        client.delete(path(item)).key("k"),
        client.post(format!("{}/warranty", path(item))).json(&claim).key("k"),
    ];
    plumbing::database_is_missed(server, "warranty", calls).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_stops_crashes_or_freezes_is_503_in_time_and_found_again() {
    let cluster = TestCluster::dedicated();
    let database = cluster.database("warranty", migrate);
    // The real times: this is about them.
    let real = [("DB_TIMEOUT_MS", "1000"), ("REQUEST_BUDGET_MS", "1900")];
    let config = configured(database.url(), &real);
    let server = TestServer::start(|listener, end| warranty::run(config, listener, end)).await;
    for (lose, regain) in [
        (TestCluster::stop as fn(&TestCluster), TestCluster::start as fn(&TestCluster)),
        (TestCluster::freeze, TestCluster::thaw),
        (TestCluster::kill, TestCluster::start),
    ] {
        // Of what is answered this cluster writes some a moment later: a crash must not lose that.
        sql::execute(database.url(), "CHECKPOINT").unwrap();
        lose(&cluster);
        is_down(&server).await;
        regain(&cluster);
        server.ready(RECOVERY).await;
        let (client, item) = (server.client(), Uuid::new_v4());
        until(RECOVERY, "a start", async || {
            let answer = client.post(path(item)).key("again").send().await;
            (answer.status == 204).then_some(())
        })
        .await;
        assert_eq!(client.get(path(item)).send().await.ok()["status"], "ON_WARRANTY");
    }
    server.stop().await;
}
