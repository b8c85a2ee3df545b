//! Taking items, looking at them, and giving them back.

use serde_json::json;
use service::testing::assert_envelope;
use uuid::Uuid;

use crate::world::{ITEMS, MODEL, STOCK, World, path, wish};

#[tokio::test]
async fn a_taken_item_is_shown_and_stock_goes_down_by_one() {
    let world = World::start().await;
    let (item, order) = (Uuid::new_v4(), Uuid::new_v4());
    let body = json!({"orderUid": order, "model": MODEL, "size": "M", "orderItemUid": item});
    let taken = world.take(&body).send().await.ok();
    assert_eq!(taken, body);
    assert_eq!(world.left(), STOCK - 1);

    let shown = world.get(item).send().await.ok();
    let expected = json!({
        "orderItemUid": item, "orderUid": order, "model": MODEL, "size": "M",
        "availableCount": STOCK - 1, "canceled": false,
    });
    assert_eq!(shown, expected);
}

#[tokio::test]
async fn an_item_is_looked_up_by_model_and_size() {
    let world = World::start().await;
    world.stock(MODEL, "L", 3);
    world.stock("Lego 42070", "M", 3);
    let body = json!({"orderUid": Uuid::new_v4(), "model": MODEL, "size": "L"});
    let taken = world.take(&body).send().await.ok();
    assert_eq!(taken["size"], "L");
    assert_eq!(world.number("SELECT available_count FROM items WHERE size = 'L'"), 2);
    assert_eq!(world.number("SELECT sum(available_count) FROM items WHERE size = 'M'"), STOCK + 3);
}

#[tokio::test]
async fn what_is_not_in_the_catalogue_is_404() {
    let world = World::start().await;
    for (model, size) in [("Lego 1", "M"), (MODEL, "XXL"), ("lego 8070", "M")] {
        let body = json!({"orderUid": Uuid::new_v4(), "model": model, "size": size});
        assert_envelope(&world.take(&body).send().await, 404, "item_not_found");
    }
    assert_eq!((world.left(), world.taken()), (STOCK, 0));
}

#[tokio::test]
async fn the_last_one_sold_makes_it_409() {
    let world = World::start().await;
    world.stock(MODEL, "M", 1);
    let last = world.taken_item().await;
    assert_envelope(&world.take(&wish(Uuid::new_v4())).send().await, 409, "sold_out");
    assert_eq!((world.left(), world.taken()), (0, 1));
    // Who has one already is not refused a repeat.
    world.take(&wish(last)).send().await.ok();
    assert_eq!((world.left(), world.taken()), (0, 1));
}

#[tokio::test]
async fn a_repeat_with_the_same_id_takes_one_item_only() {
    let world = World::start().await;
    let body = wish(Uuid::new_v4());
    let first = world.take(&body).send().await.ok();
    for _ in 0..3 {
        assert_eq!(world.take(&body).send().await.ok(), first);
    }
    assert_eq!((world.left(), world.taken()), (STOCK - 1, 1));
}

#[tokio::test]
async fn an_id_that_holds_something_else_is_422() {
    let world = World::start().await;
    world.stock(MODEL, "L", 1);
    world.stock("Lego 42070", "M", 1);
    let item = world.taken_item().await;
    for (field, value) in
        [("orderUid", json!(Uuid::new_v4())), ("size", json!("L")), ("model", json!("Lego 42070"))]
    {
        let mut other = wish(item);
        other[field] = value;
        let refused = world.take(&other).send().await;
        assert_envelope(&refused, 422, "idempotency_key_reused");
    }
    assert_eq!((world.left(), world.taken()), (STOCK - 1, 1));
}

#[tokio::test]
async fn without_an_id_and_without_a_key_each_call_takes_one() {
    let world = World::start().await;
    let body =
        json!({"orderUid": Uuid::new_v4(), "model": MODEL, "size": "M", "orderItemUid": null});
    let first = world.take(&body).send().await.ok();
    let second = world.take(&body).send().await.ok();
    assert_ne!(first["orderItemUid"], second["orderItemUid"]);
    assert_eq!(world.left(), STOCK - 2);
}

#[tokio::test]
async fn an_item_goes_back_once_however_often_that_is_repeated() {
    let world = World::start().await;
    let item = world.taken_item().await;
    for _ in 0..3 {
        world.give_back(item).send().await.no_content();
        assert_eq!(world.left(), STOCK);
    }
    let shown = world.get(item).send().await.ok();
    assert_eq!((&shown["canceled"], &shown["availableCount"]), (&json!(true), &json!(STOCK)));
}

#[tokio::test]
async fn an_item_that_went_back_is_not_taken_again_under_its_id() {
    let world = World::start().await;
    let item = world.taken_item().await;
    world.give_back(item).send().await.no_content();
    assert_envelope(&world.take(&wish(item)).send().await, 409, "already_undone");
    assert_eq!(world.left(), STOCK);
}

#[tokio::test]
async fn an_unknown_item_is_404() {
    let world = World::start().await;
    let item = Uuid::new_v4();
    assert_envelope(&world.get(item).send().await, 404, "item_not_found");
    assert_envelope(&world.give_back(item).send().await, 404, "item_not_found");
}

#[tokio::test]
async fn a_list_has_the_known_ones_once_each_in_the_order_asked_for() {
    let world = World::start().await;
    let mut items = Vec::new();
    for _ in 0..3 {
        items.push(world.taken_item().await);
    }
    world.give_back(items[1]).send().await.no_content();
    let (a, b, c) = (items[2], items[0], items[1]);
    let unknown = Uuid::new_v4();
    let query = format!("{ITEMS}?itemUid={a},{unknown},{b}&other=x&itemUid={a}&itemUid={c}");
    let list = world.client.get(query).send().await.ok();
    let ids: Vec<_> = list.as_array().unwrap().iter().map(|item| &item["orderItemUid"]).collect();
    assert_eq!(ids, [&json!(a), &json!(b), &json!(c)]);
    for element in list.as_array().unwrap() {
        let item: Uuid = element["orderItemUid"].as_str().unwrap().parse().unwrap();
        assert_eq!(*element, world.get(item).send().await.ok());
    }
    let none = world.client.get(format!("{ITEMS}?itemUid={unknown}")).send().await.ok();
    assert_eq!(none, json!([]));
}

#[tokio::test]
async fn ids_are_accepted_in_either_case_and_answered_in_lower_case() {
    let world = World::start().await;
    let (item, order) = (Uuid::new_v4(), Uuid::new_v4());
    let upper = |id: Uuid| id.to_string().to_uppercase();
    let body = json!({
        "orderUid": upper(order), "model": MODEL, "size": "M", "orderItemUid": upper(item),
    });
    let taken = world.take(&body).send().await.ok();
    assert_eq!((&taken["orderItemUid"], &taken["orderUid"]), (&json!(item), &json!(order)));
    let shown = world.client.get(format!("{ITEMS}/{}", upper(item))).send().await.ok();
    assert_eq!((&shown["orderItemUid"], &shown["orderUid"]), (&json!(item), &json!(order)));
    let list =
        world.client.get(format!("{ITEMS}?itemUid={},{item}", upper(item))).send().await.ok();
    assert_eq!(list, json!([shown]));
    world.client.delete(format!("{ITEMS}/{}", upper(item))).send().await.no_content();
    assert_eq!(world.left(), STOCK);
}

#[tokio::test]
async fn a_trailing_slash_makes_no_difference() {
    let world = World::start().await;
    let item = Uuid::new_v4();
    world.client.post(format!("{ITEMS}/")).json(&wish(item)).send().await.ok();
    world.client.get(format!("{}/", path(item))).send().await.ok();
    world.client.get(format!("{ITEMS}/?itemUid={item}")).send().await.ok();
    // The key belongs to the same address, with the slash and without.
    world.client.delete(format!("{}/", path(item))).key("k").send().await.no_content();
    world.give_back(item).key("k").send().await.no_content();
    assert_eq!(world.number("SELECT count(*) FROM idempotency"), 1);
}

#[tokio::test]
async fn every_model_and_size_of_the_patterns_is_accepted() {
    let world = World::start().await;
    let long = format!("\u{c4}{}", "x".repeat(254));
    for model in ["7", "\u{17b}ubr\u{f3}wka", "A .,:+/()&_-", "\u{6a02}\u{9ad8} 8070", &long] {
        let body = json!({"orderUid": Uuid::new_v4(), "model": model, "size": "A1B2C3D4"});
        // Accepted, and in no catalogue.
        assert_envelope(&world.take(&body).send().await, 404, "item_not_found");
    }
}
