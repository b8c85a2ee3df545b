//! No secret is in any log, answer or span.

use serde_json::json;
use service::testing::jwt::{SigningKey, claims};
use service::testing::network::Act;
use service::testing::{Call, Response, until};
use uuid::Uuid;

use crate::telemetry::collector::Collector;
use crate::world::shop::{ALEX, Promise as _};
use crate::world::{MANAGEMENT_TOKEN, Part, RECOVERY, SERVICE_TOKEN, World};

/// All that was answered.
#[derive(Default)]
struct Heard(String);

impl Heard {
    async fn say(&mut self, call: Call) -> Response {
        let answer = call.send().await;
        self.0.extend([format!("{:?}\n", answer.headers), answer.text()]);
        answer
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_any_log_answer_or_span_whatever_goes_wrong() {
    const SIGNING: &str = "a-signing-secret-of-more-than-32-bytes-geheim";
    const BROKER: &str = "a-password-of-the-broker-geheim";
    const COLLECTOR: &str = "a-key-of-the-collector-geheim";
    let collector = Collector::start().await;
    let plan = collector.takes_from(World::plan());
    let world = plan
        .variable("OTEL_EXPORTER_OTLP_HEADERS", &format!("api-key={COLLECTOR}"))
        .locked()
        .impatient()
        .own_postgres()
        .proxied(Part::Warehouse)
        .variable("RUST_LOG", "debug")
        .variable("AMQP_URL", &format!("amqp://store:{BROKER}@127.0.0.1:1/store"))
        .variable("USER_JWT_SECRET", SIGNING)
        .variable("USER_JWT_ISSUER", "https://id.example.com")
        .variable("USER_JWT_AUDIENCE", "store")
        .start()
        .await;
    let mint = |user: Uuid| {
        SigningKey::secret(SIGNING).sign(None, &claims("https://id.example.com", "store", &user))
    };
    let (own, thief) = (mint(ALEX), mint(Uuid::new_v4()));
    let forged = SigningKey::secret("forged").sign(None, &claims("x", "y", &ALEX));
    let as_user = |token: &str, call: Call| call.header("Authorization", format!("Bearer {token}"));
    let mut heard = Heard::default();
    let bought = heard.say(as_user(&own, world.buy())).await.bought();
    for token in [&own, &thief, &forged] {
        heard.say(as_user(token, world.get(bought))).await;
        heard.say(as_user(token, world.claim(bought))).await;
        heard.say(as_user(token, world.buy().body(Some("text/plain"), "x"))).await;
    }
    for part in Part::ALL {
        let client = world.client(part);
        for token in [SERVICE_TOKEN, MANAGEMENT_TOKEN, "not-a-token-geheim", &own] {
            let client = client.with_token(token);
            for target in
                ["/manage/access", "/manage/resilience", "/metrics", "/api/v1/orders/x", "/docs"]
            {
                heard.say(client.get(target)).await;
            }
            let command = client.post("/manage/resilience/warehouse");
            heard.say(command.json(&json!({"action": "explode"}))).await;
        }
    }
    // Answers that are lost, garbled and refused, somebody who is away, and data that is.
    let warehouse = world.proxy(Part::Warehouse);
    for act in [Act::CutAnswer(12), Act::CutAnswer(0)] {
        let met = warehouse.once("POST /api/v1/warehouse", act);
        heard.say(as_user(&own, world.buy())).await;
        met.until_hits(1).await;
    }
    world.kill(Part::Warranty).await;
    let refused = heard.say(as_user(&own, world.buy())).await;
    assert_eq!(refused.status, 503, "{refused:?}");
    let queued = heard.say(as_user(&own, world.claim(bought))).await;
    assert_eq!(queued.status, 202, "{queued:?}");
    for part in [Part::Store, Part::Order] {
        let client = world.client(part).with_token(MANAGEMENT_TOKEN);
        let deferred = heard.say(client.get("/manage/deferred")).await.ok();
        for call in deferred["calls"].as_array().unwrap() {
            let id = call["id"].as_str().unwrap();
            heard.say(client.get(format!("/manage/deferred/{id}"))).await.ok();
        }
        if part == Part::Order {
            let sagas = heard.say(client.get("/manage/sagas")).await.ok();
            for saga in sagas["sagas"].as_array().unwrap() {
                let id = saga["id"].as_str().unwrap();
                heard.say(client.get(format!("/manage/sagas/{id}"))).await.ok();
            }
        }
    }
    tokio::task::block_in_place(|| world.postgres().kill());
    let lost = heard.say(as_user(&own, world.buy())).await;
    assert_eq!(lost.status, 503, "{lost:?}");
    heard.say(world.client(Part::Store).get("/manage/health")).await;

    let url = world.database(Part::Store);
    let password = url.split_once("://").unwrap().1.split_once('@').unwrap().0.rsplit(':').next();
    let password = password.unwrap().to_owned();
    assert!(password.len() > 16, "a real one");
    let secrets = [
        SERVICE_TOKEN,
        MANAGEMENT_TOKEN,
        SIGNING,
        BROKER,
        COLLECTOR,
        &password,
        "not-a-token-geheim",
        &own,
        &thief,
        &forged,
    ];
    let logs = Part::ALL.map(|part| world.replica(part, 0).said());
    for (log, part) in logs.iter().zip(Part::ALL) {
        assert!(log.contains("DEBUG") && log.contains("request"), "{part:?} logs at that level");
    }
    // What went wrong last is in them.
    let spans = until(RECOVERY, "all spans are sent", async || {
        Some(collector.raw()).filter(|spans| spans.contains("database_unavailable"))
    });
    let spans = spans.await;
    for secret in secrets {
        assert!(!heard.0.contains(secret), "an answer has {secret}");
        assert!(!spans.contains(secret), "a span has {secret}");
        for (log, part) in logs.iter().zip(Part::ALL) {
            let line = log.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "{part:?} logs {secret}");
        }
    }
}
