//! Undoing a close: the warranty is exactly what it was, and a late close does nothing.

use serde_json::{Value, json};
use service::testing::assert_envelope;
use uuid::Uuid;

use crate::world::{World, path};

const CLOSED: &str = "REMOVED_FROM_WARRANTY";

#[tokio::test]
async fn a_closed_warranty_is_restored_to_the_microsecond() {
    let world = World::start().await;
    let (running, used) = (world.begun().await, world.used().await);
    world.execute("UPDATE warranty SET warranty_date = '2020-10-29 01:00:52.658051+00'");
    for item in [running, used] {
        let before = world.of(item).await;
        assert_eq!(before["warrantyDate"], "2020-10-29T01:00:52.658051Z");
        world.close(item).key("refund").send().await.no_content();
        world.restore(&before, Some("refund")).send().await.no_content();
        assert_eq!(world.of(item).await, before);
    }
}

#[tokio::test]
async fn what_is_written_differs_from_what_was_there_where_the_caller_says_so() {
    let world = World::start().await;
    let item = world.used().await;
    world.close(item).send().await.no_content();
    let body = json!({
        "status": "ON_WARRANTY", "warrantyDate": "2016-12-31T23:59:59.123456+14:00", "comment": null,
    });
    world.begin(item).json(&body).send().await.no_content();
    let expected = json!({
        "itemUid": item, "status": "ON_WARRANTY", "warrantyDate": "2016-12-31T09:59:59.123456Z",
        "comment": null,
    });
    assert_eq!(world.of(item).await, expected);
}

#[tokio::test]
async fn every_time_of_rfc_3339_is_kept() {
    let world = World::start().await;
    for (sent, kept) in [
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"),
        ("1969-12-31T23:59:59.999999Z", "1969-12-31T23:59:59.999999Z"),
        ("2020-02-29t12:00:00.5z", "2020-02-29T12:00:00.500Z"),
    ] {
        let item = world.begun().await;
        world.close(item).send().await.no_content();
        let body = json!({"status": "ON_WARRANTY", "warrantyDate": sent, "comment": "a\r\nb"});
        world.begin(item).json(&body).send().await.no_content();
        let now = world.of(item).await;
        assert_eq!((&now["warrantyDate"], &now["comment"]), (&json!(kept), &json!("a\r\nb")));
        // Far from now, and no error.
        let claim = world.claim(item, "x", 1).send().await.ok();
        assert_eq!(claim["warrantyDate"], json!(kept));
    }
}

#[tokio::test]
async fn a_late_close_does_nothing_after_it_was_undone() {
    let world = World::start().await;
    let item = world.begun().await;
    let before = world.of(item).await;
    // The undo first: the close is still on its way.
    world.restore(&before, Some("refund")).send().await.no_content();
    assert_eq!(world.of(item).await, before);
    for _ in 0..2 {
        world.close(item).key("refund").send().await.no_content();
        assert_eq!(world.of(item).await, before);
    }
    // Another one closes it all the same.
    world.close(item).key("second-refund").send().await.no_content();
    assert_eq!(world.status(item).await, CLOSED);
}

#[tokio::test]
async fn that_a_close_was_undone_outlives_the_memory_of_its_key() {
    let world = World::start().await;
    let item = world.begun().await;
    let before = world.of(item).await;
    world.close(item).key("refund").send().await.no_content();
    world.restore(&before, Some("refund")).send().await.no_content();
    world.execute("DELETE FROM idempotency");
    world.close(item).key("refund").send().await.no_content();
    assert_eq!(world.of(item).await, before);
}

#[tokio::test]
async fn a_close_that_was_undone_without_a_name_does_nothing_either() {
    let world = World::start().await;
    let item = world.begun().await;
    let before = world.of(item).await;
    world.close(item).key("refund").send().await.no_content();
    world.restore(&before, None).send().await.no_content();
    assert_eq!(world.of(item).await, before);
    world.execute("DELETE FROM idempotency");
    world.close(item).key("refund").send().await.no_content();
    assert_eq!(world.of(item).await, before);
}

#[tokio::test]
async fn what_another_close_holds_closed_stays_closed() {
    let world = World::start().await;
    let item = world.begun().await;
    let before = world.of(item).await;
    world.close(item).key("first").send().await.no_content();
    // This one came second and closed nothing.
    world.close(item).key("second").send().await.no_content();
    world.restore(&before, Some("second")).send().await.no_content();
    assert_eq!(world.status(item).await, CLOSED);
    world.restore(&before, Some("never-seen")).send().await.no_content();
    assert_eq!(world.status(item).await, CLOSED);
    world.restore(&before, Some("first")).send().await.no_content();
    assert_eq!(world.of(item).await, before);
}

#[tokio::test]
async fn a_restore_that_comes_again_undoes_no_later_close() {
    let world = World::start().await;
    let item = world.begun().await;
    let before = world.of(item).await;
    world.close(item).key("first").send().await.no_content();
    world.restore(&before, Some("first")).send().await.no_content();
    for later in [Some("second"), None] {
        let close = world.close(item);
        let close = if let Some(key) = later { close.key(key) } else { close };
        close.send().await.no_content();
        world.restore(&before, Some("first")).send().await.no_content();
        assert_eq!(world.status(item).await, CLOSED, "{later:?}");
        world.restore(&before, later).send().await.no_content();
        assert_eq!(world.of(item).await, before);
    }
}

#[tokio::test]
async fn a_close_without_a_name_is_undone_by_whoever_names_one() {
    let world = World::start().await;
    let item = world.begun().await;
    let before = world.of(item).await;
    world.close(item).send().await.no_content();
    world.restore(&before, Some("refund")).send().await.no_content();
    assert_eq!(world.of(item).await, before);
}

#[tokio::test]
async fn a_name_that_closed_nothing_at_first_may_close_later() {
    let world = World::start().await;
    let item = world.begun().await;
    let before = world.of(item).await;
    world.close(item).key("first").send().await.no_content();
    world.close(item).key("second").send().await.no_content();
    world.restore(&before, Some("first")).send().await.no_content();
    // A retry after 30 days.
    world.execute("DELETE FROM idempotency");
    world.close(item).key("second").send().await.no_content();
    assert_eq!(world.status(item).await, CLOSED);
    // It is this one that holds it closed now.
    world.restore(&before, Some("third")).send().await.no_content();
    assert_eq!(world.status(item).await, CLOSED);
    world.restore(&before, Some("second")).send().await.no_content();
    assert_eq!(world.of(item).await, before);
}

#[tokio::test]
async fn an_open_warranty_is_left_as_it_is() {
    let world = World::start().await;
    let item = world.used().await;
    let now = world.of(item).await;
    let mut before = now.clone();
    before["status"] = json!("ON_WARRANTY");
    before["comment"] = Value::Null;
    for close in [None, Some("refund")] {
        world.restore(&before, close).send().await.no_content();
        assert_eq!(world.of(item).await, now);
    }
}

#[tokio::test]
async fn what_was_closed_before_stays_closed_when_it_is_restored_to_that() {
    let world = World::start().await;
    let item = world.begun().await;
    world.close(item).key("first").send().await.no_content();
    let before = world.of(item).await;
    world.close(item).key("second").send().await.no_content();
    world.restore(&before, Some("second")).send().await.no_content();
    assert_eq!(world.of(item).await, before);
}

#[tokio::test]
async fn nothing_is_restored_of_what_never_began() {
    let world = World::start().await;
    let body = json!({"status": "ON_WARRANTY", "warrantyDate": "2020-10-29T01:00:52Z"});
    let item = Uuid::new_v4();
    let refused = world.begin(item).json(&body).send().await;
    assert_envelope(&refused, 404, "warranty_not_found");
    world.close(item).compensate().send().await.no_content();
    let refused = world.begin(item).json(&body).send().await;
    assert_envelope(&refused, 409, "already_undone");
    assert_eq!(world.number("SELECT count(*) FROM warranty"), 0);
    assert_envelope(&world.client.get(path(item)).send().await, 404, "warranty_not_found");
}

#[tokio::test]
async fn half_a_restore_is_no_start() {
    let world = World::start().await;
    for body in [
        json!({"status": "ON_WARRANTY"}),
        json!({"warrantyDate": "2020-10-29T01:00:52Z"}),
        json!({"comment": "x"}),
        json!({"closedBy": "k"}),
    ] {
        let refused = world.begin(Uuid::new_v4()).json(&body).send().await;
        assert_envelope(&refused, 400, "invalid_request");
        assert!(!refused.json()["details"].as_array().unwrap().is_empty());
    }
    assert_eq!(world.number("SELECT count(*) FROM warranty"), 0);
    // What is null is missing, and with nothing there it is a start.
    let nothing = json!({"status": null, "comment": null});
    world.begin(Uuid::new_v4()).json(&nothing).send().await.no_content();
}

#[tokio::test]
async fn a_claim_that_came_before_the_close_is_not_taken_back_by_who_did_not_see_it() {
    let world = World::start().await;
    let item = world.begun().await;
    let before = world.of(item).await;
    let claim = json!({"reason": "broken", "availableCount": 1});
    let claimed = world.client.post(format!("{}/warranty", path(item))).json(&claim).send().await;
    assert_eq!(claimed.ok()["decision"], "RETURN");
    world.close(item).key("refund").send().await.no_content();
    world.restore(&before, Some("refund")).send().await.no_content();
    let after = world.of(item).await;
    assert_eq!((&after["status"], &after["comment"]), (&json!("USE_WARRANTY"), &json!("broken")));
    assert_eq!(after["warrantyDate"], before["warrantyDate"]);
}
