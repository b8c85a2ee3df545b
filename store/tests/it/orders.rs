//! Buying, looking, claiming and refunding while everything works.

use serde_json::{Value, json};
use service::testing::assert_envelope;
use uuid::Uuid;

use crate::systems::uid;
use crate::world::{MODEL, STOCK, STORE, World, bought, wish};

#[tokio::test]
async fn a_purchase_is_201_and_found_at_its_location() {
    let world = World::start().await;
    let user = world.user;
    let answer = world.purchase().send().await;
    let order = bought(&answer);
    assert_eq!(answer.json(), json!({"orderUid": order}));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let location = answer.header("location").unwrap();
    assert!(location.ends_with(&format!("/store/{user}/{order}")), "{location}");

    let item = world.behind.item_of(user, order).await;
    let placed = world.behind.get(user, order).send().await.ok();
    let warranty = world.behind.warranty_of(item).await;
    let element = json!({
        "orderUid": order,
        "date": placed["orderDate"],
        "status": "PAID",
        "model": MODEL,
        "size": "M",
        "warrantyDate": warranty["warrantyDate"],
        "warrantyStatus": "ON_WARRANTY",
    });
    assert_eq!(world.client.get(location).send().await.ok(), element);
    assert_eq!(world.list().send().await.ok(), json!([element]));
    assert_eq!((world.behind.effects(), world.behind.left()), ((1, 1, 1), STOCK - 1));
}

#[tokio::test]
async fn what_is_sold_out_is_409_and_what_is_not_in_the_catalogue_404() {
    let world = World::start().await;
    for (model, size) in [("Lego 1", "M"), (MODEL, "XXL")] {
        let wish = json!({"model": model, "size": size});
        let refused = world.purchase_by(world.user, &wish).send().await;
        assert_envelope(&refused, 404, "item_not_found");
    }
    world.behind.stock("M", 0);
    assert_envelope(&world.purchase().send().await, 409, "sold_out");
    assert_eq!(world.behind.effects(), (0, 0, 0));
    assert_eq!(world.list().send().await.ok(), json!([]));
}

#[tokio::test]
async fn an_unknown_user_is_404_on_every_route_and_nobody_is_asked() {
    let world = World::start().await;
    let (stranger, order) = (Uuid::new_v4(), world.bought().await);
    let asked = world.asked();
    let [get, refund, claim, claims] = world.all_on(stranger, order);
    let list = world.client.get(format!("{STORE}/{stranger}/orders"));
    let purchase = world.purchase_by(stranger, &wish());
    for call in [get, refund.key("k"), claim.key("k"), claims, list, purchase.key("k")] {
        assert_envelope(&call.send().await, 404, "user_not_found");
    }
    assert_eq!(world.asked(), asked);
    assert_eq!((world.behind.effects(), world.behind.left()), ((1, 1, 1), STOCK - 1));
}

#[tokio::test]
async fn an_order_of_somebody_else_is_404_on_every_route() {
    let world = World::start().await;
    let other = world.new_user("Blake");
    let order = world.bought().await;
    world.claim(order, "mine").send().await.ok();
    let shown = world.get(order).send().await.ok();
    for refunded in [false, true] {
        for call in world.all_on(other, order) {
            assert_envelope(&call.send().await, 404, "order_not_found");
        }
        let list = world.client.get(format!("{STORE}/{other}/orders")).send().await;
        assert_eq!(list.header("x-total-count"), Some("0"));
        assert_eq!(list.ok(), json!([]));
        if !refunded {
            assert_eq!(world.get(order).send().await.ok(), shown);
            world.refund(order).send().await.no_content();
        }
    }
    // No more than of one that never was.
    for call in world.all_on(world.user, Uuid::new_v4()) {
        assert_envelope(&call.send().await, 404, "order_not_found");
    }
}

#[tokio::test]
async fn a_list_is_newest_first_in_pages_and_always_says_how_many_there_are() {
    let world = World::start().await;
    let other = world.new_user("Blake");
    let mut orders = Vec::new();
    for _ in 0..4 {
        orders.insert(0, world.bought().await);
        bought(&world.purchase_by(other, &wish()).send().await);
    }
    world.refund(orders[1]).send().await.no_content();
    for (query, expected) in [
        ("", &orders[..]),
        ("?limit=2", &orders[..2]),
        ("/?limit=2&offset=2", &orders[2..]),
        ("?offset=3&limit=100", &orders[3..]),
        ("?offset=4", &[]),
        ("?limit=1&offset=1000", &[]),
    ] {
        let page = world.client.get(format!("{STORE}/{}/orders{query}", world.user)).send().await;
        assert_eq!(page.header("x-total-count"), Some("4"), "{query}");
        let page = page.ok();
        let page = page.as_array().unwrap();
        let ids: Vec<_> = page.iter().map(|element| uid(&element["orderUid"])).collect();
        assert_eq!(ids, expected, "{query}");
        for element in page {
            let one = world.get(uid(&element["orderUid"])).send().await.ok();
            assert_eq!(*element, one);
        }
    }
}

#[tokio::test]
async fn a_refunded_order_stays_readable() {
    let world = World::start().await;
    let order = world.bought().await;
    let before = world.get(order).send().await.ok();
    world.refund(order).send().await.no_content();
    let mut expected = before;
    expected["status"] = json!("CANCELED");
    expected["warrantyStatus"] = json!("REMOVED_FROM_WARRANTY");
    assert_eq!(world.get(order).send().await.ok(), expected);
    assert_eq!(world.list().send().await.ok(), json!([expected]));
    assert_eq!((world.behind.effects(), world.behind.left()), ((0, 0, 0), STOCK));
}

#[tokio::test]
async fn repeating_a_refund_is_204_and_asks_nobody() {
    let world = World::start().await;
    let order = world.bought().await;
    world.refund(order).send().await.no_content();
    let asked = world.asked();
    world.behind.order.proxy.down().await;
    for call in [world.refund(order), world.refund(order).key("k"), world.refund(order).key("l")] {
        call.send().await.no_content();
    }
    assert_eq!(world.asked(), asked);
    // Whose order it is still counts.
    let other = world.new_user("Blake");
    let refund = world.client.delete(format!("{STORE}/{other}/{order}/refund"));
    assert_eq!(refund.send().await.status, 503);
}

#[tokio::test]
async fn a_claim_is_decided_and_kept_for_good() {
    let world = World::start().await;
    let order = world.bought().await;
    assert_eq!(world.claims(order).send().await.ok(), json!([]));
    let date = world.get(order).send().await.ok()["warrantyDate"].clone();

    let first = world.claim(order, "broken").send().await.ok();
    let claim = uid(&first["claimUid"]);
    let expected = json!({
        "orderUid": order, "claimUid": claim, "warrantyDate": date, "decision": "RETURN",
    });
    assert_eq!(first, expected);
    assert_eq!(world.get(order).send().await.ok()["warrantyStatus"], "USE_WARRANTY");
    // A claim without a key is a new claim.
    let second = world.claim(order, "broken").send().await.ok();
    assert_ne!(second["claimUid"], first["claimUid"]);
    assert_eq!(second["decision"], "REFUSED");
    world.refund(order).send().await.no_content();
    let third = world.claim(order, "after the refund").send().await.ok();
    assert_eq!(third["decision"], "REFUSED");

    let kept = world.claims(order).send().await.ok();
    let mut newest_first = Vec::new();
    for (answer, reason) in [(third, "after the refund"), (second, "broken"), (first, "broken")] {
        let found = kept.as_array().unwrap().get(newest_first.len()).unwrap();
        let requested = found["requestedAt"].as_str().unwrap();
        let decided = found["decidedAt"].as_str().unwrap();
        assert!(requested <= decided, "{found}");
        newest_first.push(json!({
            "claimUid": answer["claimUid"], "status": "DECIDED", "reason": reason,
            "decision": answer["decision"], "warrantyDate": date,
            "requestedAt": requested, "decidedAt": decided,
        }));
    }
    assert_eq!(kept, Value::Array(newest_first));
}

#[tokio::test]
async fn a_claim_is_decided_by_what_is_in_stock() {
    let world = World::start().await;
    let order = world.bought().await;
    world.behind.stock("M", 0);
    assert_eq!(world.claim(order, "broken").send().await.ok()["decision"], "FIXING");
}

#[tokio::test]
async fn ids_are_accepted_in_either_case_and_a_slash_at_the_end_makes_no_difference() {
    let world = World::start().await;
    let user = world.user.to_string().to_uppercase();
    let purchase = world.client.post(format!("{STORE}/{user}/purchase/")).json(&wish());
    let answer = purchase.send().await;
    let order = bought(&answer);
    let lower = format!("/store/{}/{order}", world.user);
    assert!(answer.header("location").unwrap().ends_with(&lower), "{answer:?}");
    let target = format!("{STORE}/{user}/{}", order.to_string().to_uppercase());
    let shown = world.client.get(format!("{target}/")).send().await.ok();
    assert_eq!(shown, world.get(order).send().await.ok());
    assert_eq!(shown["orderUid"], json!(order));
    let list = world.client.get(format!("{STORE}/{user}/orders/?limit=1")).send().await.ok();
    assert_eq!(list, json!([shown]));
    let claim = world.client.post(format!("{target}/warranty/")).json(&json!({"reason": "x"}));
    assert_eq!(claim.send().await.ok()["orderUid"], json!(order));
    let claims = world.client.get(format!("{target}/warranty/")).send().await.ok();
    assert_eq!(claims, world.claims(order).send().await.ok());
    world.client.delete(format!("{target}/refund/")).send().await.no_content();
    assert_eq!(world.get(order).send().await.ok()["status"], "CANCELED");
}
