//! What the four services take.

use std::time::Duration;

use futures_util::future::join_all;
use service::testing::Call;

use crate::world::{Part, World};

#[tokio::test]
async fn four_services_take_at_most_60_mib_after_load() {
    let world = World::start().await;
    let orders = world.bought_many(10).await;
    for round in 0..100_usize {
        let order = orders[round % 10];
        let calls: [Call; 5] = [
            world.list(),
            world.get(order),
            world.buy(),
            world.claim(order),
            world.refund(orders[round % 5]),
        ];
        join_all(calls.iter().cycle().take(20).cloned().map(Call::send)).await;
    }
    let shares = Part::ALL.map(|part| (part.name(), world.replica(part, 0).pss()));
    let sum: u64 = shares.iter().map(|(_, pss)| pss).sum();
    eprintln!("{sum} KiB: {shares:?}");
    assert!(sum <= 60 * 1024, "{sum} KiB: {shares:?}");
}

#[tokio::test]
async fn each_service_is_ready_within_a_second_of_its_start() {
    let world = World::start().await;
    for part in Part::ALL {
        let mut best = Duration::MAX;
        for _ in 0..3 {
            world.kill(part).await;
            best = best.min(world.replica(part, 0).start().await);
        }
        eprintln!("{part:?}: {best:?}");
        assert!(best <= Duration::from_secs(1), "{part:?}: {best:?}");
    }
}
