//! `/manage/sagas`: what Order has begun, and an operator's hand on it.

use serde_json::{Value, json};
use service::testing::network::{ENDING, REFUSAL};
use service::testing::{assert_envelope, until};
use uuid::Uuid;

use crate::world::{SOON, World, assert_blames, uid, wish_as};

const SAGAS: &str = "/manage/sagas";

async fn list(world: &World, query: &str) -> Value {
    world.client.get(format!("{SAGAS}{query}")).send().await.ok()
}

fn ids(list: &Value) -> Vec<Uuid> {
    list["sagas"].as_array().unwrap().iter().map(|saga| uid(&saga["id"])).collect()
}

/// A World with a placing that nobody can take back, and its saga.
async fn stuck() -> (World, Uuid) {
    let world = World::start().await;
    world.warranty.proxy.on("POST", ENDING);
    world.warehouse.proxy.on("DELETE", REFUSAL);
    let order = Uuid::new_v4();
    let call = world.place(Uuid::new_v4(), &wish_as(order)).header("X-Request-Id", "mine-1!");
    assert_blames(&call.send().await, "rollback_pending", "warehouse");
    let saga = until(SOON, "it is stuck", async || {
        let stuck = list(&world, "?state=stuck").await;
        ids(&stuck).first().copied()
    })
    .await;
    let again = world.place(Uuid::new_v4(), &wish_as(order)).send().await;
    assert_envelope(&again, 422, "idempotency_key_reused");
    (world, saga)
}

#[tokio::test]
async fn a_saga_that_cannot_be_taken_back_is_shown_and_blocks_no_other() {
    let (world, saga) = stuck().await;
    world.warranty.proxy.heal();
    let order = world.placed(Uuid::new_v4()).await;
    let all = list(&world, "").await;
    assert_eq!(ids(&all), [saga], "what has ended needs nobody");
    let of = |kind: &str| -> Value {
        let kinds = all["kinds"].as_array().unwrap();
        kinds.iter().find(|found| found["kind"] == kind).unwrap().clone()
    };
    let place = of("place");
    assert_eq!((&place["stuck"], &place["running"]), (&json!(1), &json!(0)), "{place}");
    assert!(place["oldestMs"].is_u64(), "{place}");
    assert_eq!(of("return")["stuck"], 0);
    assert_eq!(of("take-back")["compensating"], 0);
    for (query, found) in [
        ("?state=committed", 1),
        ("?state=compensated", 0),
        ("?kind=place&limit=3", 1),
        ("?kind=return", 0),
        ("?kind=nothing", 0),
        ("?unknown=1", 1),
    ] {
        assert_eq!(ids(&list(&world, query).await).len(), found, "{query}");
    }
    let committed = &list(&world, "?state=committed").await["sagas"][0];
    assert_eq!((&committed["key"], &committed["state"]), (&json!(order), &json!("committed")));
    let row = &all["sagas"][0];
    assert!(row.get("input").is_none() && row.get("context").is_none(), "{row}");
    assert!(row["reason"].as_str().unwrap().contains("never"), "{row}");

    let shown = world.client.get(format!("{SAGAS}/{saga}")).send().await.ok();
    assert_eq!((&shown["state"], &shown["forward"]), (&json!("stuck"), &json!(false)));
    assert_eq!(shown["input"]["model"], crate::world::MODEL);
    assert_eq!(shown["context"]["x-request-id"], "mine-1!");
    let steps: Vec<_> = shown["steps"].as_array().unwrap().iter().collect();
    let states: Vec<_> = steps.iter().map(|step| (&step["name"], &step["state"])).collect();
    let expected = [(json!("take"), json!("undo_deferred")), (json!("start"), json!("refused"))];
    assert_eq!(states, expected.each_ref().map(|(name, state)| (name, state)));
    assert_eq!(steps[0]["role"], "step");
    for (query, field) in [
        ("?state=lost", "state"),
        ("?limit=0", "limit"),
        ("?limit=1001", "limit"),
        ("?limit=x", "limit"),
        ("?kind=%00", "kind"),
        ("?kind=", "kind"),
    ] {
        let refused = world.client.get(format!("{SAGAS}{query}")).send().await;
        assert_envelope(&refused, 400, "invalid_request");
        assert_eq!(refused.json()["details"][0]["field"], field);
    }
}

#[tokio::test]
async fn an_operator_has_a_stuck_saga_tried_again_from_this_machine_only() {
    let (world, saga) = stuck().await;
    let retry = |id: Uuid| world.client.post(format!("{SAGAS}/{id}/retry"));
    let show = |id: Uuid| world.client.get(format!("{SAGAS}/{id}"));
    for call in [world.client.get(SAGAS), show(saga), retry(saga)] {
        let passed_on = call.clone().header("X-Forwarded-For", "10.0.0.1").send().await;
        assert_envelope(&passed_on, 403, "forbidden");
        let page = call.header("Origin", "http://evil.example").send().await;
        assert_envelope(&page, 403, "forbidden");
    }
    for call in [show(Uuid::new_v4()), retry(Uuid::new_v4())] {
        assert_envelope(&call.send().await, 404, "not_found");
    }
    let wrong = world.client.post(format!("{SAGAS}/x/retry")).send().await;
    assert_envelope(&wrong, 400, "invalid_request");
    for (method, target, allowed) in [
        ("PATCH", SAGAS.to_owned(), "GET,HEAD"),
        ("DELETE", format!("{SAGAS}/{saga}"), "GET,HEAD"),
        ("GET", format!("{SAGAS}/{saga}/retry"), "POST"),
    ] {
        let refused = world.client.call(method, &target).send().await;
        assert_envelope(&refused, 405, "method_not_allowed");
        assert_eq!(refused.header("allow"), Some(allowed));
    }

    world.warehouse.proxy.heal();
    assert_eq!(retry(saga).send().await.ok()["id"], json!(saga));
    world.is_as_before().await;
    until(SOON, "it has ended", async || {
        let shown = show(saga).send().await.ok();
        (shown["state"] == "compensated" && shown["endedAt"].is_string()).then_some(())
    })
    .await;
    assert_envelope(&retry(saga).send().await, 404, "not_found");
}
