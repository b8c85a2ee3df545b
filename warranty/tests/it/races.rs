//! Many at once, on two replicas.

use service::testing::{Client, assert_envelope};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::world::{World, path};

const ROUNDS: usize = 60;

#[tokio::test(flavor = "multi_thread")]
async fn no_warranty_runs_after_its_undo_in_whatever_order_the_two_arrive() {
    let world = World::start().await;
    let replica = world.replica().await;
    for _ in 0..ROUNDS {
        let item = Uuid::new_v4();
        let start = tokio::spawn(world.begin(item).send());
        let undo = tokio::spawn(replica.client().delete(path(item)).compensate().send());
        undo.await.unwrap().no_content();
        let started = start.await.unwrap();
        if started.status != 204 {
            assert_envelope(&started, 409, "already_undone");
        }
        assert_envelope(&world.begin(item).send().await, 409, "already_undone");
    }
    let open = "SELECT count(*) FROM warranty WHERE status <> 'REMOVED_FROM_WARRANTY'";
    assert_eq!(world.number(open), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_warranty_is_closed_after_its_close_was_undone_in_whatever_order_the_two_arrive() {
    let world = World::start().await;
    let replica = world.replica().await;
    for _ in 0..ROUNDS {
        let item = world.begun().await;
        let before = world.of(item).await;
        let close = tokio::spawn(replica.client().delete(path(item)).key("refund").send());
        let restore = tokio::spawn(world.restore(&before, Some("refund")).send());
        close.await.unwrap().no_content();
        restore.await.unwrap().no_content();
        assert_eq!(world.of(item).await, before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_claims_at_once_one_is_honoured() {
    let world = World::start().await;
    let replica = world.replica().await;
    let clients: [Client; 2] = [world.client.clone(), replica.client()];
    for _ in 0..5 {
        let item = world.begun().await;
        let target = format!("{}/warranty", path(item));
        let body = serde_json::json!({"reason": "broken", "availableCount": 1});
        let claims: JoinSet<_> =
            (0..10).map(|n| clients[n % 2].post(&target).json(&body).send()).collect();
        let answers = claims.join_all().await;
        let honoured =
            answers.into_iter().filter(|answer| answer.json()["decision"] == "RETURN").count();
        assert_eq!(honoured, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_claim_at_once_is_decided_once() {
    let world = World::start().await;
    let replica = world.replica().await;
    let clients: [Client; 2] = [world.client.clone(), replica.client()];
    let item = world.begun().await;
    let target = format!("{}/warranty", path(item));
    let claims: JoinSet<_> = (0..10)
        .map(|n| {
            let body = serde_json::json!({"reason": "broken", "availableCount": 1});
            clients[n % 2].post(&target).json(&body).key("k").send()
        })
        .collect();
    for answer in claims.join_all().await {
        assert_eq!(answer.ok()["decision"], "RETURN");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_start_at_once_begins_one_warranty() {
    let world = World::start().await;
    let item = Uuid::new_v4();
    let starts: JoinSet<_> = (0..10).map(|_| world.begin(item).send()).collect();
    for answer in starts.join_all().await {
        answer.no_content();
    }
    assert_eq!(world.number("SELECT count(*) FROM warranty"), 1);
}
