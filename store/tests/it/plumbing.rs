//! What holds for every route, on Store's.

use serde_json::{Value, json};
use service::testing::bad_input::{Route, check, no_text};
use service::testing::network::Seen;
use service::testing::{assert_envelope, operator, plumbing};
use uuid::Uuid;

use crate::world::{MODEL, PATIENT, STOCK, STORE, World, bought, wish};

/// As [`no_text`], and what the pattern refuses besides.
fn with(longest: usize, more: &[&str]) -> Vec<Value> {
    no_text(longest).into_iter().chain(more.iter().map(|text| json!(text))).collect()
}

fn routes(user: Uuid, order: Uuid) -> Vec<Route> {
    let models = [" x", "-x", "a\nb", "a\tb", "a;b", "a\"b", "a<b", "\u{1f9f1}", "a\u{301}"];
    let sizes = ["m", "M ", " M", "\u{c4}", "M-1", "M\n", "\u{ff2d}", "\u{663}"];
    let list = [
        "limit=0",
        "limit=101",
        "limit=-1",
        "limit=",
        "limit=x",
        "limit=1.5",
        "limit=1e1",
        "limit=99999999999999999999",
        "offset=-1",
        "offset=x",
        "offset=",
        "offset=1.0",
        "offset=99999999999999999999",
        "limit=%00",
        "limit=%ff",
    ];
    let list = list
        .iter()
        .fold(Route::new("GET", "/api/v1/store/{}/orders").ids([user]), |route, query| {
            route.bad_query(*query)
        });
    vec![
        list,
        Route::new("GET", "/api/v1/store/{}/{}").ids([user, order]),
        Route::new("POST", "/api/v1/store/{}/purchase")
            .ids([user])
            .requires(wish())
            .required("model", with(255, &models))
            .required("size", with(8, &sizes)),
        Route::new("DELETE", "/api/v1/store/{}/{}/refund").ids([user, order]),
        Route::new("POST", "/api/v1/store/{}/{}/warranty")
            .ids([user, order])
            .requires(json!({"reason": "broken"}))
            .required("reason", with(1024, &["tab\there", "vt\u{b}", "\u{9f}"])),
        Route::new("GET", "/api/v1/store/{}/{}/warranty").ids([user, order]),
    ]
}

#[tokio::test]
async fn bad_input_gets_its_4xx_with_the_envelope_and_writes_nothing_and_asks_nobody() {
    let world = World::start().await;
    let order = world.bought().await;
    let (shown, asked) = (world.get(order).send().await.ok(), world.asked());
    // With ids for which each of these would be carried out, were it right.
    check(world.store.server.url(), &routes(world.user, order)).await;
    assert_eq!(world.asked(), asked);
    assert_eq!(world.get(order).send().await.ok(), shown);
    assert_eq!((world.behind.effects(), world.behind.left()), ((1, 1, 1), STOCK - 1));
    let kept = "(SELECT count(*) FROM idempotency) + (SELECT count(*) FROM tombstones)
        + (SELECT count(*) FROM claims) + (SELECT count(*) FROM refunds)
        + (SELECT count(*) FROM deferred)";
    assert_eq!(world.store.number(kept), 0);
}

#[tokio::test]
async fn input_at_its_bounds_is_accepted() {
    let world = World::start().await;
    let model = format!("\u{416}9 .,:+/()'&_-{}", "x".repeat(241));
    world.behind.warehouse.execute(&format!(
        "INSERT INTO items (model, size, available_count) VALUES ('{}', 'ABCDEFG9', 1)",
        model.replace('\'', "''")
    ));
    // 64 KiB to the byte, with parameters, unknown fields, and no length given.
    let mut body = json!({"model": model, "size": "ABCDEFG9", "unknown": ""});
    body["unknown"] = json!("x".repeat(64 * 1024 - body.to_string().len()));
    let call = world.client.post(format!("{STORE}/{}/purchase", world.user));
    let call = call.body(Some("application/json; charset=utf-8"), body.to_string());
    let order = bought(&call.chunked().key(&"~".repeat(255)).send().await);
    assert_eq!(world.get(order).send().await.ok()["model"], json!(model));
    let reason = "\u{1f9f1}".repeat(1022) + "\r\n";
    world.claim(order, &reason).send().await.ok();
    assert_eq!(world.claims(order).send().await.ok()[0]["reason"], json!(reason));
    // A JSON body where none is needed is ignored; an empty body is none, whatever its type.
    world.get(order).json(&json!([1])).send().await.ok();
    world.list().body(Some("text/plain"), "").send().await.ok();
    world.refund(order).body(Some("application/json"), "{nonsense").send().await.no_content();
}

#[tokio::test]
async fn breakers_are_shown_and_operated_from_this_machine() {
    let world = World::start().await;
    let breakers = &[
        "deferred/claim",
        "deferred/undo-purchase",
        "order/read",
        "order/write",
        "warehouse",
        "warranty",
    ];
    operator::breakers_are_operated(&world.client, "store", breakers).await;
}

#[tokio::test]
async fn it_answers_as_every_service_does() {
    let world = World::start().await;
    let client = &world.client;
    let health = client.get("/manage/health").send().await.ok();
    assert_eq!(health["components"]["broker"], json!({"status": "Absent"}));
    let dependencies = ["order", "warehouse", "warranty"];
    plumbing::health_works(client, "store", &dependencies, true).await;
    let (user, id) = (world.user, Uuid::new_v4());
    let unknown = format!("{STORE}/{user}/{id}");
    plumbing::ids_are_echoed(client, &unknown, "order_not_found").await;
    plumbing::methods_are_told(
        client,
        &[
            (format!("{STORE}/{user}/orders"), "GET,HEAD"),
            (format!("{STORE}/{user}/{id}"), "GET,HEAD"),
            (format!("{STORE}/{user}/purchase"), "POST"),
            (format!("{STORE}/{user}/{id}/refund"), "DELETE"),
            (format!("{STORE}/{user}/{id}/warranty"), "GET,HEAD,POST"),
            ("/manage/health".to_owned(), "GET,HEAD"),
        ],
    )
    .await;
    plumbing::docs_are_shown(client).await;
    plumbing::openapi_has(
        client,
        &[
            ("/manage/explain/{orderUid}", &["get"]),
            ("/api/v1/store/{userUid}/orders", &["get"]),
            ("/api/v1/store/{userUid}/{orderUid}", &["get"]),
            ("/api/v1/store/{userUid}/purchase", &["post"]),
            ("/api/v1/store/{userUid}/{orderUid}/refund", &["delete"]),
            ("/api/v1/store/{userUid}/{orderUid}/warranty", &["get", "post"]),
            ("/manage/deferred", &["get"]),
            ("/manage/deferred/{id}", &["get"]),
            ("/manage/deferred/{id}/retry", &["post"]),
            ("/manage/deferred/{id}/discard", &["post"]),
        ],
    )
    .await;
}

#[tokio::test]
async fn the_request_id_goes_all_the_way_and_the_users_key_does_not() {
    let world = World::start().await;
    let answer = world.purchase().header("X-Request-Id", "mine-1!").key("private").send().await;
    let order = bought(&answer);
    assert_eq!(answer.header("x-request-id"), Some("mine-1!"));
    world.refund(order).header("X-Request-Id", "mine-1!").key("private").send().await.no_content();
    let behind = &world.behind;
    for party in [&behind.order, &behind.warehouse, &behind.warranty] {
        assert!(party.proxy.count("*") > 0);
        for Seen { head, .. } in party.proxy.seen() {
            assert!(head.contains("\r\nx-request-id: mine-1!\r\n"), "{head}");
            assert!(head.contains("\r\nx-request-timeout: "), "{head}");
            assert!(!head.contains("private"), "{head}");
        }
    }
}

#[tokio::test]
async fn a_list_of_100_costs_one_call_to_each_system_and_two_statements_in_each_at_most() {
    const LISTS: u32 = 5;
    // The metrics of a process are one: names of their own keep other tests' statements out.
    let (store, order) = ("counted-store", "counted-order");
    let world = World::named(store, order, PATIENT).await;
    let user = world.user;
    world.behind.order.execute(&format!(
        "INSERT INTO orders (item_uid, order_uid, status, user_uid)
         SELECT gen_random_uuid(), gen_random_uuid(), 'PAID', '{user}' FROM generate_series(1, 101)"
    ));
    let statements = async |name: &str| -> f64 {
        world.client.metric("db_statements_total", &[("service", name)]).await
    };
    // The metrics are brought up to date by the one who is asked.
    let count = async || {
        world.behind.client.get("/metrics").send().await;
        (statements(store).await, statements(order).await)
    };
    let before = count().await;
    for _ in 0..LISTS {
        let target = format!("{STORE}/{user}/orders?limit=100");
        let page = world.client.get(target).send().await;
        assert_eq!(page.header("x-total-count"), Some("101"));
        assert_eq!(page.ok().as_array().map(Vec::len), Some(100));
    }
    let after = count().await;
    let limit = f64::from(2 * LISTS);
    for (name, spent) in [(store, after.0 - before.0), (order, after.1 - before.1)] {
        assert!((1.0..=limit).contains(&spent), "{name}: {spent} statements for {LISTS} lists");
    }
    let behind = &world.behind;
    for party in [&behind.order, &behind.warehouse, &behind.warranty] {
        assert_eq!(party.proxy.count("*"), LISTS as usize);
    }
}

#[tokio::test]
async fn a_limit_is_narrowed_and_never_widened_by_the_caller() {
    let world = World::start().await;
    let timeout = |party: &crate::systems::Party| -> u64 {
        let Seen { head, .. } = party.proxy.seen().pop().unwrap();
        let (_, rest) = head.split_once("\r\nx-request-timeout: ").unwrap();
        rest.lines().next().unwrap().parse().unwrap()
    };
    world.list().header("X-Request-Timeout", "5000").send().await.ok();
    assert!(timeout(&world.behind.order) <= 5000);
    world.list().header("X-Request-Timeout", "100000000").send().await.ok();
    // Order's own timeout is shorter than Store's budget.
    assert!(timeout(&world.behind.order) <= 8000);
    let order = world.bought().await;
    assert!(timeout(&world.behind.order) <= 18_000);
    let refused = world.get(order).header("X-Request-Timeout", "soon").send().await;
    assert_envelope(&refused, 400, "invalid_request");
    assert_eq!(refused.json()["details"][0]["field"], "X-Request-Timeout");
    assert_eq!(world.get(order).send().await.ok()["model"], MODEL);
}
