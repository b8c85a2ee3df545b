//! Promises about time: `make nightly` runs these one after the other, with nothing beside them.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use service::testing::operator::breaker;
use service::testing::{Call, until};

use crate::outage::{Away, ENOUGH, Orders};
use crate::world::bulk::order;
use crate::world::shop::{Promise as _, prompt};
use crate::world::{Part, RECOVERY, World};

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

/// An open breaker's wait, and what may come on top of it.
const UNDONE: Duration = Duration::from_secs(6 + 2);

#[tokio::test]
#[ignore = "nightly: performance on a quiet machine"]
async fn pending_rollback_is_over_within_the_open_wait_and_2_s() {
    for part in [Part::Warehouse, Part::Warranty, Part::Order] {
        let world = World::start().await;
        let kept = world.bought().await;
        Away::Frozen.begin(&world, part).await;
        let answers = join_all((0..ENOUGH).map(|_| prompt(world.buy()))).await;
        for answer in &answers {
            answer.blames("rollback_pending", part);
        }
        prompt(world.buy()).await.blames("rolled_back", part);
        let healed = Away::Frozen.end(&world, part).await;
        world.settles_with(&[kept]).await;
        let took = healed.elapsed();
        eprintln!("{} pending rollbacks were over {took:?} after {part:?} was back", answers.len());
        assert!(took <= UNDONE, "{part:?}: {took:?}");
    }
}

/// 500 claims are decided within this, by programs that are not optimized.
const DRAINED: Duration = Duration::from_secs(30);

#[tokio::test]
#[ignore = "nightly: performance on a quiet machine"]
async fn claim_is_accepted_within_50_ms_once_its_breaker_is_open() {
    const COUNT: u64 = 500;
    for plan in [World::plan(), World::plan().broker()] {
        let world = plan.start().await;
        world.sell(COUNT);
        world.kill(Part::Warranty).await;
        let mut numbers = 0..COUNT;
        until(RECOVERY, "the breaker of claims opens", async || {
            let order = order(numbers.next().unwrap());
            prompt(world.claim(order)).await.queued(order);
            let found = breaker(&world.client(Part::Store), "deferred/claim").await;
            (found["state"] == "open").then_some(())
        })
        .await;
        let mut times = Vec::new();
        for order in numbers.map(order) {
            let begin = Instant::now();
            let answer = world.claim(order).send().await;
            times.push(begin.elapsed());
            answer.queued(order);
        }
        times.sort_unstable();
        let [p50, p99] = [50, 99].map(|percent| times[times.len() * percent / 100]);
        eprintln!("{} claims were accepted within {p50:?} (p50), {p99:?} (p99)", times.len());
        assert!(p99 <= Duration::from_millis(50), "{p99:?}");
        world.restart(Part::Warranty).await;
        let healed = Instant::now();
        let decided = "(SELECT count(*) FROM claims WHERE decision = 'RETURN')";
        let decided = || world.number(Part::Store, decided);
        until(RECOVERY, "claims are decided again", async || (decided() > 0).then_some(())).await;
        let first = healed.elapsed();
        let all = i64::try_from(COUNT).unwrap();
        until(DRAINED, "all are decided", async || (decided() == all).then_some(())).await;
        eprintln!("decided from {first:?} to {:?} after Warranty was back", healed.elapsed());
        world.owes_nothing().await;
    }
}
