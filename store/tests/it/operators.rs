//! `/manage/deferred`: what Store does later, and an operator's hand on it.

use serde_json::{Value, json};
use service::testing::network::Act;
use service::testing::{assert_envelope, until};
use uuid::Uuid;

use crate::systems::uid;
use crate::world::{PATIENT, SOON, World};

const DEFERRED: &str = "/manage/deferred";

/// A Store whose claims wait: how long is up to the operator.
async fn waiting(count: usize) -> (World, Vec<Uuid>) {
    let world = World::with(&[PATIENT, &[("BREAKER_OPEN_MS", "60000")]].concat()).await;
    let mut claims = Vec::new();
    let order = world.bought().await;
    world.behind.order.proxy.on("POST", Act::Reset);
    for _ in 0..count {
        let answer = world.claim(order, "broken").header("X-Request-Id", "mine-1!").send().await;
        assert_eq!(answer.status, 202, "{answer:?}");
        claims.push(uid(&answer.json()["claimUid"]));
    }
    (world, claims)
}

async fn list(world: &World, query: &str) -> Value {
    world.client.get(format!("{DEFERRED}{query}")).send().await.ok()
}

fn ids(list: &Value) -> Vec<Uuid> {
    list["calls"].as_array().unwrap().iter().map(|call| uid(&call["id"])).collect()
}

#[tokio::test]
async fn what_is_deferred_is_listed_and_shown() {
    let (world, claims) = waiting(4).await;
    let all = list(&world, "").await;
    assert_eq!(all["broker"], "Absent");
    let newest: Vec<_> = claims.iter().rev().copied().collect();
    assert_eq!(ids(&all), newest);
    let depth = |kind: &str| -> Value {
        let kinds = all["kinds"].as_array().unwrap();
        kinds.iter().find(|found| found["kind"] == kind).unwrap().clone()
    };
    let (claim, undo) = (depth("claim"), depth("undo-purchase"));
    assert_eq!((&claim["pending"], &claim["parked"]), (&json!(4), &json!(0)), "{claim}");
    assert!(claim["oldestMs"].is_u64(), "{claim}");
    assert_eq!((&undo["pending"], &undo["running"]), (&json!(0), &json!(0)), "{undo}");
    for (query, found) in [
        ("?state=pending", 4),
        ("?state=parked", 0),
        ("?kind=claim&limit=3", 3),
        ("?kind=undo-purchase", 0),
        ("?kind=nothing", 0),
        ("?unknown=1", 4),
    ] {
        assert_eq!(ids(&list(&world, query).await).len(), found, "{query}");
    }
    let row = &all["calls"][0];
    assert!(row.get("payload").is_none() && row.get("context").is_none(), "{row}");
    let call = world.client.get(format!("{DEFERRED}/{}", claims[0])).send().await.ok();
    assert!(call["state"] == "pending" && call["attempts"].as_u64() >= Some(1), "{call}");
    assert_eq!(call["strikes"], 0, "nobody was there");
    assert_eq!(call["payload"]["reason"], "broken");
    assert_eq!(call["context"]["x-request-id"], "mine-1!");
    assert!(call["lastError"].as_str().unwrap().contains("order is unavailable"), "{call}");
    for (query, field) in [
        ("?state=lost", "state"),
        ("?limit=0", "limit"),
        ("?limit=1001", "limit"),
        ("?limit=x", "limit"),
        ("?kind=%00", "kind"),
        ("?kind=", "kind"),
    ] {
        let refused = world.client.get(format!("{DEFERRED}{query}")).send().await;
        assert_envelope(&refused, 400, "invalid_request");
        assert_eq!(refused.json()["details"][0]["field"], field);
    }
}

#[tokio::test]
async fn an_operator_discards_and_repeats_from_this_machine_only() {
    let (world, claims) = waiting(3).await;
    let target = |id: Uuid, action: &str| format!("{DEFERRED}/{id}/{action}");
    let post = |id: Uuid, action: &str| world.client.post(target(id, action));
    let one = claims[0];
    for call in [
        world.client.get(DEFERRED),
        world.client.get(format!("{DEFERRED}/{one}")),
        post(one, "retry"),
        post(one, "discard"),
    ] {
        let passed_on = call.clone().header("X-Forwarded-For", "10.0.0.1").send().await;
        assert_envelope(&passed_on, 403, "forbidden");
        let page = call.header("Origin", "http://evil.example").send().await;
        assert_envelope(&page, 403, "forbidden");
    }
    let unknown = Uuid::new_v4();
    for call in [
        world.client.get(format!("{DEFERRED}/{unknown}")),
        post(unknown, "retry"),
        post(unknown, "discard"),
    ] {
        assert_envelope(&call.send().await, 404, "not_found");
    }
    let wrong = world.client.post(format!("{DEFERRED}/x/retry")).send().await;
    assert_envelope(&wrong, 400, "invalid_request");
    for (method, target, allowed) in [
        ("PATCH", DEFERRED.to_owned(), "GET,HEAD"),
        ("DELETE", format!("{DEFERRED}/{one}"), "GET,HEAD"),
        ("GET", target(one, "retry"), "POST"),
        ("GET", target(one, "discard"), "POST"),
    ] {
        let refused = world.client.call(method, &target).send().await;
        assert_envelope(&refused, 405, "method_not_allowed");
        assert_eq!(refused.header("allow"), Some(allowed));
    }

    for _ in 0..2 {
        let discarded = post(one, "discard").send().await.ok();
        assert_eq!(discarded["state"], "parked");
        assert!(discarded["discardedAt"].is_string(), "{discarded}");
        assert_eq!(discarded["lastError"], "discarded by an operator");
    }
    assert!(!ids(&list(&world, "").await).contains(&one), "nobody needs to look after it");
    assert!(ids(&list(&world, "?state=parked").await).contains(&one));

    world.behind.order.proxy.heal();
    for breaker in ["order/write", "deferred/claim"] {
        let reset = json!({"action": "reset"});
        world.client.post(format!("/manage/resilience/{breaker}")).json(&reset).send().await.ok();
    }
    for id in &claims {
        let answer = post(*id, "retry").send().await;
        if *id == one {
            let repeated = answer.ok();
            assert!(repeated.get("discardedAt").is_none(), "{repeated}");
        }
    }
    until(SOON, "all are done", async || {
        (world.store.number("SELECT count(*) FROM deferred WHERE state = 'done'") == 3)
            .then_some(())
    })
    .await;
    for action in ["retry", "discard"] {
        let refused = post(one, action).send().await;
        assert_envelope(&refused, 409, "wrong_state");
        assert_eq!(refused.json()["message"], "the call is done");
    }
}

#[tokio::test]
async fn a_broker_that_is_away_is_told_and_claims_are_decided_all_the_same() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("amqp://u:geheim@{}/v", nobody.local_addr().unwrap());
    drop(nobody);
    let world = World::with(&[PATIENT, &[("AMQP_URL", &url)]].concat()).await;
    let health = world.client.get("/manage/health").send().await.ok();
    assert_eq!(health["status"], "Work");
    assert_eq!(health["components"]["broker"], json!({"status": "Down"}));
    assert_eq!(list(&world, "").await["broker"], "Down");
    let order = world.bought().await;
    world.behind.warranty.proxy.down().await;
    assert_eq!(world.claim(order, "broken").send().await.status, 202);
    world.behind.warranty.proxy.up();
    until(SOON, "decided", async || {
        let claims = world.claims(order).send().await.ok();
        (claims[0]["status"] == "DECIDED").then_some(())
    })
    .await;
}
