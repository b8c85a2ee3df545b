//! Promises about time: `make nightly` runs these one after the other, with nothing beside them.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use service::testing::Call;

use crate::outage::{Away, ENOUGH, Orders};
use crate::world::shop::prompt;
use crate::world::{Part, World};

#[tokio::test]
#[ignore = "nightly: performance on a quiet machine"]
async fn open_breaker_answers_within_50_ms() {
    for part in [Part::Warehouse, Part::Warranty, Part::Order] {
        for away in [Away::Stopped, Away::Killed, Away::Frozen] {
            let world = World::start().await;
            let orders = Orders::place(&world).await;
            away.begin(&world, part).await;
            let calls = || -> [Call; 4] {
                [
                    world.get(orders.seen),
                    world.buy(),
                    world.claim(orders.claimed),
                    world.refund(orders.refunded[0]),
                ]
            };
            join_all((0..ENOUGH).flat_map(|_| calls()).map(prompt)).await;
            let mut times = Vec::new();
            for _ in 0..50 {
                for call in calls() {
                    let begin = Instant::now();
                    call.send().await;
                    times.push(begin.elapsed());
                }
            }
            times.sort_unstable();
            let p99 = times[times.len() * 99 / 100];
            assert!(p99 <= Duration::from_millis(50), "{part:?} {away:?}: {p99:?}");
            away.end(&world, part).await;
        }
    }
}
