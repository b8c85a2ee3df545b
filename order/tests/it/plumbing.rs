//! What holds for every route, on Order's.

use serde_json::{Value, json};
use service::testing::bad_input::{Route, check, no_text, no_uuid};
use service::testing::network::Seen;
use service::testing::{operator, plumbing};
use uuid::Uuid;

use crate::world::{MODEL, ORDERS, PATIENT, STOCK, World, wish};

/// As [`no_text`], and what the pattern refuses besides.
fn with(longest: usize, more: &[&str]) -> Vec<Value> {
    no_text(longest).into_iter().chain(more.iter().map(|text| json!(text))).collect()
}

fn routes() -> Vec<Route> {
    let models = [" x", "-x", "a\nb", "a\tb", "a;b", "a\"b", "a<b", "\u{1f9f1}", "a\u{301}"];
    let sizes = ["m", "M ", " M", "\u{c4}", "M-1", "M\n", "\u{ff2d}", "\u{663}"];
    vec![
        Route::new("POST", "/api/v1/orders/{}")
            .requires(json!({"model": MODEL, "size": "M", "orderUid": Uuid::new_v4()}))
            .required("model", with(255, &models))
            .required("size", with(8, &sizes))
            .optional("orderUid", no_uuid()),
        Route::new("GET", "/api/v1/orders/{}")
            .bad_query("limit=0")
            .bad_query("limit=101")
            .bad_query("limit=-1")
            .bad_query("limit=")
            .bad_query("limit=x")
            .bad_query("limit=1.5")
            .bad_query("limit=99999999999999999999")
            .bad_query("offset=-1")
            .bad_query("offset=x")
            .bad_query("offset=")
            .bad_query("offset=99999999999999999999"),
        Route::new("DELETE", "/api/v1/orders/{}").bad_header("X-Compensate", "maybe"),
        Route::new("GET", "/api/v1/orders/{}/{}"),
        Route::new("POST", "/api/v1/orders/{}/warranty")
            .requires(json!({"reason": "broken"}))
            .required("reason", with(1024, &["tab\there", "vt\u{b}", "\u{9f}"])),
    ]
}

#[tokio::test]
async fn bad_input_gets_its_4xx_with_the_envelope_and_writes_nothing_and_asks_nobody() {
    let world = World::start().await;
    check(world.order.server.url(), &routes()).await;
    assert_eq!((world.effects(), world.left()), ((0, 0, 0), STOCK));
    let kept = "(SELECT count(*) FROM idempotency) + (SELECT count(*) FROM tombstones)";
    assert_eq!(world.order.number(kept), 0);
    assert_eq!(world.warehouse.proxy.count("*") + world.warranty.proxy.count("*"), 0);
}

#[tokio::test]
async fn input_at_its_bounds_is_accepted() {
    let world = World::start().await;
    let user = Uuid::new_v4();
    let model = format!("\u{416}9 .,:+/()'&_-{}", "x".repeat(241));
    world.warehouse.execute(&format!(
        "INSERT INTO items (model, size, available_count)
         VALUES ('{}', 'ABCDEFG9', 1)",
        model.replace('\'', "''")
    ));
    let body = json!({"model": model, "size": "ABCDEFG9", "unknown": [1]});
    let order = world.place(user, &body).key(&"~".repeat(255)).send().await.ok();
    let order = order["orderUid"].as_str().unwrap().parse().unwrap();
    let reason = "\u{1f9f1}".repeat(1022) + "\r\n";
    assert_eq!(world.claim(order, &reason).send().await.ok()["decision"], "FIXING");
    world.get(user, order).body(Some("application/json"), "[]").send().await.ok();
    world.give_back(order).body(Some("application/json"), "{nonsense").send().await.no_content();
}

#[tokio::test]
async fn breakers_are_shown_and_operated_from_this_machine() {
    let world = World::start().await;
    let breakers = &["warehouse", "warranty"];
    operator::breakers_are_operated(&world.client, "order", breakers).await;
}

#[tokio::test]
async fn it_answers_as_every_service_does() {
    let world = World::start().await;
    let client = &world.client;
    // What it can't undo or complete at once it defers.
    plumbing::health_works(client, "order", &["warehouse", "warranty"], true).await;
    let id = Uuid::new_v4();
    plumbing::ids_are_echoed(client, &format!("{ORDERS}/{id}/{id}"), "order_not_found").await;
    plumbing::methods_are_told(
        client,
        &[
            (format!("{ORDERS}/{id}"), "DELETE,GET,HEAD,POST"),
            (format!("{ORDERS}/{id}/{id}"), "GET,HEAD"),
            (format!("{ORDERS}/{id}/warranty"), "POST"),
            ("/manage/health".to_owned(), "GET,HEAD"),
        ],
    )
    .await;
    plumbing::docs_are_shown(client).await;
    plumbing::openapi_has(
        client,
        &[
            ("/manage/explain/{orderUid}", &["get"]),
            ("/api/v1/orders/{uid}", &["get", "post", "delete"]),
            ("/api/v1/orders/{userUid}/{orderUid}", &["get"]),
            ("/api/v1/orders/{uid}/warranty", &["post"]),
            ("/manage/deferred", &["get"]),
            ("/manage/deferred/{id}", &["get"]),
            ("/manage/deferred/{id}/retry", &["post"]),
            ("/manage/deferred/{id}/discard", &["post"]),
            ("/manage/sagas", &["get"]),
            ("/manage/sagas/{id}", &["get"]),
            ("/manage/sagas/{id}/retry", &["post"]),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_list_of_100_is_one_statement_and_asks_nobody() {
    const LISTS: u32 = 10;
    // The metrics of a process are one: a name of its own keeps other tests' statements out.
    let world = World::named("counted-order", PATIENT).await;
    let user = Uuid::new_v4();
    world.order.execute(&format!(
        "INSERT INTO orders (item_uid, order_uid, status, user_uid)
         SELECT gen_random_uuid(), gen_random_uuid(), 'PAID', '{user}' FROM generate_series(1, 101)"
    ));
    let statements =
        async || world.client.metric("db_statements_total", &[("service", "counted-order")]).await;
    let before = statements().await;
    for _ in 0..LISTS {
        let page = world.client.get(format!("{ORDERS}/{user}?limit=100")).send().await.ok();
        assert_eq!(page.as_array().map(Vec::len), Some(100));
    }
    let spent = statements().await - before;
    // One of the background's may fall among them.
    let lists = f64::from(LISTS);
    assert!((lists..=lists + 1.0).contains(&spent), "{spent} statements for {LISTS} lists");
    assert_eq!(world.warehouse.proxy.count("*") + world.warranty.proxy.count("*"), 0);
}

#[tokio::test]
async fn the_request_id_and_the_trace_go_on_to_the_other_systems() {
    let world = World::start().await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let call = world.place(Uuid::new_v4(), &wish()).header("X-Request-Id", "mine-1!");
    let answer = call.header("traceparent", trace).key("private").send().await;
    assert_eq!(answer.header("x-request-id"), Some("mine-1!"));
    answer.ok();
    for party in [&world.warehouse, &world.warranty] {
        for Seen { head, .. } in party.proxy.seen() {
            assert!(head.contains("\r\nx-request-id: mine-1!\r\n"), "{head}");
            assert!(
                head.contains("\r\ntraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-"),
                "{head}"
            );
            assert!(head.contains("\r\nx-request-timeout: "), "{head}");
            // The client's key is for this hop alone.
            assert!(!head.contains("idempotency-key"), "{head}");
        }
    }
}
