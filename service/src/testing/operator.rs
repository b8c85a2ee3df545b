//! `/manage/resilience`: what every service shows of its breakers, and what an operator can do to
//! them. Each of these panics where the promise is broken.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{Call, Client, assert_envelope};

const RESILIENCE: &str = "/manage/resilience";

/// A command to a breaker, by its name.
pub fn command(client: &Client, breaker: &str, action: &str) -> Call {
    client.post(format!("{RESILIENCE}/{breaker}")).json(&json!({"action": action}))
}

/// Everything that is shown.
pub async fn shown(client: &Client) -> Value {
    client.get(RESILIENCE).send().await.ok()
}

/// One of the breakers that are shown.
///
/// # Panics
/// When there is none of that name.
pub async fn breaker(client: &Client, name: &str) -> Value {
    let shown = shown(client).await;
    let breakers = shown["breakers"].as_array().expect("a list");
    let found = breakers.iter().find(|breaker| breaker["name"] == name);
    found.unwrap_or_else(|| panic!("no {name}: {shown}")).clone()
}

/// A service that has just begun shows exactly these breakers, sorted by name, and takes commands
/// to them: from this machine only, and for this replica only.
pub async fn breakers_are_operated(client: &Client, service: &str, breakers: &[&str]) {
    let first = shown(client).await;
    assert_eq!(first["service"], service);
    let replica: Uuid = first["replica"].as_str().expect("an id").parse().expect("a UUID");
    assert_eq!(shown(client).await["replica"], json!(replica), "minted once");
    let names: Vec<_> = first["breakers"].as_array().expect("a list").iter().collect();
    assert_eq!(names.iter().map(|breaker| &breaker["name"]).collect::<Vec<_>>(), breakers);
    assert!(first["bulkheads"].is_array() && first["retryBudgets"].is_array(), "{first}");

    for name in breakers {
        let closed = breaker(client, name).await;
        assert_eq!((&closed["state"], &closed["opened"]), (&json!("closed"), &json!(0)));
        for (action, state) in [("force_open", "forced_open"), ("force_closed", "forced_closed")] {
            let done = command(client, name, action).send().await.ok();
            assert_eq!(done["replica"], json!(replica));
            assert_eq!((&done["service"], &done["scope"]), (&json!(service), &json!("replica")));
            assert_eq!(done["breaker"]["state"], state);
            assert_eq!(breaker(client, name).await["state"], state);
            // Its value may be another test's by now: the metrics of a process are one.
            let metrics = client.get("/metrics").send().await.text();
            let series =
                format!("resilience_breaker_state{{breaker=\"{name}\",state=\"{state}\"}}");
            assert!(metrics.contains(&series), "no {series}");
        }
        let slash = name.replace('/', "%2F");
        let done = command(client, &slash, "reset").send().await.ok();
        assert_eq!(done["breaker"]["state"], "closed");
    }

    let some = breakers.first().unwrap_or(&"nobody");
    for body in [json!({}), json!({"action": "explode"}), json!({"action": 1})] {
        let refused = client.post(format!("{RESILIENCE}/{some}")).json(&body).send().await;
        assert_envelope(&refused, 400, "invalid_request");
        assert_eq!(refused.json()["details"][0]["field"], "action");
    }
    let empty = client.post(format!("{RESILIENCE}/{some}")).send().await;
    assert_envelope(&empty, 400, "invalid_request");
    let form = client.post(format!("{RESILIENCE}/{some}")).body(Some("text/plain"), "action=reset");
    assert_envelope(&form.send().await, 415, "unsupported_media_type");
    for unknown in ["nobody", "nobody/write", "%2F", "%FF"] {
        let missed = command(client, unknown, "reset").send().await;
        let expected = if unknown == "%FF" { (400, "invalid_request") } else { (404, "not_found") };
        assert_envelope(&missed, expected.0, expected.1);
    }
    let passed_on = command(client, some, "force_open").header("X-Forwarded-For", "10.0.0.1");
    assert_envelope(&passed_on.send().await, 403, "forbidden");
    for name in breakers {
        assert_eq!(breaker(client, name).await["state"], "closed", "{name} was left alone");
    }
    for (method, target, allowed) in
        [("PATCH", RESILIENCE.to_owned(), "GET,HEAD"), ("GET", format!("{RESILIENCE}/x"), "POST")]
    {
        let refused = client.call(method, target).send().await;
        assert_envelope(&refused, 405, "method_not_allowed");
        assert_eq!(refused.header("allow"), Some(allowed));
    }
}
