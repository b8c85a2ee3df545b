//! `heroku/up` and `heroku/down`, with databases and brokers that encrypt, as Heroku's do.

use backing::certificate::{Authority, Identity};
use backing::postgres::testing::TestCluster;
use backing::rabbitmq::testing::TestBroker;
use futures_util::future::join_all;
use serde_json::Value;
use service::testing::Client;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::platform::{AddOns, KEY, PREFIX, Platform, name};
use super::read;
use crate::world::Part;
use crate::world::shop::ALEX;

/// What heroku-postgresql:essential-0 allows.
const CONNECTIONS: i64 = 20;

/// What a manifest gives this variable.
fn manifest(part: Part, variable: &str) -> String {
    let manifest = read(&format!("heroku/{}/app.json", part.name()));
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    manifest["env"][variable]["value"].as_str().unwrap().to_owned()
}

fn pool(part: Part) -> i64 {
    // One more than this is kept for probes.
    manifest(part, "DB_POOL_SIZE").parse::<i64>().unwrap() + 1
}

#[test]
fn two_dynos_that_are_replaced_leave_connections_for_migrations_and_for_a_person() {
    for part in Part::ALL {
        let replaced = 2 * 2 * pool(part);
        assert!(replaced + 2 <= CONNECTIONS, "{part:?}: {replaced}");
        // Or each start would need one more, beside the release phase's.
        assert_eq!(manifest(part, "MIGRATE_ON_START"), "false");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn up_leads_from_nothing_to_a_store_that_sells_and_down_back_to_nothing() {
    let platform = Platform::start().await;
    platform.build("v1", &[]);
    let authority = Authority::new();
    let identity = authority.vouch_for("localhost");
    let add_ons = tokio::task::spawn_blocking(move || AddOns {
        // As the small plans have it: nobody vouches for it.
        postgres: TestCluster::encrypted(&Identity::self_signed("db")),
        broker: TestBroker::encrypted(&identity),
    });
    platform.sell_add_ons(add_ons.await.unwrap(), &authority.pem());

    let up = platform.script(&["heroku/up", "v1"], &[]).await;
    let mut said = String::from_utf8_lossy(&up.stderr).into_owned();
    assert!(up.status.success(), "{said}\n{}", platform.log(Part::Store));
    assert_eq!(platform.runs(), ["v1"; 4]);

    let variable = |part: Part, variable: &str| {
        platform
            .variable(&name(part), variable)
            .unwrap_or_else(|| panic!("{part:?}: no {variable}"))
    };
    let secrets =
        |part| ["SERVICE_TOKENS", "MANAGEMENT_TOKENS"].map(|secret| variable(part, secret));
    let minted = secrets(Part::Store);
    assert_ne!(minted[0], minted[1]);
    for part in Part::ALL {
        assert_eq!(secrets(part), minted);
        assert!(minted.iter().all(|token| token.len() == 64));
        assert_eq!(variable(part, "DATABASE_SSLMODE"), "verify-ca");
        assert!(variable(part, "DATABASE_CA").contains("BEGIN CERTIFICATE"));
    }

    // The pool is what it says, and TLS is what carried all of it.
    let store = Client::new(&platform.store_url());
    let orders = format!("/api/v1/store/{ALEX}/orders");
    join_all((0..40).map(|_| store.get(orders.as_str()).send())).await;
    for (part, connections) in Part::ALL.into_iter().zip(platform.connections()) {
        assert!((1..=pool(part)).contains(&connections), "{part:?}: {connections}");
    }
    assert_eq!(platform.unencrypted(), 0);
    let health = store.get("/manage/health").send().await.json();
    assert_eq!(health["components"]["broker"]["status"], "Work", "{health}");

    // What is there stays; a token that changed would cut off whoever has the old one.
    let again = platform.script(&["heroku/up", "v1"], &[]).await;
    said += &String::from_utf8_lossy(&again.stderr);
    assert!(again.status.success(), "{said}");
    assert_eq!(secrets(Part::Order), minted);

    let shown = platform.said() + &said;
    let password = variable(Part::Store, "CLOUDAMQP_URL");
    let password = password.split([':', '@']).nth(2).unwrap();
    for secret in [KEY, &minted[0], &minted[1], password] {
        assert!(!shown.contains(secret), "a secret is printed, or on a command line");
    }

    for (typed, code) in [("acme", 2), ("", 2), (PREFIX, 0)] {
        assert!(platform.apps().len() == 5, "{:?}", platform.apps());
        let down = platform.script(&["heroku/down", typed], &[]).await;
        let said = String::from_utf8_lossy(&down.stderr).into_owned();
        assert_eq!(down.status.code(), Some(code), "{said}");
    }
    assert!(platform.apps().is_empty(), "{:?}", platform.apps());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_told_is_not_taken_for_nothing() {
    let platform = Platform::configured().await;
    platform.build("v1", &[]);
    let run = async |words: &[&str], fails: &str| {
        platform.script(words, &[("STAND_IN_FAILS", fails)]).await
    };
    let record = format!("{PREFIX}-deploys");
    let tokens =
        || ["SERVICE_TOKENS", "MANAGEMENT_TOKENS"].map(|name| platform.variable(&record, name));

    let up = run(&["heroku/up", "v1"], "heroku config --app acme-shop-warranty").await;
    assert!(!up.status.success());
    let minted = tokens();
    assert!(minted.iter().all(Option::is_some), "{minted:?}");
    let up = run(&["heroku/up", "v1"], "heroku config --app acme-shop-deploys").await;
    assert!(!up.status.success());
    assert_eq!(tokens(), minted, "whether there are tokens can't be told");

    let down = run(&["heroku/down", PREFIX], "heroku apps:info").await;
    let said = String::from_utf8_lossy(&down.stderr).into_owned();
    assert!(!down.status.success() && !said.contains("nothing"), "{said}");
    assert_eq!(platform.apps().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_cut_off_shows_no_variable() {
    let platform = Platform::configured().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = format!("http://{}", listener.local_addr().unwrap());
    let cut_off = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await.unwrap();
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 4096\r\n\r\n{\"AMQP_URL\": \"geheim";
        stream.write_all(answer.as_bytes()).await.unwrap();
    });
    let up = platform.script(&["heroku/up", "v1"], &[("HEROKU_API_URL", &api)]).await;
    cut_off.await.unwrap();
    let said = String::from_utf8_lossy(&up.stderr).into_owned();
    assert!(said.contains("its variables can't be set") && !said.contains("geheim"), "{said}");
    assert!(!up.status.success() && up.stdout.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_would_not_be_taken_is_not_pinned() {
    let platform = Platform::configured().await;
    let (own, vouched_for) = (Identity::self_signed("db"), Authority::new().vouch_for("localhost"));
    // The server shows this one alone, and not who vouches for it.
    for (identity, pinned) in [(vouched_for, false), (own, true)] {
        let cluster = TestCluster::encrypted(&identity);
        platform.set_variable(&name(Part::Warranty), "DATABASE_URL", &cluster.url("postgres"));
        let pin = platform.script(&["heroku/pin-database-ca", "warranty"], &[]).await;
        let said = String::from_utf8_lossy(&pin.stderr).into_owned();
        assert_eq!(pin.status.success(), pinned, "{said}");
        let ca = platform.variable(&name(Part::Warranty), "DATABASE_CA");
        assert_eq!(ca.is_some(), pinned, "{said}");
    }
}
