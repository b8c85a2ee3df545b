//! `heroku/up` and `heroku/down`, with databases and brokers that encrypt, as Heroku's do.

use backing::certificate::{Authority, Identity};
use backing::postgres::testing::TestCluster;
use backing::rabbitmq::testing::TestBroker;
use futures_util::future::join_all;
use serde_json::Value;
use service::testing::Client;

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
