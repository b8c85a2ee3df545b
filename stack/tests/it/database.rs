//! PostgreSQL is away, for all four at once.

use std::time::{Duration, Instant};

use backing::postgres::testing::TestCluster;
use futures_util::future::join_all;
use serde_json::json;
use service::testing::{Call, Client, Response, assert_envelope, until};
use uuid::Uuid;

use crate::world::shop::{ALEX, MODEL, Promise as _, SIZE, within};
use crate::world::{Part, World};

const DATA: Duration = Duration::from_secs(2);
const HEALTH: Duration = Duration::from_millis(500);
const BACK: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread")]
async fn postgres_stopped_is_a_503_in_time_and_recovered_from() {
    away(TestCluster::stop, TestCluster::start).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_killed_is_a_503_in_time_and_recovered_from() {
    away(TestCluster::kill, TestCluster::start).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_frozen_is_a_503_in_time_and_recovered_from() {
    away(TestCluster::freeze, TestCluster::thaw).await;
}

async fn away(lose: fn(&TestCluster), heal: fn(&TestCluster)) {
    let world = World::plan().own_postgres().start().await;
    let order = world.bought().await;

    // Cut off in the middle: whoever gets 201 has bought, and nobody else has.
    let start = async || {
        let mut bought = Vec::new();
        loop {
            let answer = world.buy().send().await;
            if answer.status != 201 {
                assert_eq!(answer.status, 503, "{answer:?}");
                return bought;
            }
            bought.push(answer.bought());
        }
    };
    let buyers = join_all((0..4).map(|_| start()));
    let losing = async {
        until(BACK, "some are bought", async || (world.left(MODEL) < 9_990).then_some(())).await;
        // It blocks: the buyers go on meanwhile.
        tokio::task::block_in_place(|| lose(world.postgres()));
    };
    let (bought, ()) = tokio::join!(buyers, losing);

    // One after the other: eight at once would hang, and the ninth be told that this is too much.
    join_all(Part::ALL.map(|part| says_so(&world, part))).await;

    heal(world.postgres());
    let healed = Instant::now();
    for part in Part::ALL {
        world.replica(part, 0).ready().await;
    }
    let last = until(BACK, "a purchase works again", async || {
        let answer = world.buy().send().await;
        (answer.status == 201).then(|| answer.bought())
    })
    .await;
    assert!(healed.elapsed() <= BACK);
    let bought: Vec<_> = bought.into_iter().flatten().chain([order, last]).collect();
    world.settles_with(&bought).await;
}

/// Each data route, and health.
async fn says_so(world: &World, part: Part) {
    let client = world.client(part);
    // Nobody's: what is asked of a frozen database happens when it goes on.
    let (order, item) = (Uuid::new_v4(), Uuid::new_v4());
    let wish = json!({"model": "Unknown", "size": SIZE, "orderUid": order});
    let claim = json!({"reason": "x", "availableCount": 1});
    let calls: Vec<Call> = match part {
        Part::Store => vec![
            world.list(),
            world.get(order),
            world.claims(order),
            world.buy(),
            world.claim(order),
            world.refund(order),
        ],
        Part::Order => vec![
            client.get(format!("/api/v1/orders/{ALEX}")),
            client.get(format!("/api/v1/orders/{ALEX}/{order}")),
            client.post(format!("/api/v1/orders/{ALEX}")).json(&wish),
            client.post(format!("/api/v1/orders/{order}/warranty")).json(&claim),
            client.delete(format!("/api/v1/orders/{order}")),
        ],
        Part::Warehouse | Part::Warranty => {
            let resource = format!("/api/v1/{}", part.name());
            let one = format!("{resource}/{item}");
            let mut calls = vec![
                client.get(&one),
                client.get(format!("{resource}?itemUid={item}")),
                client.post(format!("{one}/warranty")).json(&claim),
                client.delete(&one),
            ];
            calls.push(match part {
                Part::Warehouse => client.post(resource).json(&wish),
                _ => client.post(one),
            });
            calls
        }
    };
    // Before anything waits for the database, and after.
    health_says_so(&client).await;
    for call in calls {
        is_503(&within(DATA, call).await);
    }
    health_says_so(&client).await;
}

async fn health_says_so(client: &Client) {
    let health = within(HEALTH, client.get("/manage/health")).await;
    assert_eq!(health.status, 503, "{health:?}");
    let health = health.json();
    assert_eq!(health["status"], "Down");
    assert_eq!(health["components"]["db"]["status"], "Down");
    assert_eq!(within(HEALTH, client.get("/manage/health/ready")).await.status, 503);
    assert_eq!(within(HEALTH, client.get("/manage/health/live")).await.status, 200);
}

#[track_caller]
fn is_503(answer: &Response) {
    assert_envelope(answer, 503, "database_unavailable");
    // Its own database is no system further down.
    assert_eq!(answer.header("x-failed-dependency"), None, "{answer:?}");
}
