//! Claims while a system is away: they are accepted, and decided when it is back.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use service::testing::network::{Act, DEFECT, NOT_FOUND, RUBBISH};
use service::testing::{Response, assert_envelope, until};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::systems::uid;
use crate::world::{PATIENT, SHORT, SOON, World, assert_blames};

/// The one claim that is kept.
async fn kept(world: &World, order: Uuid) -> Value {
    let claims = world.claims(order).send().await.ok();
    assert_eq!(claims.as_array().unwrap().len(), 1, "{claims}");
    claims[0].clone()
}

/// The id of a claim that must be 202.
#[track_caller]
fn queued(world: &World, order: Uuid, answer: &Response) -> Uuid {
    assert_eq!(answer.status, 202, "{answer:?}");
    let claim = uid(&answer.json()["claimUid"]);
    let body = json!({"orderUid": order, "claimUid": claim, "status": "QUEUED"});
    assert_eq!(answer.json(), body);
    let list = format!("/store/{}/{order}/warranty", world.user);
    assert!(answer.header("location").unwrap().ends_with(&list), "{answer:?}");
    claim
}

/// Waits until the one claim on an order isn't queued any more.
async fn settled(world: &World, order: Uuid) -> Value {
    until(SOON, "the claim is settled", async || {
        let claim = kept(world, order).await;
        (claim["status"] != "QUEUED").then_some(claim)
    })
    .await
}

#[tokio::test]
async fn a_claim_that_cannot_be_decided_now_is_queued_and_decided_when_the_system_is_back() {
    let world = World::start().await;
    let behind = &world.behind;
    for party in [&behind.warehouse, &behind.warranty] {
        let order = world.bought().await;
        party.proxy.down().await;
        let answer = world.claim(order, "broken").key("k").send().await;
        let claim = queued(&world, order, &answer);
        let state = world.client.get(answer.header("location").unwrap()).send().await.ok();
        assert_eq!(state.as_array().unwrap().len(), 1, "{state}");
        let state = &state[0];
        assert_eq!((&state["claimUid"], &state["status"]), (&json!(claim), &json!("QUEUED")));
        assert_eq!(state["reason"], "broken");
        for unknown in ["decision", "warrantyDate", "decidedAt"] {
            assert!(state[unknown].is_null() && state.get(unknown).is_some(), "{state}");
        }
        // Until it is decided, repeating it is the same claim and the same answer.
        for _ in 0..5 {
            let again = world.claim(order, "broken").key("k").send().await;
            assert_eq!(queued(&world, order, &again), claim);
        }
        // Each hop on the way is healthy.
        let breakers = world.breakers(&world.client).await;
        assert!(breakers.contains(&("order".to_owned(), "closed".to_owned())), "{breakers:?}");

        party.proxy.up();
        let decided = settled(&world, order).await;
        // Not REFUSED, as a second claim would be.
        assert_eq!(
            (&decided["status"], &decided["decision"]),
            (&json!("DECIDED"), &json!("RETURN"))
        );
        assert_eq!(decided["claimUid"], json!(claim));
        assert!(decided["decidedAt"].is_string() && decided.get("failure").is_none(), "{decided}");
        let found = world.claim(order, "broken").key("k").send().await.ok();
        assert_eq!(
            found,
            json!({"orderUid": order, "claimUid": claim, "decision": "RETURN",
                "warrantyDate": decided["warrantyDate"]})
        );
        let other = world.claim(order, "stolen").key("k").send().await;
        assert_envelope(&other, 422, "idempotency_key_reused");
    }
    assert_eq!(world.store.number("SELECT count(*) FROM deferred WHERE state = 'done'"), 2);
}

#[tokio::test]
async fn once_the_breaker_is_open_a_claim_asks_nobody_but_whose_order_it_is() {
    const OPEN: Duration = Duration::from_secs(3);
    let world = World::with(&[PATIENT, &[("BREAKER_OPEN_MS", "3000")]].concat()).await;
    let mut orders = Vec::new();
    for _ in 0..8 {
        orders.push(world.bought().await);
    }
    world.behind.warranty.proxy.down().await;
    for order in &orders[..3] {
        queued(&world, *order, &world.claim(*order, "broken").send().await);
    }
    let opened = Instant::now();
    // By what they are about: attempts at the first three claims may be under way still.
    let mut about = Vec::new();
    for order in &orders[3..] {
        about.extend([*order, world.behind.item_of(world.user, *order).await]);
    }
    let before = world.asked_about(&about);
    for order in &orders[3..] {
        queued(&world, *order, &world.claim(*order, "broken").send().await);
    }
    // Unless the machine was so slow that the breaker has probed meanwhile.
    if opened.elapsed() < OPEN / 2 {
        let asked = world.asked_about(&about).split_off(before.len());
        assert_eq!(asked, ["GET"; 5], "five reads of Order");
    }
    let attempts = "SELECT coalesce(sum(strikes), 0) FROM deferred";
    assert_eq!(world.store.number(attempts), 0, "an outage counts against no claim");
    world.behind.warranty.proxy.up();
    for order in &orders {
        assert_eq!(settled(&world, *order).await["decision"], "RETURN");
    }
}

#[tokio::test]
async fn a_claim_that_is_refused_when_the_system_is_back_has_failed_for_that_reason() {
    let world = World::start().await;
    let order = world.bought().await;
    let item = world.behind.item_of(world.user, order).await;
    world.behind.warranty.proxy.down().await;
    let answer = world.claim(order, "broken").key("k").send().await;
    let claim = queued(&world, order, &answer);
    let elsewhere = Uuid::new_v4();
    let moved = format!("UPDATE warranty SET item_uid = '{elsewhere}'");
    world.behind.warranty.execute(&moved);
    world.behind.warranty.proxy.up();
    let failed = settled(&world, order).await;
    let message = format!("Warranty not found for itemUid '{item}'");
    assert_eq!((&failed["status"], &failed["failure"]), (&json!("FAILED"), &json!(message)));
    assert!(failed["decision"].is_null() && failed["reason"] == "broken", "{failed}");
    // Who repeats it is refused, as at once.
    for _ in 0..2 {
        let refused = world.claim(order, "broken").key("k").send().await;
        assert_envelope(&refused, 404, "warranty_not_found");
        assert_eq!(refused.json()["message"], message);
    }
    let call = world.client.get(format!("/manage/deferred/{claim}")).send().await.ok();
    assert_eq!((&call["state"], &call["kind"]), (&json!("parked"), &json!("claim")));
    assert_eq!(call["lastError"], format!("404 warranty_not_found: {message}"));
}

#[tokio::test]
async fn a_claim_that_has_failed_is_decided_after_all_when_an_operator_has_it_tried_again() {
    let world = World::start().await;
    let order = world.bought().await;
    world.behind.order.proxy.on("POST", answer("404 Not Found", "warranty_not_found"));
    // The first attempt is no answer yet.
    world.behind.order.proxy.once("POST", RUBBISH);
    let answer = world.claim(order, "broken").key("k").send().await;
    let claim = queued(&world, order, &answer);
    assert_eq!(settled(&world, order).await["status"], "FAILED");
    let refused = world.claim(order, "broken").key("k").send().await;
    assert_envelope(&refused, 404, "warranty_not_found");
    world.behind.order.proxy.heal();
    world.client.post(format!("/manage/deferred/{claim}/retry")).send().await.ok();
    let decided = settled(&world, order).await;
    assert_eq!((&decided["status"], &decided["decision"]), (&json!("DECIDED"), &json!("RETURN")));
    assert!(decided.get("failure").is_none(), "{decided}");
    let found = world.claim(order, "broken").key("k").send().await.ok();
    assert_eq!(found["decision"], "RETURN");
}

/// As the service itself would refuse.
fn answer(status: &str, code: &str) -> Act {
    Act::Answer {
        head: format!("{status}\r\nContent-Type: application/json").into(),
        body: format!(r#"{{"message": "x", "code": "{code}", "requestId": "x"}}"#).into(),
    }
}

#[tokio::test]
async fn what_is_no_answer_of_the_service_is_no_answer_to_the_claim() {
    let world = World::start().await;
    for act in [
        NOT_FOUND,
        answer("404 Not Found", "not_found"),
        answer("401 Unauthorized", "unauthorized"),
        answer("429 Too Many Requests", "too_many_requests"),
        answer("409 Conflict", "idempotency_in_progress"),
        answer("503 Service Unavailable", "shutting_down"),
        DEFECT,
        RUBBISH,
    ] {
        let order = world.bought().await;
        world.behind.order.proxy.once("POST", act.clone());
        queued(&world, order, &world.claim(order, "broken").send().await);
        assert_eq!(settled(&world, order).await["decision"], "RETURN", "{act:?}");
    }
}

#[tokio::test]
async fn a_claim_that_was_queued_goes_by_its_request_and_is_seen_in_reads() {
    let world = World::start().await;
    let order = world.bought().await;
    world.get(order).send().await.ok();
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    world.behind.order.proxy.once("POST", RUBBISH);
    world.behind.order.proxy.forget();
    let call = world.claim(order, "broken").header("X-Request-Id", "mine-1!");
    queued(&world, order, &call.header("traceparent", trace).key("private").send().await);
    settled(&world, order).await;
    let heads: Vec<_> = world.behind.order.proxy.seen().into_iter().map(|seen| seen.head).collect();
    let posts: Vec<_> = heads.iter().filter(|head| head.starts_with("post")).collect();
    assert_eq!(posts.len(), 2, "{heads:?}");
    for head in posts {
        assert!(head.contains("\r\nx-request-id: mine-1!\r\n"), "{head}");
        assert!(head.contains(&format!("\r\ntraceparent: {trace}\r\n")), "{head}");
        assert!(head.contains("\r\nx-request-timeout: "), "{head}");
        assert!(!head.contains("private"), "{head}");
    }
    world.behind.warranty.proxy.down().await;
    let seen = world.get(order).send().await.ok();
    assert_eq!(
        (&seen["warrantyStatus"], &seen["stale"]),
        (&json!("USE_WARRANTY"), &json!(["warranty"]))
    );
}

#[tokio::test]
async fn a_claim_that_was_given_up_says_so_and_an_operator_sees_why() {
    let world = World::start().await;
    let order = world.bought().await;
    world.behind.warranty.proxy.down().await;
    let answer = world.claim(order, "broken").key("k").send().await;
    let claim = queued(&world, order, &answer);
    world.client.post(format!("/manage/deferred/{claim}/discard")).send().await.ok();
    let failed = kept(&world, order).await;
    assert_eq!(failed["status"], "FAILED");
    assert!(failed["failure"].as_str().unwrap().contains("given up"), "{failed}");
    let refused = world.claim(order, "broken").key("k").send().await;
    assert_envelope(&refused, 503, "outcome_unknown");
    world.behind.warranty.proxy.up();
    world.client.post(format!("/manage/deferred/{claim}/retry")).send().await.ok();
    assert_eq!(settled(&world, order).await["decision"], "RETURN");
    world.claim(order, "broken").key("k").send().await.ok();
}

#[tokio::test]
async fn without_order_nobody_knows_whose_order_it_is() {
    let world = World::start().await;
    let order = world.bought().await;
    world.behind.order.proxy.down().await;
    for call in [world.claim(order, "broken"), world.claims(order)] {
        assert_blames(&call.send().await, "dependency_unavailable", "order");
    }
    let promised = "(SELECT count(*) FROM claims) + (SELECT count(*) FROM deferred)";
    assert_eq!(world.store.number(promised), 0);
    world.behind.order.proxy.up();
    let decided = until(SOON, "decided", async || {
        let answer = world.claim(order, "broken").send().await;
        (answer.status == 200).then(|| answer.ok())
    })
    .await;
    assert_eq!(decided["decision"], "RETURN");
    // What is kept here is shown without Order.
    world.behind.order.proxy.down().await;
    assert_eq!(kept(&world, order).await["claimUid"], decided["claimUid"]);
}

#[tokio::test]
async fn a_claim_whose_answer_is_lost_is_decided_once() {
    let world = World::start().await;
    for act in [Act::LoseAnswer, Act::Reset, DEFECT, RUBBISH] {
        let order = world.bought().await;
        world.behind.order.proxy.once("POST", act);
        let lost = world.claim(order, "broken").key("k").send().await;
        let claim = queued(&world, order, &lost);
        // Not REFUSED, as a second claim would be.
        assert_eq!(settled(&world, order).await["decision"], "RETURN");
        let found = world.claim(order, "broken").key("k").send().await.ok();
        assert_eq!(found["claimUid"], json!(claim));
        assert_eq!(world.claim(order, "broken").key("k").send().await.ok(), found);
    }
}

#[tokio::test]
async fn a_claim_that_hangs_is_answered_in_time_and_decided_once() {
    let world = World::with(SHORT).await;
    let order = world.bought().await;
    // Decided, and lost on the last hop.
    world.behind.warranty.proxy.once("POST", Act::LoseAnswer);
    queued(&world, order, &world.claim(order, "broken").key("k").send().await);
    assert_eq!(settled(&world, order).await["decision"], "RETURN");
    let other = world.bought().await;
    world.behind.order.proxy.once("POST", Act::Hang);
    queued(&world, other, &world.claim(other, "broken").key("k").send().await);
    assert_eq!(settled(&world, other).await["decision"], "RETURN");
}

#[tokio::test]
async fn a_shutdown_gives_a_claim_that_hangs_back_before_its_time_is_over() {
    let limit = Duration::from_secs(2);
    let times = [("SHUTDOWN_DELAY_MS", "1"), ("SHUTDOWN_TIMEOUT_MS", "2000")];
    let world = World::with(&[SHORT, &times].concat()).await;
    let order = world.bought().await;
    world.behind.order.proxy.on("POST", Act::Hang);
    queued(&world, order, &world.claim(order, "broken").send().await);
    let hanging = "SELECT count(*) FROM deferred WHERE state = 'running' AND NOT held
                   AND started_at > clock_timestamp() - interval '300 milliseconds'";
    let found = async || (world.store.number(hanging) == 1).then_some(());
    until(SOON, "it hangs", found).await;
    let began = Instant::now();
    world.store.server.begin_stop();
    let back = "SELECT count(*) FROM deferred WHERE state = 'pending'";
    until(SOON, "it is given back", async || (world.store.number(back) == 1).then_some(())).await;
    assert!(began.elapsed() < limit, "{:?}", began.elapsed());
    world.store.server.stop().await;
}

#[tokio::test]
async fn an_order_without_a_warranty_is_refused_at_once() {
    let world = World::start().await;
    let order = world.bought().await;
    let item = world.behind.item_of(world.user, order).await;
    world.behind.warranty.execute("DELETE FROM warranty");
    let refused = world.claim(order, "broken").send().await;
    assert_envelope(&refused, 404, "warranty_not_found");
    assert_eq!(refused.json()["message"], format!("Warranty not found for itemUid '{item}'"));
    assert_eq!(world.claims(order).send().await.ok(), json!([]));
    assert_eq!(world.store.number("SELECT count(*) FROM deferred"), 0, "it was told: that is all");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_ten_claims_at_once_one_is_honoured() {
    let world = World::start().await;
    let order = world.bought().await;
    let calls: JoinSet<_> = (0..10).map(|_| world.claim(order, "broken").send()).collect();
    let answers = calls.join_all().await;
    // On a crowded machine some of them wait.
    assert!(answers.iter().all(|answer| matches!(answer.status, 200 | 202)), "{answers:?}");
    let decisions: Vec<_> = until(SOON, "all are decided", async || {
        let claims = world.claims(order).send().await.ok();
        let claims = claims.as_array().unwrap().iter();
        let decisions: Vec<_> = claims.map(|claim| claim["decision"].clone()).collect();
        decisions.iter().all(Value::is_string).then_some(decisions)
    })
    .await;
    let count = |decision: &str| decisions.iter().filter(|found| **found == decision).count();
    assert_eq!((count("RETURN"), count("REFUSED")), (1, 9), "{decisions:?}");
    assert_eq!(world.claims(order).send().await.ok().as_array().unwrap().len(), 10);
}
