//! What a container runs to know whether it is well, and what makes its databases.

use std::process::Command;
use std::time::Duration;

use backing::port;
use backing::postgres::testing::TestCluster;
use diesel::{Connection as _, PgConnection};
use service::testing::until;

use super::dyno::{self, Dyno, Variables};
use super::{file, instruction};
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

#[test]
fn each_database_has_its_owner_whom_no_other_lets_in() {
    let cluster = TestCluster::dedicated();
    let admin = cluster.url("postgres");
    let admin_password = admin.split([':', '@']).nth(2).unwrap();
    let mut init = Command::new(file("containers/databases.sh"));
    init.env("PGHOST", "127.0.0.1").env("PGPORT", cluster.port().to_string());
    init.env("PGPASSWORD", admin_password);
    for part in Part::ALL {
        let name = part.name();
        init.env(format!("{}_PASSWORD", name.to_uppercase()), format!("{name}'s \\"));
    }
    let output = init.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let connects = |user: Part, password: &str, database: Part| {
        let (user, port, database) = (user.name(), cluster.port(), database.name());
        let url = format!("postgres://{user}:{password}@127.0.0.1:{port}/{database}");
        PgConnection::establish(&url).is_ok()
    };
    for user in Part::ALL {
        assert!(!connects(user, "wrong", user));
        for database in Part::ALL {
            let password = format!("{}%27s%20%5C", user.name());
            assert_eq!(connects(user, &password, database), user == database);
        }
    }
}
