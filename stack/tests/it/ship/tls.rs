//! A database and a broker must prove who they are, where a service is told what to hold them to: the
//! commands of the image, with nothing but a platform's variables.

use std::path::Path;
use std::time::Duration;

use backing::certificate::{Authority, Identity};
use backing::port;
use backing::postgres::testing::{TestCluster, TestDatabase};
use backing::rabbitmq::testing::TestBroker;
use serde_json::Value;
use service::testing::{Client, until};

use super::dyno::{self, Dyno, Variables};
use super::instruction;
use crate::world::{self, Part};

const LIMIT: Duration = Duration::from_secs(30);

fn variables(given: &[(&str, &str)]) -> Variables {
    let given = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    given.collect()
}

fn migrates(given: &[(&str, &str)], log: &Path) -> bool {
    dyno::run(Part::Warranty, &instruction("release", "CMD"), &variables(given), log).success()
}

#[test]
fn a_database_that_cannot_prove_itself_is_not_migrated() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let (authority, other) = (Authority::new(), Authority::new());
    let cluster = TestCluster::encrypted(&authority.vouch_for("localhost"));
    let by_name = cluster.url("postgres").replace("127.0.0.1", "localhost");
    let by_number = cluster.url("postgres");
    for (url, trusted, mode, expected) in [
        (&by_name, &authority, "verify-full", true),
        (&by_number, &authority, "verify-full", false),
        (&by_number, &authority, "verify-ca", true),
        (&by_name, &other, "verify-full", false),
        (&by_name, &other, "verify-ca", false),
    ] {
        let given = [
            ("DATABASE_URL", url.as_str()),
            ("DATABASE_CA", &trusted.pem()),
            ("DATABASE_SSLMODE", mode),
        ];
        let said = || std::fs::read_to_string(&log).unwrap_or_default();
        assert_eq!(migrates(&given, &log), expected, "{mode}: {}", said());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_certificate_is_the_only_one_that_serves() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    // Both say that they are the same.
    let (pinned, other) = (Identity::self_signed("db"), Identity::self_signed("db"));
    let cluster = TestCluster::encrypted(&pinned);
    for (trusted, status) in [(&pinned, 200), (&other, 503)] {
        let given = [
            ("DATABASE_URL", cluster.url("postgres")),
            ("DATABASE_CA", trusted.certificate.clone()),
            ("DATABASE_SSLMODE", "verify-ca".to_owned()),
            ("MIGRATE_ON_START", "false".to_owned()),
        ];
        let given: Vec<_> = given.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(migrates(&given, &log), status == 200);
        let port = port::free(1).unwrap()[0];
        let serve = instruction("web", "CMD");
        let log = folder.path().join(format!("{status}.log"));
        let _dyno = Dyno::start(Part::Warranty, &serve, &variables(&given), port, &log);
        // It doesn't go dark without a word, even when nobody but probes asks.
        let said = || std::fs::read_to_string(&log).unwrap().contains("certificate verify failed");
        let health =
            health(port, async |health| health.is_some() && said() == (status == 503)).await;
        assert_eq!(health["components"]["db"]["status"] == "Work", status == 200, "{health}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_cannot_prove_itself_carries_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, other) = (Authority::new(), Authority::new());
    let broker = tokio::task::spawn_blocking({
        let identity = authority.vouch_for("localhost");
        move || TestBroker::encrypted(&identity)
    });
    let broker = broker.await.unwrap();
    let vhost = broker.vhost();
    let database = TestDatabase::new("e2e_store", |url| world::prepare(Part::Store, url));
    for (name, trusted) in [("right", &authority), ("wrong", &other)] {
        let file = folder.path().join(name);
        std::fs::write(&file, trusted.pem()).unwrap();
        let log = folder.path().join(format!("{name}.log"));
        let given = variables(&[
            ("DATABASE_URL", database.url()),
            ("CLOUDAMQP_URL", &vhost.encrypted_url("localhost")),
            ("SSL_CERT_FILE", file.to_str().unwrap()),
            ("RUST_LOG", "debug"),
        ]);
        let port = port::free(1).unwrap()[0];
        let _dyno = Dyno::start(Part::Store, &instruction("web", "CMD"), &given, port, &log);
        let refused =
            || std::fs::read_to_string(&log).unwrap().contains("certificate verify failed");
        let health = health(port, async |health| {
            refused()
                || health.is_some_and(|health| health["components"]["broker"]["status"] == "Work")
        });
        let health = health.await;
        let works = health["components"]["broker"]["status"] == "Work";
        assert_eq!((works, refused()), (name == "right", name == "wrong"), "{health}");
    }
}

/// Health, once it has answered and `enough` says so.
async fn health(port: u16, enough: impl AsyncFn(Option<&Value>) -> bool) -> Value {
    let client = Client::new(&format!("http://127.0.0.1:{port}"));
    until(LIMIT, "health is as it should be", async || {
        let answer = client.get("/manage/health").try_send().await.ok();
        let health = answer.map(|answer| answer.json());
        if enough(health.as_ref()).await { health } else { None }
    })
    .await
}
