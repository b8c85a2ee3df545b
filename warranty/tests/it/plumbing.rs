//! What holds for every route, on Warranty's.

use backing::postgres::testing::TestDatabase;
use serde_json::{Value, json};
use service::testing::bad_input::{Route, check, no_integer, no_text};
use service::testing::{TestServer, operator, plumbing};
use uuid::Uuid;

use crate::world::{WARRANTIES, World, configured, migrate, path};

/// As [`no_text`], and what the pattern refuses besides.
fn no_reason() -> Vec<Value> {
    no_text(1024).into_iter().chain(["tab\there", "\u{b}", "\u{9f}"].map(Value::from)).collect()
}

fn no_time() -> Vec<Value> {
    let texts = [
        "",
        "x",
        "now",
        "2020-10-29",
        "2020-10-29T01:00:52",
        "2020-10-29 01:00",
        "1603933252",
        "2020-02-30T00:00:00Z",
        "2020-10-29T25:00:00Z",
        "2020-10-29T01:00:52+2",
        "infinity",
        "-infinity",
        "epoch",
        "10000-01-01T00:00:00Z",
        "+10000-01-01T00:00:00Z",
        "-0001-01-01T00:00:00Z",
        "0000-12-31T00:00:00Z",
        "9999-12-31T23:59:59-01:00",
        "2020\0",
    ];
    let others = [json!(1_603_933_252), json!(true), json!([]), json!({})];
    texts.map(Value::from).into_iter().chain(others).collect()
}

fn routes() -> Vec<Route> {
    let statuses = ["", "on_warranty", "ON_WARRANTY ", "OPEN", "\0"].map(Value::from);
    let statuses = statuses.into_iter().chain([json!(1), json!(false), json!([]), json!({})]);
    let names = ["", "a b", "\u{e4}", "a\n", "a\0", &"x".repeat(256)].map(Value::from);
    let names = names.into_iter().chain([json!(1), json!(false), json!([]), json!({})]);
    let ids = (0..101).map(|_| Uuid::new_v4().to_string()).collect::<Vec<_>>().join(",");
    let one = Uuid::new_v4();
    vec![
        Route::new("GET", "/api/v1/warranty?itemUid={}")
            .bad_query("")
            .bad_query("itemUid=")
            .bad_query("itemuid=x")
            .bad_query(format!("itemUid={one},"))
            .bad_query(format!("itemUid={one}&itemUid=x"))
            .bad_query(format!("itemUid={ids}")),
        Route::new("GET", "/api/v1/warranty/{}"),
        Route::new("POST", "/api/v1/warranty/{}")
            .accepts(json!({
                "status": "ON_WARRANTY", "warrantyDate": "2020-10-29T01:00:52.658050+00:00",
                "comment": "broken", "closedBy": "refund",
            }))
            .required("status", statuses.collect())
            .required("warrantyDate", no_time())
            .optional("comment", no_reason())
            .optional("closedBy", names.collect()),
        Route::new("DELETE", "/api/v1/warranty/{}").bad_header("X-Compensate", "maybe"),
        Route::new("POST", "/api/v1/warranty/{}/warranty")
            .requires(json!({"reason": "broken", "availableCount": 1}))
            .required("reason", no_reason())
            .required("availableCount", no_integer(0, i64::from(i32::MAX))),
    ]
}

#[tokio::test]
async fn bad_input_gets_its_4xx_with_the_envelope_and_writes_nothing() {
    let world = World::start().await;
    check(world.server.url(), &routes()).await;
    // Nor where there is something to write to.
    let item = world.used().await;
    let before = world.of(item).await;
    let mut routes = routes();
    for route in &mut routes[1..] {
        *route = route.clone().ids([item]);
    }
    check(world.server.url(), &routes).await;
    assert_eq!(world.of(item).await, before);
    for table in ["idempotency", "tombstones", "closes"] {
        assert_eq!(world.number(&format!("SELECT count(*) FROM {table}")), 0, "{table}");
    }
    assert_eq!(world.number("SELECT count(*) FROM warranty"), 1);
}

#[tokio::test]
async fn everything_wrong_is_named_at_once() {
    let world = World::start().await;
    let named = |body: Value| {
        let details = body["details"].as_array().cloned().unwrap_or_default();
        details.iter().map(|detail| detail["field"].clone()).collect::<Vec<_>>()
    };
    let id = Uuid::new_v4().simple();
    let refused = world.client.get(format!("{WARRANTIES}/{id}")).send().await;
    assert_eq!(named(refused.json()), ["itemUid"]);
    let call =
        world.begin(Uuid::new_v4()).json(&json!({"status": "x", "comment": "", "closedBy": 1}));
    let refused = call.send().await;
    assert_eq!(named(refused.json()), ["status", "warrantyDate", "comment", "closedBy"]);
    let refused = world.claim(Uuid::new_v4(), "", -1).send().await;
    assert_eq!(named(refused.json()), ["reason", "availableCount"]);
}

#[tokio::test]
async fn input_at_its_bounds_is_accepted() {
    let world = World::start().await;
    let item = world.begun().await;
    for reason in ["x", "\r\n", "\u{1f9f1}", "\u{a0}", &"\u{6a02}".repeat(1024)] {
        world.claim(item, reason, 0).send().await.ok();
    }
    let name = "!~".repeat(127) + "x";
    let before = world.of(item).await;
    world.close(item).key(&name).send().await.no_content();
    world.restore(&before, Some(&name)).send().await.no_content();
    assert_eq!(world.of(item).await, before);
    let call = world.client.get(path(item)).body(Some("application/json"), "[nonsense");
    call.send().await.ok();
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let world = World::start().await;
    let targets = [
        (WARRANTIES.to_owned(), "GET,HEAD"),
        (path(Uuid::new_v4()), "DELETE,GET,HEAD,POST"),
        (format!("{}/warranty", path(Uuid::new_v4())), "POST"),
    ];
    plumbing::methods_are_told(&world.client, &targets).await;
}

#[tokio::test]
async fn a_usable_request_id_and_trace_are_echoed_and_any_other_is_replaced() {
    let world = World::start().await;
    let unknown = path(Uuid::new_v4());
    plumbing::ids_are_echoed(&world.client, &unknown, "warranty_not_found").await;
}

#[tokio::test]
async fn health_has_the_shape_of_the_contract_whatever_the_authorization() {
    let world = World::start().await;
    plumbing::health_works(&world.client, "warranty", &[], false).await;
}

#[tokio::test]
async fn breakers_are_shown_and_operated_from_this_machine() {
    let world = World::start().await;
    operator::breakers_are_operated(&world.client, "warranty", &[]).await;
}

#[tokio::test]
async fn a_list_of_100_is_one_statement() {
    const LISTS: usize = 10;
    let database = TestDatabase::new("warranty", migrate);
    // The metrics of a process are one: a name of its own keeps other tests' statements out.
    let mut config = configured(database.url(), &[]);
    config.base.name = "counted";
    let server = TestServer::start(|listener, end| warranty::run(config, listener, end)).await;
    let world = World { client: server.client(), server, database };
    let mut ids = Vec::new();
    for _ in 0..100 {
        ids.push(world.begun().await.to_string());
    }
    let query = format!("{WARRANTIES}?itemUid={}", ids.join(","));
    let statements =
        async || world.client.metric("db_statements_total", &[("service", "counted")]).await;
    let before = statements().await;
    for _ in 0..LISTS {
        let list = world.client.get(&query).send().await.ok();
        assert_eq!(list.as_array().unwrap().len(), 100);
    }
    let spent = statements().await - before;
    // One of the background's may fall among them.
    assert!((10.0..=11.0).contains(&spent), "{spent} statements for {LISTS} lists");
}

#[tokio::test]
async fn the_openapi_document_is_3_1_and_has_every_route() {
    let world = World::start().await;
    let paths: [(&str, &[&str]); 4] = [
        ("/manage/explain/{itemUid}", &["get"]),
        ("/api/v1/warranty", &["get"]),
        ("/api/v1/warranty/{itemUid}", &["get", "post", "delete"]),
        ("/api/v1/warranty/{itemUid}/warranty", &["post"]),
    ];
    plumbing::openapi_has(&world.client, &paths).await;
}

#[tokio::test]
async fn swagger_ui_is_at_docs() {
    let world = World::start().await;
    plumbing::docs_are_shown(&world.client).await;
}
