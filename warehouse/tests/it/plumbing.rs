//! What holds for every route, on Warehouse's.

use std::time::Duration;

use backing::postgres::testing::TestDatabase;
use serde_json::{Value, json};
use service::testing::bad_input::{Route, check, no_text, no_uuid};
use service::testing::{TestServer, assert_envelope, operator, plumbing, until};
use uuid::Uuid;

use crate::world::{ITEMS, MODEL, STOCK, World, configured, migrate, path, wish};

/// As [`no_text`], and what the pattern refuses besides.
fn with(longest: usize, more: &[&str]) -> Vec<Value> {
    no_text(longest).into_iter().chain(more.iter().map(|text| json!(text))).collect()
}

fn routes() -> Vec<Route> {
    let models = [" x", "-x", "a\nb", "a\tb", "a;b", "a\"b", "a<b", "\u{1f9f1}", "a\u{301}"];
    let sizes = ["m", "M ", " M", "\u{c4}", "M-1", "M\n", "\u{ff2d}", "\u{663}"];
    let ids = (0..101).map(|_| Uuid::new_v4().to_string()).collect::<Vec<_>>().join(",");
    let one = Uuid::new_v4();
    vec![
        Route::new("GET", "/api/v1/warehouse?itemUid={}")
            .bad_query("")
            .bad_query("itemUid")
            .bad_query("itemUid=")
            .bad_query("itemuid=x")
            .bad_query(format!("itemUid={one},"))
            .bad_query(format!("itemUid={one},,{one}"))
            .bad_query(format!("itemUid={one},%20{one}"))
            .bad_query(format!("itemUid={one}&itemUid=x"))
            .bad_query(format!("itemUid={ids}")),
        Route::new("POST", "/api/v1/warehouse")
            .requires(json!({
                "orderUid": one, "model": MODEL, "size": "M", "orderItemUid": Uuid::new_v4(),
            }))
            .required("orderUid", no_uuid())
            .required("model", with(255, &models))
            .required("size", with(8, &sizes))
            .optional("orderItemUid", no_uuid()),
        Route::new("GET", "/api/v1/warehouse/{}"),
        Route::new("DELETE", "/api/v1/warehouse/{}").bad_header("X-Compensate", "maybe"),
        Route::new("POST", "/api/v1/warehouse/{}/warranty")
            .requires(json!({"reason": "broken"}))
            .required("reason", with(1024, &["tab\there", "vt\u{b}", "\u{9f}"])),
    ]
}

#[tokio::test]
async fn bad_input_gets_its_4xx_with_the_envelope_and_writes_nothing() {
    let world = World::start().await;
    check(world.server.url(), &routes()).await;
    assert_eq!((world.left(), world.taken()), (STOCK, 0));
    let kept = "(SELECT count(*) FROM idempotency) + (SELECT count(*) FROM tombstones)";
    assert_eq!(world.number(kept), 0);
}

#[tokio::test]
async fn input_at_its_bounds_is_accepted() {
    let world = World::start().await;
    let item = Uuid::new_v4();
    // 64 KiB to the byte, with parameters, unknown fields, and no length given.
    let mut body = wish(item);
    body["unknown"] = json!("");
    let missing = 64 * 1024 - body.to_string().len();
    body["unknown"] = json!("x".repeat(missing));
    let kind = "application/json; charset=utf-8";
    let call = world.client.post(ITEMS).body(Some(kind), body.to_string());
    call.clone().send().await.ok();
    call.chunked().send().await.ok();
    // A JSON body where none is needed is ignored; an empty body is none, whatever its type.
    world.get(item).json(&json!([1])).send().await.ok();
    world.get(item).body(Some("text/plain"), "").send().await.ok();
    world.give_back(item).body(Some("application/json"), "{nonsense").send().await.no_content();
    world.give_back(item).body(Some("text/plain"), "").send().await.no_content();
    let key = "!~".repeat(127) + "x";
    world.give_back(item).key(&key).send().await.no_content();
    let ids: Vec<_> = (0..100).map(|_| Uuid::new_v4().to_string()).collect();
    let query = format!("{ITEMS}?itemUid={}&itemUid={}", ids[..50].join(","), ids[50..].join(","));
    assert_eq!(world.client.get(query).send().await.ok(), json!([]));
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let world = World::start().await;
    let targets = [
        (ITEMS.to_owned(), "GET,HEAD,POST"),
        (path(Uuid::new_v4()), "DELETE,GET,HEAD"),
        (format!("{}/warranty", path(Uuid::new_v4())), "POST"),
        ("/manage/health".to_owned(), "GET,HEAD"),
    ];
    plumbing::methods_are_told(&world.client, &targets).await;
}

#[tokio::test]
async fn a_usable_request_id_and_trace_are_echoed_and_any_other_is_replaced() {
    let world = World::start().await;
    let unknown = path(Uuid::new_v4());
    plumbing::ids_are_echoed(&world.client, &unknown, "item_not_found").await;
}

#[tokio::test]
async fn health_has_the_shape_of_the_contract_whatever_the_authorization() {
    let world = World::start().await;
    plumbing::health_works(&world.client, "warehouse", &["warranty"], false).await;
}

#[tokio::test]
async fn breakers_are_shown_and_operated_from_this_machine() {
    let world = World::start().await;
    operator::breakers_are_operated(&world.client, "warehouse", &["warranty"]).await;
}

#[tokio::test]
async fn a_list_of_100_is_one_statement() {
    const LISTS: usize = 10;
    let database = TestDatabase::new("warehouse", migrate);
    // The metrics of a process are one: a name of its own keeps other tests' statements out.
    let mut config = configured(database.url(), &[]);
    config.base.name = "counted";
    let server = TestServer::start(|listener, end| warehouse::run(config, listener, end)).await;
    let world = World { client: server.client(), server, database };
    world.stock(MODEL, "M", 100);
    let mut ids = Vec::new();
    for _ in 0..100 {
        ids.push(world.taken_item().await.to_string());
    }
    let query = format!("{ITEMS}?itemUid={}", ids.join(","));
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
async fn metrics_count_requests_by_route_and_not_by_id() {
    let world = World::start().await;
    world.get(Uuid::new_v4()).send().await;
    let labels =
        [("service", "warehouse"), ("route", "/api/v1/warehouse/{itemUid}"), ("status", "404")];
    assert!(world.client.metric("http_requests_total", &labels).await >= 1.0);
}

#[tokio::test]
async fn the_openapi_document_is_3_1_and_has_every_route() {
    let world = World::start().await;
    let paths: [(&str, &[&str]); 4] = [
        ("/manage/explain/{itemUid}", &["get"]),
        ("/api/v1/warehouse", &["get", "post"]),
        ("/api/v1/warehouse/{itemUid}", &["get", "delete"]),
        ("/api/v1/warehouse/{itemUid}/warranty", &["post"]),
    ];
    plumbing::openapi_has(&world.client, &paths).await;
}

#[tokio::test]
async fn swagger_ui_is_at_docs() {
    let world = World::start().await;
    plumbing::docs_are_shown(&world.client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_runs_when_the_end_begins_is_finished_and_no_other_begins() {
    let world = World::start().await;
    // Someone holds the row that a take needs.
    let url = world.database.url().to_owned();
    let (held, release) = (std::sync::mpsc::channel(), std::sync::mpsc::channel::<()>());
    let holder = tokio::task::spawn_blocking(move || {
        use diesel::connection::SimpleConnection;
        use diesel::{Connection, PgConnection};
        let mut conn = PgConnection::establish(&url).unwrap();
        conn.batch_execute("BEGIN; SELECT * FROM items FOR UPDATE").unwrap();
        held.0.send(()).unwrap();
        release.1.recv().unwrap();
        conn.batch_execute("ROLLBACK").unwrap();
    });
    held.1.recv().unwrap();
    let running = tokio::spawn(world.take(&wish(Uuid::new_v4())).send());
    until(Duration::from_secs(10), "the take waits", async || {
        let waiting = world.number("SELECT count(*) FROM pg_locks WHERE NOT granted");
        (waiting > 0).then_some(())
    })
    .await;

    world.server.begin_stop();
    until(Duration::from_secs(5), "not ready", async || {
        let ready = world.client.get("/manage/health/ready").send().await;
        (ready.status == 503).then_some(())
    })
    .await;
    until(Duration::from_secs(5), "nothing new is begun", async || {
        let late = world.client.post("/api/v1/anything").send().await;
        (late.status == 503).then(|| assert_envelope(&late, 503, "shutting_down"))
    })
    .await;
    assert_eq!(world.client.get("/manage/health/live").send().await.status, 200);

    release.0.send(()).unwrap();
    running.await.unwrap().ok();
    holder.await.unwrap();
    let World { server, client, .. } = world;
    server.stop().await;
    assert!(client.get("/manage/health/live").try_send().await.is_err());
}
