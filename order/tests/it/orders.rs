//! Placing orders and reading them.

use serde_json::{Value, json};
use service::testing::assert_envelope;
use uuid::Uuid;

use crate::world::{MODEL, ORDERS, STOCK, World, uid, wish, wish_as};

#[tokio::test]
async fn a_placed_order_has_an_item_and_a_warranty() {
    let world = World::start().await;
    let user = Uuid::new_v4();
    let placed = world.place(user, &wish()).send().await.ok();
    let order = uid(&placed["orderUid"]);
    assert_eq!(placed, json!({"orderUid": order}));
    assert_eq!(world.left(), STOCK - 1);

    let shown = world.get(user, order).send().await.ok();
    let item = uid(&shown["itemUid"]);
    let date = shown["orderDate"].as_str().unwrap();
    assert!(date.contains('T') && (date.ends_with('Z') || date.contains('+')), "{date}");
    let expected = json!({"orderUid": order, "itemUid": item, "orderDate": date, "status": "PAID"});
    assert_eq!(shown, expected);
    assert_eq!(world.warranty_of(item).await["status"], "ON_WARRANTY");
    let held = world.warehouse.client.get(format!("/api/v1/warehouse/{item}")).send().await.ok();
    assert_eq!((&held["orderUid"], &held["model"]), (&json!(order), &json!(MODEL)));
}

#[tokio::test]
async fn the_caller_may_mint_the_id_and_a_repeat_places_one_order_only() {
    let world = World::start().await;
    let (user, order) = (Uuid::new_v4(), Uuid::new_v4());
    for _ in 0..3 {
        let placed = world.place(user, &wish_as(order)).send().await.ok();
        assert_eq!(placed, json!({"orderUid": order}));
        assert_eq!((world.effects(), world.left()), ((1, 1, 1), STOCK - 1));
    }
    // Refunded, it still is that order.
    world.give_back(order).send().await.no_content();
    world.place(user, &wish_as(order)).send().await.ok();
    assert_eq!((world.effects(), world.left()), ((0, 0, 0), STOCK));
}

#[tokio::test]
async fn an_id_of_null_is_none_and_each_call_without_one_places_an_order() {
    let world = World::start().await;
    let user = Uuid::new_v4();
    let body = json!({"model": MODEL, "size": "M", "orderUid": null});
    let first = world.place(user, &body).send().await.ok();
    let second = world.place(user, &body).send().await.ok();
    assert_ne!(first, second);
    assert_eq!((world.effects(), world.left()), ((2, 2, 2), STOCK - 2));
}

#[tokio::test]
async fn an_id_that_is_another_order_is_422() {
    let world = World::start().await;
    world.stock("L", 5);
    let (user, order) = (Uuid::new_v4(), Uuid::new_v4());
    world.place(user, &wish_as(order)).send().await.ok();
    let stranger = world.place(Uuid::new_v4(), &wish_as(order)).send().await;
    assert_envelope(&stranger, 422, "idempotency_key_reused");
    for (field, value) in [("size", "L"), ("model", "Lego 1")] {
        let mut other = wish_as(order);
        other[field] = json!(value);
        let refused = world.place(user, &other).send().await;
        assert_envelope(&refused, 422, "idempotency_key_reused");
    }
    assert_eq!((world.effects(), world.left()), ((1, 1, 1), STOCK - 1));
    assert_eq!(world.warehouse.number("SELECT available_count FROM items WHERE size = 'L'"), 5);
}

#[tokio::test]
async fn an_unknown_item_is_404_and_a_sold_out_one_409_and_nothing_is_left_of_either() {
    let world = World::start().await;
    let user = Uuid::new_v4();
    for (model, size) in [("Lego 1", "M"), (MODEL, "XXL"), ("lego 8070", "M")] {
        let body = json!({"model": model, "size": size});
        assert_envelope(&world.place(user, &body).send().await, 404, "item_not_found");
    }
    world.stock("M", 0);
    let order = Uuid::new_v4();
    let refused = world.place(user, &wish_as(order)).send().await;
    assert_envelope(&refused, 409, "sold_out");
    assert_envelope(&world.get(user, order).send().await, 404, "order_not_found");
    assert_eq!((world.effects(), world.left()), ((0, 0, 0), 0));
    assert_eq!(world.warranty.proxy.count("*"), 0);
    // A refusal leaves no tombstone: with some in stock the id is as good as new.
    world.stock("M", 1);
    world.place(user, &wish_as(order)).send().await.ok();
    assert_eq!((world.effects(), world.left()), ((1, 1, 1), 0));
}

#[tokio::test]
async fn an_order_is_only_shown_to_its_user() {
    let world = World::start().await;
    let (user, stranger) = (Uuid::new_v4(), Uuid::new_v4());
    let order = world.placed(user).await;
    for (user, order) in [(stranger, order), (user, Uuid::new_v4()), (order, user)] {
        assert_envelope(&world.get(user, order).send().await, 404, "order_not_found");
    }
    let nothing = world.list(stranger).send().await;
    assert_eq!(nothing.header("x-total-count"), Some("0"));
    assert_eq!(nothing.ok(), json!([]));
}

#[tokio::test]
async fn a_list_is_newest_first_in_pages_and_always_says_how_many_there_are() {
    let world = World::start().await;
    let (user, other) = (Uuid::new_v4(), Uuid::new_v4());
    let mut placed = Vec::new();
    for _ in 0..5 {
        placed.insert(0, world.placed(user).await);
        world.placed(other).await;
    }
    for (query, expected) in [
        ("", &placed[..]),
        ("?limit=2", &placed[..2]),
        ("?limit=2&offset=2", &placed[2..4]),
        ("?offset=4", &placed[4..]),
        ("?limit=100&offset=0&other=x", &placed[..]),
        // Behind the last page.
        ("?offset=5", &[]),
        ("?limit=1&offset=1000", &[]),
    ] {
        let page = world.client.get(format!("{ORDERS}/{user}{query}")).send().await;
        assert_eq!(page.header("x-total-count"), Some("5"), "{query}");
        let page = page.ok();
        let ids: Vec<_> = page.as_array().unwrap().iter().map(|o| uid(&o["orderUid"])).collect();
        assert_eq!(ids, expected, "{query}");
        for element in page.as_array().unwrap() {
            let order = uid(&element["orderUid"]);
            assert_eq!(*element, world.get(user, order).send().await.ok());
        }
    }
}

#[tokio::test]
async fn a_list_has_50_unless_more_are_asked_for() {
    let world = World::start().await;
    let user = Uuid::new_v4();
    // All in the same moment: a page must not show one of them twice.
    world.order.execute(&format!(
        "INSERT INTO orders (item_uid, order_uid, status, user_uid)
         SELECT gen_random_uuid(), gen_random_uuid(), 'PAID', '{user}' FROM generate_series(1, 120)"
    ));
    let ids = async |query: &str| -> Vec<Value> {
        let page = world.client.get(format!("{ORDERS}/{user}{query}")).send().await;
        assert_eq!(page.header("x-total-count"), Some("120"));
        page.ok().as_array().unwrap().iter().map(|order| order["orderUid"].clone()).collect()
    };
    let first = ids("").await;
    assert_eq!(first.len(), 50);
    let mut all = ids("?limit=100").await;
    assert_eq!((all.len(), &all[..50]), (100, &first[..]));
    all.extend(ids("?limit=100&offset=100").await);
    assert_eq!(all.len(), 120);
    all.sort_by_key(Value::to_string);
    all.dedup();
    assert_eq!(all.len(), 120);
}

#[tokio::test]
async fn ids_are_accepted_in_either_case_and_answered_in_lower_case() {
    let world = World::start().await;
    let (user, order) = (Uuid::new_v4(), Uuid::new_v4());
    let upper = |id: Uuid| id.to_string().to_uppercase();
    let body = json!({"model": MODEL, "size": "M", "orderUid": upper(order)});
    let placed = world.client.post(format!("{ORDERS}/{}/", upper(user))).json(&body);
    assert_eq!(placed.send().await.ok(), json!({"orderUid": order}));
    let shown = world.client.get(format!("{ORDERS}/{}/{}/", upper(user), upper(order)));
    assert_eq!(shown.send().await.ok(), world.get(user, order).send().await.ok());
    let listed = world.client.get(format!("{ORDERS}/{}/?limit=1", upper(user))).send().await.ok();
    assert_eq!(listed[0]["orderUid"], json!(order));
    let claim = world.client.post(format!("{ORDERS}/{}/warranty/", upper(order)));
    claim.json(&json!({"reason": "x"})).send().await.ok();
    world.client.delete(format!("{ORDERS}/{}/", upper(order))).send().await.no_content();
    assert_eq!(world.left(), STOCK);
}
