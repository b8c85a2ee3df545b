//! What a container runs to know whether it is well.

use std::time::Duration;

use backing::port;
use backing::postgres::testing::TestCluster;
use service::testing::until;

use super::dyno::{self, Dyno, Variables};
use super::instruction;
use crate::world::{self, Part};

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_healthy_while_its_service_is_ready() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let cluster = TestCluster::dedicated();
    let database = cluster.database("health", |url| world::prepare(Part::Warranty, url));
    let port = port::free(1).unwrap()[0];
    let given = [("DATABASE_URL", database.url().to_owned()), ("PORT", port.to_string())];
    let given: Variables = given.map(|(name, value)| (name.to_owned(), value)).into();
    let check = instruction("web", "HEALTHCHECK");
    let is_healthy = || dyno::run(Part::Warranty, &check, &given, &log).success();
    let turns = async |healthy: bool| {
        let asked = async || (is_healthy() == healthy).then_some(());
        until(Duration::from_secs(30), "its health changes", asked).await;
    };

    assert!(!is_healthy(), "nobody is there");
    let service = Dyno::start(Part::Warranty, &instruction("web", "CMD"), &given, port, &log);
    turns(true).await;
    cluster.stop();
    turns(false).await;
    cluster.start();
    turns(true).await;
    service.stop();
    assert!(!is_healthy(), "nobody is there any more");
}
