//! However much is made up, a service has few series.

use futures_util::future::join_all;
use serde_json::json;
use service::testing::Client;
use uuid::Uuid;

use crate::world::{MANAGEMENT_TOKEN, Part, SERVICE_TOKEN, World};

/// A promise: of each service, whatever users send.
const MOST_SERIES: usize = 1500;

const METHODS: [&str; 12] = [
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW",
    "BREW2", "BREW3",
];

/// Nothing that is sent with it may show up in a label.
const MADE_UP: &str = "geheim";

fn series(metrics: &str) -> usize {
    metrics.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count()
}

/// Every path of a service's own description, each with something made up in place of its parameters.
async fn paths(client: &Client) -> Vec<String> {
    let document = client.get("/api-docs/openapi.json").send().await.ok();
    let paths = document["paths"].as_object().unwrap().keys();
    let made_up = |path: &String| {
        let parts = path.split('/').map(|part| {
            if part.starts_with('{') { Uuid::new_v4().to_string() } else { part.to_owned() }
        });
        parts.collect::<Vec<_>>().join("/")
    };
    paths.map(made_up).collect()
}

async fn made_up(client: &Client, number: usize) {
    let text = format!("{MADE_UP}-{number}");
    let call = |method: &str, path: String| {
        client
            .call(method, path)
            .header("X-Request-Id", &text)
            .header("Idempotency-Key", &text)
            .header("User-Agent", &text)
            .header("X-Failed-Dependency", &text)
            .header("X-Request-Timeout", &text)
    };
    let wish = json!({"model": text, "size": text, "reason": text, "action": text});
    for call in [
        call("GET", format!("/{text}")),
        call("GET", format!("/api/v1/{text}/{text}")),
        call("POST", format!("/api/v1/store/{}/purchase", Uuid::new_v4())).json(&wish),
        call("POST", format!("/api/v1/warehouse?{text}={text}")).json(&wish),
        call("GET", format!("/manage/deferred?kind={text}&state={text}")),
        call("GET", format!("/manage/sagas?kind={text}&state={text}")),
        call("POST", format!("/manage/resilience/{text}")).json(&wish),
        call(&format!("M{number}"), format!("/manage/deferred/{text}/retry")),
    ] {
        // Whatever it says to that.
        let _ = call.try_send().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_has_few_series_whatever_users_send() {
    let world = World::plan().patient().locked().start().await;
    let order = world.bought().await;
    world.claim(order).send().await;
    world.refund(order).send().await;
    for part in Part::ALL {
        let client = &world.client(part).with_token(SERVICE_TOKEN);
        let operator = &world.client(part).with_token(MANAGEMENT_TOKEN);
        for path in paths(client).await {
            let known = if path.starts_with("/api") { client } else { operator };
            let calls = METHODS.map(|method| {
                let call = known.call(method, path.clone());
                // Refused before anything looks at whether the route has the method.
                let anonymous = world.client(part).call(method, path.clone());
                let hasty = call.clone().header("X-Request-Timeout", MADE_UP);
                async move {
                    for call in [call, anonymous, hasty] {
                        // Whatever it says to that.
                        let _ = call.try_send().await;
                    }
                }
            });
            join_all(calls).await;
        }
        for some in 0..10 {
            let who = if some % 2 == 0 { client } else { operator };
            join_all((0..20).map(|number| made_up(who, some * 20 + number))).await;
        }
        let metrics = operator.get("/metrics").send().await.text();
        let count = series(&metrics);
        println!("{part:?}: {count} series");
        assert!(count <= MOST_SERIES, "{part:?}: {count}");
        assert!(!metrics.contains(MADE_UP) && !metrics.contains("BREW"), "{part:?}: {metrics}");
    }
}
