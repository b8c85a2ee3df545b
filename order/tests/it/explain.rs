//! `/manage/explain/{orderUid}`: what Order tells of an order is what stands in its journal.

use serde_json::Value;
use uuid::Uuid;

use crate::world::World;

/// What is told of an order of which this stands in the journal: of each event its state and its reason.
async fn told(world: &World, order: Uuid, journal: &str) -> Vec<(String, String)> {
    world.order.execute(journal);
    let story = world.client.get(format!("/manage/explain/{order}")).send().await.ok();
    let text = |event: &Value, field: &str| event[field].as_str().unwrap_or_default().to_owned();
    let events = story["events"].as_array().unwrap().iter();
    let events = events.filter(|event| event["source"] == "journal");
    events
        .map(|event| {
            let (name, state) = (text(event, "name"), text(event, "state"));
            (format!("{name} {state}"), text(event, "reason"))
        })
        .collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(what, why)| ((*what).to_owned(), (*why).to_owned())).collect()
}

#[tokio::test]
async fn an_answer_that_nobody_wrote_down_is_told_as_lost_before_what_is_undone() {
    let world = World::start().await;
    let order = Uuid::new_v4();
    let journal = format!(
        "INSERT INTO saga (id, kind, key, input, state, begun_at, ended_at, reason)
         VALUES ('{order}', 'place', '{order}', '{{}}', 'compensated', '2026-01-01 10:00',
                 '2026-01-01 10:00:05', 'it was interrupted');
         INSERT INTO saga_step (saga, number, name, role, state, input, begun_at, undone_at)
         VALUES ('{order}', 0, 'take', 'step', 'undone', '{{}}', '2026-01-01 10:00:01',
                 '2026-01-01 10:00:04')"
    );
    let expected = [
        ("place begun", ""),
        ("take intent", ""),
        ("take unknown", ""),
        ("take undone", ""),
        ("place compensated", "it was interrupted"),
    ];
    assert_eq!(told(&world, order, &journal).await, pairs(&expected));
}

#[tokio::test]
async fn an_undo_is_told_after_what_led_to_it_and_its_failure_is_no_reason_of_the_answer() {
    let world = World::start().await;
    let order = Uuid::new_v4();
    let journal = format!(
        "INSERT INTO saga (id, kind, key, input, state, begun_at, reason, dependency)
         VALUES ('{order}', 'place', '{order}', '{{}}', 'compensating', '2026-01-01 10:00',
                 'warranty is unavailable', 'warranty');
         INSERT INTO saga_step (saga, number, name, role, state, input, output, error, begun_at,
                                ended_at)
         VALUES ('{order}', 0, 'take', 'step', 'undo_intent', '{{}}', '{{}}', NULL,
                 '2026-01-01 10:00:01', '2026-01-01 10:00:02'),
                ('{order}', 1, 'start', 'step', 'undo_deferred', '{{}}', NULL,
                 'its undo was refused', '2026-01-01 10:00:02', '2026-01-01 10:00:03')"
    );
    let expected = [
        ("place begun", ""),
        ("take intent", ""),
        ("take done", ""),
        ("start intent", ""),
        ("start unknown", ""),
        ("start undo_deferred", "its undo was refused"),
        ("take undo_intent", ""),
    ];
    assert_eq!(told(&world, order, &journal).await, pairs(&expected));
}
