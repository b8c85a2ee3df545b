//! Claims, decided by a real Warranty.

use std::time::{Duration, Instant};

use backing::postgres::testing::TestDatabase;
use serde_json::{Value, json};
use service::testing::{Call, Client, TestServer, assert_envelope, config, sql, until};
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::world::{MODEL, STOCK, World, path};

struct Warranty {
    client: Client,
    server: TestServer,
    database: TestDatabase,
}

impl Warranty {
    async fn start_on(listener: TcpListener) -> Self {
        let database =
            TestDatabase::new("warranty", |url| service::migrate::up(url, &warranty::MIGRATIONS));
        let variables = [("DATABASE_URL", database.url()), ("DB_TIMEOUT_MS", "15000")];
        let config = config(warranty::Config::read, &variables);
        let server =
            TestServer::spawn_on(listener, |listener, end| warranty::run(config, listener, end));
        server.ready(Duration::from_secs(20)).await;
        Self { client: server.client(), server, database }
    }

    async fn begins(&self, item: Uuid) {
        self.client.post(format!("/api/v1/warranty/{item}")).send().await.no_content();
    }

    async fn of(&self, item: Uuid) -> Value {
        self.client.get(format!("/api/v1/warranty/{item}")).send().await.ok()
    }
}

/// Also where a crowded machine takes its time.
const PATIENT: (&str, &str) = ("WARRANTY_TIMEOUT_MS", "15000");

/// Nobody serves it yet: connections are accepted, and nothing is ever said.
async fn hung() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("a free port")
}

async fn both() -> (World, Warranty) {
    let warranty = Warranty::start_on(hung().await).await;
    let world = World::with(&[("WARRANTY_URL", warranty.server.url()), PATIENT]).await;
    (world, warranty)
}

fn claim(world: &World, item: Uuid, reason: &str) -> Call {
    world.client.post(format!("{}/warranty", path(item))).json(&json!({"reason": reason}))
}

#[tokio::test]
async fn a_claim_is_decided_by_what_is_in_stock() {
    let (world, warranty) = both().await;
    for (left, decision) in [(STOCK, "RETURN"), (0, "FIXING")] {
        world.stock(MODEL, "M", STOCK);
        let item = world.taken_item().await;
        warranty.begins(item).await;
        let date = warranty.of(item).await["warrantyDate"].clone();
        world.stock(MODEL, "M", left);
        let decided = claim(&world, item, "broken\r\nbadly").send().await.ok();
        assert_eq!(decided, json!({"warrantyDate": date, "decision": decision}));
        let now = warranty.of(item).await;
        assert_eq!(
            (&now["status"], &now["comment"]),
            (&json!("USE_WARRANTY"), &json!("broken\r\nbadly"))
        );
        // Used up.
        assert_eq!(claim(&world, item, "again").send().await.ok()["decision"], "REFUSED");
    }
}

#[tokio::test]
async fn an_item_that_warranty_does_not_know_is_404_in_the_words_of_the_contract() {
    let (world, _warranty) = both().await;
    let item = world.taken_item().await;
    let refused = claim(&world, item, "broken").send().await;
    assert_envelope(&refused, 404, "warranty_not_found");
    assert_eq!(refused.json()["message"], format!("Warranty not found for itemUid '{item}'"));
    let upper = path(item).replace(&item.to_string(), &item.to_string().to_uppercase());
    let call = world.client.post(format!("{upper}/warranty/")).json(&json!({"reason": "x"}));
    assert_eq!(call.send().await.json()["message"], refused.json()["message"]);
}

#[tokio::test]
async fn a_claim_on_an_unknown_item_asks_nobody() {
    let world = World::start().await;
    let refused = claim(&world, Uuid::new_v4(), "broken").send().await;
    assert_envelope(&refused, 404, "item_not_found");
}

#[tokio::test]
async fn a_replay_under_the_same_key_repeats_the_first_decision() {
    let (world, warranty) = both().await;
    let item = world.taken_item().await;
    warranty.begins(item).await;
    let first = claim(&world, item, "broken").key("k").send().await.ok();
    assert_eq!(first["decision"], "RETURN");
    world.stock(MODEL, "M", 0);
    assert_eq!(claim(&world, item, "broken").key("k").send().await.ok(), first);
    let other = claim(&world, item, "another reason").key("k").send().await;
    assert_envelope(&other, 422, "idempotency_key_reused");
    assert_eq!(claim(&world, item, "broken").key("l").send().await.ok()["decision"], "REFUSED");
}

#[tokio::test]
async fn a_decision_that_was_lost_on_the_way_is_found_again_under_the_same_key() {
    let (world, warranty) = both().await;
    let item = world.taken_item().await;
    warranty.begins(item).await;
    let first = claim(&world, item, "broken").key("k").send().await.ok();
    // A crash before the answer was written down here: Warranty has it.
    world.execute("DELETE FROM idempotency");
    world.stock(MODEL, "M", 0);
    assert_eq!(claim(&world, item, "broken").key("k").send().await.ok(), first);
}

#[tokio::test]
async fn a_warranty_that_is_down_is_blamed_and_the_key_stays_free() {
    let world = World::start().await;
    let item = world.taken_item().await;
    let failed = claim(&world, item, "broken").key("k").send().await;
    assert_envelope(&failed, 503, "dependency_unavailable");
    assert_eq!(failed.header("x-failed-dependency"), Some("warranty"));
    assert_eq!(failed.json()["dependency"], "warranty");
    assert_eq!(world.number("SELECT count(*) FROM idempotency"), 0);
}

#[tokio::test]
async fn a_warranty_that_hangs_costs_its_timeout_until_the_breaker_opens_and_is_found_again() {
    let listener = hung().await;
    let url = format!("http://{}", listener.local_addr().unwrap());
    let open = Duration::from_millis(1500);
    let world = World::with(&[("WARRANTY_URL", &url), ("BREAKER_OPEN_MS", "1500")]).await;
    let item = world.taken_item().await;
    let state = async || {
        let health = world.client.get("/manage/health").send().await.ok();
        let dependency = health["components"]["dependencies"][0].clone();
        assert_eq!(dependency["name"], "warranty");
        dependency["state"].as_str().unwrap().to_owned()
    };
    assert_eq!(state().await, "closed");
    for _ in 0..3 {
        let start = Instant::now();
        let failed = claim(&world, item, "broken").key("k").send().await;
        assert_envelope(&failed, 503, "dependency_unavailable");
        assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }
    let opened = Instant::now();
    // Shown, and health stays 200.
    assert_eq!(state().await, "open");
    let start = Instant::now();
    let rejected = claim(&world, item, "broken").key("k").send().await;
    assert_envelope(&rejected, 503, "dependency_unavailable");
    if opened.elapsed() < open {
        assert!(start.elapsed() < Duration::from_millis(300), "{:?}", start.elapsed());
        let wait: u64 = rejected.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=2).contains(&wait), "{wait}");
    }

    // It wakes up. What was sent to it before arrives now, late.
    let warranty = Warranty::start_on(listener).await;
    let count = "SELECT count(*) FROM warranty";
    assert_eq!(sql::number(warranty.database.url(), count), 0);
    warranty.begins(item).await;
    let decided = until(Duration::from_secs(20), "decided", async || {
        let answer = claim(&world, item, "broken").key("new").send().await;
        (answer.status == 200).then(|| answer.ok())
    })
    .await;
    // The claims that came late found no warranty, or were the one that was decided.
    assert!(decided["decision"] == "RETURN" || decided["decision"] == "REFUSED", "{decided}");
    assert_eq!(state().await, "closed");
    assert_eq!(warranty.of(item).await["status"], "USE_WARRANTY");
}

#[tokio::test]
async fn a_caller_without_time_opens_no_breaker() {
    let listener = hung().await;
    let url = format!("http://{}", listener.local_addr().unwrap());
    let world = World::with(&[("WARRANTY_URL", &url), PATIENT]).await;
    let item = world.taken_item().await;
    for _ in 0..5 {
        let late = claim(&world, item, "broken").header("X-Request-Timeout", "60").send().await;
        assert_envelope(&late, 503, "deadline_exceeded");
        assert_eq!(late.header("x-failed-dependency"), None);
    }
    let health = world.client.get("/manage/health").send().await.ok();
    assert_eq!(health["components"]["dependencies"][0]["state"], "closed");
}
