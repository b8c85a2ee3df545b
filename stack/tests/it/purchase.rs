//! Nothing is broken.

use futures_util::future::join_all;
use serde_json::json;
use service::testing::{assert_envelope, until};

use crate::world::shop::{ALEX, MODEL, Promise as _, SIZE, element, path};
use crate::world::{Part, RECOVERY, World};

#[tokio::test]
async fn purchase_list_claim_and_refund_leave_stock_as_it_was() {
    purchase_list_claim_and_refund(&World::start().await).await;
}

pub(crate) async fn purchase_list_claim_and_refund(world: &World) {
    let before = world.left(MODEL);
    let answer = world.buy().send().await;
    assert!(answer.header("location").unwrap().ends_with(&path(answer.clone().bought())));
    let order = answer.bought();
    assert_eq!(world.left(MODEL), before - 1);

    let list = world.list().send().await;
    assert_eq!(list.header("x-total-count"), Some("1"));
    let listed = element(&list.ok(), order);
    let date = listed["date"].as_str().unwrap();
    let warranty_date = listed["warrantyDate"].as_str().unwrap();
    assert_eq!(
        listed,
        json!({"orderUid": order, "date": date, "status": "PAID", "model": MODEL, "size": SIZE,
               "warrantyDate": warranty_date, "warrantyStatus": "ON_WARRANTY"})
    );
    assert_eq!(world.get(order).send().await.ok(), listed);

    let claim = world.claim(order).send().await.ok();
    assert_eq!(claim["orderUid"], order.to_string());
    assert_eq!(claim["decision"], "RETURN");
    assert_eq!(claim["warrantyDate"], warranty_date);
    let claims = world.claims(order).send().await.ok();
    assert_eq!(claims.as_array().unwrap().len(), 1);
    assert_eq!(claims[0]["claimUid"], claim["claimUid"]);
    assert_eq!(claims[0]["status"], "DECIDED");
    assert_eq!(world.get(order).send().await.ok()["warrantyStatus"], "USE_WARRANTY");
    world.settles_with(&[order]).await;

    world.refund(order).send().await.no_content();
    assert_eq!(world.left(MODEL), before);
    let refunded = world.get(order).send().await.ok();
    assert_eq!(refunded["status"], "CANCELED");
    assert_eq!(refunded["warrantyStatus"], "REMOVED_FROM_WARRANTY");
    assert_eq!(world.claim(order).send().await.ok()["decision"], "REFUSED");
    world.refund(order).send().await.no_content();
    world.settles_with(&[]).await;
}

#[tokio::test]
async fn repeated_refund_calls_nobody() {
    let world = World::start().await;
    let order = world.bought().await;
    world.refund(order).send().await.no_content();
    world.kill(Part::Order).await;
    world.refund(order).send().await.no_content();
}

#[tokio::test]
async fn of_40_purchases_at_once_of_10_items_10_are_paid_and_30_sold_out() {
    forty_purchases_of_ten_items(&World::start().await).await;
}

pub(crate) async fn forty_purchases_of_ten_items(world: &World) {
    let rare = world.shelve(10);
    // A slow machine makes an overload of it: whoever is told so asks again.
    let purchases = (0..40).map(|_| {
        until(RECOVERY, "a purchase is let in", async || {
            let answer = world.buy_as(ALEX, &rare).send().await;
            (answer.json()["code"] != "overloaded").then_some(answer)
        })
    });
    let (mut bought, mut sold_out) = (Vec::new(), 0);
    for answer in join_all(purchases).await {
        if answer.status == 201 {
            bought.push(answer.bought());
        } else {
            assert_envelope(&answer, 409, "sold_out");
            sold_out += 1;
        }
    }
    assert_eq!((bought.len(), sold_out), (10, 30));
    assert_eq!(world.left(&rare), 0);
    assert_eq!(world.number(Part::Order, "(SELECT count(*) FROM orders)"), 10);
    assert_eq!(world.number(Part::Warranty, "(SELECT count(*) FROM warranty)"), 10);
    world.settles_with(&bought).await;
}
