//! What the contract says of every service: health, ids, methods, documents, and an outage of the
//! database. Each of these panics where the promise is broken.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Call, Client, Response, TestServer, assert_envelope};

/// `/manage/health` of a service that works, whatever the `Authorization`, and its probes.
/// `dependencies` are all that it calls, in their order, each with a closed breaker.
pub async fn health_works(client: &Client, name: &str, dependencies: &[&str], defers: bool) {
    let call = client.get("/manage/health").header("Authorization", "Basic nonsense");
    let health = call.send().await.ok();
    assert_eq!(health["status"], "Work");
    let components = health["components"].as_object().expect("components");
    let mut names: Vec<_> = components.keys().map(String::as_str).collect();
    names.sort_unstable();
    let broker = defers.then_some("broker");
    let expected: Vec<_> =
        broker.into_iter().chain(["db", "dependencies", "ping", "time"]).collect();
    assert_eq!(names, expected);
    let db = json!({"status": "Work", "name": name, "database": "PostgreSQL"});
    assert_eq!(components["db"], db);
    assert_eq!(components["ping"], json!({"status": "Work"}));
    let time = &components["time"];
    assert!(time["epoch"].as_i64().is_some_and(|epoch| epoch > 1_600_000_000), "{time}");
    assert!(time["offset"].is_f64(), "{time}");
    rfc3339(&time["local"]);
    let found = components["dependencies"].as_array().expect("a list");
    let names: Vec<_> = found.iter().map(|dependency| &dependency["name"]).collect();
    assert_eq!(names, dependencies);
    for dependency in found {
        assert_eq!(dependency["state"], "closed");
        rfc3339(&dependency["since"]);
    }
    for target in ["/manage/health/", "/manage/health/live", "/manage/health/ready"] {
        assert_eq!(client.get(target).send().await.ok()["status"], "Work");
    }
}

fn rfc3339(value: &serde_json::Value) {
    let text = value.as_str().unwrap_or_default();
    assert!(chrono::DateTime::parse_from_rfc3339(text).is_ok(), "{value}");
}

/// An `X-Request-Id` and a `traceparent` that can be used are echoed, any other is replaced.
/// `unknown` is an address that is answered with 404 and `code`.
pub async fn ids_are_echoed(client: &Client, unknown: &str, code: &str) {
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let call = client.get(unknown).header("X-Request-Id", "mine-1!").header("traceparent", trace);
    let answer = call.send().await;
    assert_envelope(&answer, 404, code);
    assert_eq!(answer.header("x-request-id"), Some("mine-1!"));
    assert_eq!(answer.header("traceparent"), Some(trace));
    for bad in ["", "a b", "\u{e4}", &"x".repeat(129)] {
        let answer = client.get(unknown).header("X-Request-Id", bad).send().await;
        assert_envelope(&answer, 404, code);
        assert_eq!(answer.header("x-request-id").map(str::len), Some(36), "{bad:?}");
    }
    for target in ["/manage/health", "/metrics", "/docs/", "/nowhere"] {
        let answer = client.get(target).header("X-Request-Id", "abc").send().await;
        assert_eq!(answer.header("x-request-id"), Some("abc"), "{target}");
    }
}

/// A wrong method is told the right ones: `targets` with their methods, in alphabetical order and
/// parted by commas.
pub async fn methods_are_told(client: &Client, targets: &[(String, &str)]) {
    for (target, methods) in targets {
        let refused = client.call("PATCH", target).send().await;
        assert_envelope(&refused, 405, "method_not_allowed");
        let mut allowed: Vec<_> =
            refused.header("allow").unwrap_or_default().split(',').map(str::trim).collect();
        allowed.sort_unstable();
        assert_eq!(allowed.join(","), *methods, "{target}");
    }
}

/// The OpenAPI document is 3.1, has exactly these paths with these methods besides those that
/// every service has, and refers to nothing that it doesn't have.
pub async fn openapi_has(client: &Client, paths: &[(&str, &[&str])]) {
    let document = client.get("/api-docs/openapi.json").send().await.ok();
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")));
    // Two types of one name would describe each other's values.
    let known = &document["components"]["schemas"]["HealthStatus"]["enum"];
    assert_eq!(known, &serde_json::json!(["Work", "Down", "Absent"]));
    let shared: [(&str, &[&str]); 7] = [
        ("/manage/access", &["get"]),
        ("/manage/health", &["get"]),
        ("/manage/health/live", &["get"]),
        ("/manage/health/ready", &["get"]),
        ("/manage/overview", &["get"]),
        ("/manage/resilience", &["get"]),
        ("/manage/resilience/{name}", &["post"]),
    ];
    let found = document["paths"].as_object().expect("paths");
    let mut expected = 0;
    for (path, methods) in shared.iter().chain(paths) {
        expected += 1;
        for method in *methods {
            let operation = &found.get(*path).unwrap_or_else(|| panic!("no {path}"))[method];
            let answers = operation["responses"].as_object();
            assert!(answers.is_some_and(|answers| !answers.is_empty()), "{method} {path}");
            let described =
                operation["description"].is_string() || operation["summary"].is_string();
            assert!(described, "{method} {path} says nothing of itself");
        }
    }
    assert_eq!(found.len(), expected, "{:?}", found.keys());
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap_or_default();
        assert!(document.pointer(pointer).is_some(), "dangling {pointer}");
    }
}

/// Swagger UI is at `/docs`.
pub async fn docs_are_shown(client: &Client) {
    let moved = client.get("/docs").send().await;
    assert_eq!((moved.status, moved.header("location")), (303, Some("/docs/")));
    let page = client.get("/docs/").send().await;
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").is_some_and(|kind| kind.starts_with("text/html")));
    assert!(page.text().contains("swagger-ui"));
    assert_eq!(client.get("/docs/swagger-ui.css").send().await.status, 200);
    // What a browser is told of it: its own scripts alone, none of them inside of the page, no frame.
    let policy = page.header("content-security-policy").unwrap_or_default();
    for rule in ["default-src 'none'", "script-src 'self';", "frame-ancestors 'none'"] {
        assert!(policy.contains(rule), "{policy}");
    }
    assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
    for script in page.text().split("<script").skip(1) {
        assert!(script.trim_start().starts_with("src=\"./"), "it is not run: {script}");
    }
    for target in ["/docs/", "/docs/swagger-ui.css", "/manage/health", "/metrics", "/nowhere"] {
        let answer = client.get(target).send().await;
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{target}");
        let kept = target.starts_with("/docs");
        assert_eq!(answer.header("cache-control"), (!kept).then_some("no-store"), "{target}");
    }
}

/// The database is away: each of `calls`, which need it and come at once, is 503
/// `database_unavailable` within 2 s, and health says so within 500 ms.
pub async fn database_is_missed(server: &TestServer, name: &str, calls: Vec<Call>) {
    let calls = calls.into_iter().map(|call| timed(call, Duration::from_secs(2)));
    for failed in futures_util::future::join_all(calls).await {
        assert_envelope(&failed, 503, "database_unavailable");
        assert_eq!(failed.header("x-failed-dependency"), None, "nobody further down is to blame");
    }
    let (client, half) = (server.client(), Duration::from_millis(500));
    let health = timed(client.get("/manage/health"), half).await;
    assert_eq!(health.status, 503, "{health:?}");
    assert!(health.header("retry-after").is_some());
    let health = health.json();
    assert_eq!(health["status"], "Down");
    let db = json!({"status": "Down", "name": name, "database": "PostgreSQL"});
    assert_eq!(health["components"]["db"], db);
    assert_eq!(health["components"]["ping"]["status"], "Work");
    assert!(
        health["components"]["time"].is_object() && health["components"]["dependencies"].is_array()
    );
    assert_eq!(timed(client.get("/manage/health/ready"), half).await.status, 503);
    assert_eq!(timed(client.get("/manage/health/live"), half).await.status, 200);
}

async fn timed(call: Call, limit: Duration) -> Response {
    let start = Instant::now();
    let answer = call.send().await;
    let took = start.elapsed();
    assert!(took <= limit, "{took:?}: {answer:?}");
    answer
}
