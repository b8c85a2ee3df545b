//! Starting a warranty, looking at it, and closing it.

use serde_json::json;
use service::testing::assert_envelope;
use uuid::Uuid;

use crate::world::{WARRANTIES, World, path};

#[tokio::test]
async fn a_warranty_begins_now() {
    let world = World::start().await;
    let item = world.begun().await;
    let warranty = world.of(item).await;
    assert_eq!(warranty.as_object().unwrap().len(), 4);
    assert_eq!(warranty["itemUid"], json!(item));
    assert_eq!(warranty["status"], "ON_WARRANTY");
    assert_eq!(warranty["comment"], json!(null));
    let date = warranty["warrantyDate"].as_str().unwrap();
    let age = format!("SELECT abs(extract(epoch FROM now() - '{date}'::timestamptz))");
    assert!(world.number(&age) < 60, "{date}");
}

#[tokio::test]
async fn starting_again_changes_nothing_in_whatever_state_it_is() {
    let world = World::start().await;
    let closed = world.begun().await;
    world.close(closed).send().await.no_content();
    for item in [world.begun().await, world.used().await, closed] {
        world.age(item, "3 days");
        let before = world.of(item).await;
        for body in [None, Some(json!({})), Some(json!({"unknown": 1}))] {
            let call = world.begin(item);
            let call = if let Some(body) = &body { call.json(body) } else { call };
            call.send().await.no_content();
            assert_eq!(world.of(item).await, before);
        }
    }
}

#[tokio::test]
async fn a_start_takes_no_body_and_any_that_restores_nothing() {
    let world = World::start().await;
    for call in [
        world.begin(Uuid::new_v4()),
        world.begin(Uuid::new_v4()).json(&json!({})),
        world.begin(Uuid::new_v4()).json(&json!({"unknown": "x"})),
        world.begin(Uuid::new_v4()).body(Some("text/plain"), ""),
        world.begin(Uuid::new_v4()).body(Some("application/json"), "").chunked(),
    ] {
        call.send().await.no_content();
    }
    assert_eq!(world.number("SELECT count(*) FROM warranty WHERE status = 'ON_WARRANTY'"), 5);
}

#[tokio::test]
async fn closing_keeps_date_and_comment_and_is_repeatable() {
    let world = World::start().await;
    for item in [world.begun().await, world.used().await] {
        let mut expected = world.of(item).await;
        expected["status"] = json!("REMOVED_FROM_WARRANTY");
        for _ in 0..3 {
            world.close(item).send().await.no_content();
            assert_eq!(world.of(item).await, expected);
        }
        world.close(item).key("another").send().await.no_content();
        assert_eq!(world.of(item).await, expected);
    }
}

#[tokio::test]
async fn what_never_began_is_404() {
    let world = World::start().await;
    let item = Uuid::new_v4();
    for call in [
        world.client.get(path(item)),
        world.close(item),
        world.close(item).key("k"),
        world.claim(item, "broken", 1),
    ] {
        assert_envelope(&call.send().await, 404, "warranty_not_found");
    }
}

#[tokio::test]
async fn a_list_has_the_known_ones_once_each_in_the_order_asked_for() {
    let world = World::start().await;
    let (a, b, c) = (world.begun().await, world.used().await, world.begun().await);
    let unknown = Uuid::new_v4();
    let query = format!("{WARRANTIES}?itemUid={c},{unknown},{b}&itemUid={c}&x=y&itemUid={a}");
    let list = world.client.get(query).send().await.ok();
    assert_eq!(list, json!([world.of(c).await, world.of(b).await, world.of(a).await]));
    let none = world.client.get(format!("{WARRANTIES}?itemUid={unknown}")).send().await.ok();
    assert_eq!(none, json!([]));
}

#[tokio::test]
async fn ids_are_accepted_in_either_case_and_answered_in_lower_case() {
    let world = World::start().await;
    let item = Uuid::new_v4();
    let upper = format!("{WARRANTIES}/{}", item.to_string().to_uppercase());
    world.client.post(&upper).send().await.no_content();
    let shown = world.client.get(&upper).send().await.ok();
    assert_eq!(shown["itemUid"], json!(item));
    assert_eq!(world.of(item).await, shown);
    let query = format!("{WARRANTIES}?itemUid={},{item}", item.to_string().to_uppercase());
    assert_eq!(world.client.get(query).send().await.ok(), json!([shown]));
    world.client.delete(&upper).key("k").send().await.no_content();
    world.close(item).key("k").send().await.no_content();
    assert_eq!(world.number("SELECT count(*) FROM idempotency"), 1);
}

#[tokio::test]
async fn a_trailing_slash_makes_no_difference() {
    let world = World::start().await;
    let item = Uuid::new_v4();
    world.client.post(format!("{}/", path(item))).send().await.no_content();
    world.client.get(format!("{}/", path(item))).send().await.ok();
    world.client.get(format!("{WARRANTIES}/?itemUid={item}")).send().await.ok();
    let claim = json!({"reason": "x", "availableCount": 0});
    world.client.post(format!("{}/warranty/", path(item))).json(&claim).send().await.ok();
    world.client.delete(format!("{}/", path(item))).send().await.no_content();
}
