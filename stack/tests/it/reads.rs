//! What a read costs.

use futures_util::future::join_all;
use service::testing::Client;

use crate::world::{Part, World};

/// Requests to a service's resources so far, and SQL statements that they took.
async fn costs(client: &Client) -> (u32, u32) {
    let metrics = client.get("/metrics").send().await.text();
    let sum = |name: &str, label: &str| -> u32 {
        let samples = metrics.lines().filter(|line| line.starts_with(name) && line.contains(label));
        samples.map(|line| line.rsplit(' ').next().unwrap().parse::<u32>().unwrap()).sum()
    };
    (sum("http_requests_total{", "route=\"/api/"), sum("db_statements_total{", ""))
}

#[tokio::test]
async fn list_of_100_orders_costs_one_call_to_each_and_at_most_two_statements_in_each() {
    let world = World::start().await;
    for _ in 0..20 {
        let purchases = (0..5).map(|_| world.bought());
        join_all(purchases).await;
    }
    let mut before = Vec::new();
    for part in Part::ALL {
        before.push(costs(&world.client(part)).await);
    }

    let list = world.list().send().await;
    assert_eq!(list.header("x-total-count"), Some("100"));
    let list = list.ok();
    assert_eq!(list.as_array().unwrap().len(), 100);
    for element in list.as_array().unwrap() {
        assert!(!element["model"].is_null() && !element["warrantyDate"].is_null());
        assert_eq!(element.get("degraded"), None);
    }

    for (part, (calls, statements)) in Part::ALL.into_iter().zip(before) {
        let after = costs(&world.client(part)).await;
        assert_eq!(after.0 - calls, 1, "calls to {part:?}");
        let statements = after.1 - statements;
        assert!((1..=2).contains(&statements), "{statements} statements in {part:?}");
    }
}
