//! RabbitMQ under the store's deferred calls: what is seen in it, and that nobody needs it.

use std::time::Duration;

use backing::rabbitmq::testing::TestBroker;
use serde_json::Value;
use service::testing::operator::command;
use service::testing::until;

use crate::world::shop::Promise as _;
use crate::world::{Part, World};

/// The broker is missed and found again within this.
const NOTICED: Duration = Duration::from_secs(45);
/// What was accepted is carried out within this of the last repair.
const CARRIED: Duration = Duration::from_mins(1);

/// Something that happens to the broker.
type Step = fn(&TestBroker);

async fn broker_is(world: &World, expected: &str) {
    let store = world.client(Part::Store);
    until(NOTICED, &format!("health says that the broker is {expected}"), async || {
        let health = store.get("/manage/health").send().await.json();
        (health["components"]["broker"]["status"] == expected).then_some(())
    })
    .await;
}

async fn deferred(world: &World) -> Value {
    world.client(Part::Store).get("/manage/deferred").send().await.ok()
}

async fn everything_is_carried_out(world: &World) {
    until(CARRIED, "everything is carried out", async || {
        let ledger = deferred(world).await;
        ledger["calls"].as_array().is_some_and(Vec::is_empty).then_some(())
    })
    .await;
}

#[tokio::test]
async fn store_sells_whatever_becomes_of_its_broker_and_takes_it_back() {
    let world = World::plan().broker().start().await;
    broker_is(&world, "Work").await;
    // Claims are published, and wait: only who has a message hears that a broker takes none.
    command(&world.client(Part::Store), "deferred/claim", "force_open").send().await.ok();
    let ways: [(&str, Step, Step); 4] = [
        ("killed", TestBroker::kill, TestBroker::start),
        ("stopped", TestBroker::stop, TestBroker::start),
        (
            "out of memory",
            |broker| broker.set_memory_alarm(true),
            |broker| {
                broker.set_memory_alarm(false);
            },
        ),
        ("frozen", TestBroker::freeze, TestBroker::thaw),
    ];
    for (how, lose, regain) in ways {
        eprintln!("the broker is {how}");
        let order = world.bought().await;
        lose(world.broker());
        world.claim(order).send().await.queued(order);
        broker_is(&world, "Down").await;
        world.bought().await;
        regain(world.broker());
        broker_is(&world, "Work").await;
    }
    world.broker().wipe();
    broker_is(&world, "Work").await;
    world.bought().await;
    command(&world.client(Part::Store), "deferred/claim", "reset").send().await.ok();
    everything_is_carried_out(&world).await;
}

#[tokio::test]
async fn claims_are_seen_waiting_in_rabbitmq_and_outlive_it() {
    let world = World::plan().broker().start().await;
    broker_is(&world, "Work").await;
    let mut orders = Vec::new();
    for _ in 0..5 {
        orders.push(world.bought().await);
    }
    world.kill(Part::Warranty).await;
    for order in &orders {
        let answer = world.claim(*order).send().await;
        assert_eq!(answer.status, 202, "{answer:?}");
    }
    let waiting = || world.queues().iter().map(|queue| queue.ready + queue.unacked).sum::<u64>();
    let all = orders.len() as u64;
    until(NOTICED, "all claims wait in RabbitMQ", async || (waiting() == all).then_some(())).await;
    // No probe is under way any more, and then nobody is there to publish them again.
    command(&world.client(Part::Store), "deferred/claim", "force_open").send().await.ok();
    until(NOTICED, "all are sent", async || {
        let ledger = deferred(&world).await;
        let sent =
            ledger["calls"].as_array()?.iter().filter(|call| call["state"] == "sent").count();
        (sent == orders.len() && waiting() == all).then_some(())
    })
    .await;
    world.kill(Part::Store).await;
    world.broker().write_names();
    world.broker().kill();
    world.broker().start();
    until(NOTICED, "all claims are there again", async || (waiting() == all).then_some(())).await;

    world.restart(Part::Store).await;
    world.restart(Part::Warranty).await;
    everything_is_carried_out(&world).await;
    until(CARRIED, "RabbitMQ is empty", async || (waiting() == 0).then_some(())).await;
}

#[tokio::test]
async fn deleted_queue_loses_no_claim() {
    let world = World::plan().broker().start().await;
    broker_is(&world, "Work").await;
    let order = world.bought().await;
    world.kill(Part::Warranty).await;
    assert_eq!(world.claim(order).send().await.status, 202);
    let holding = until(NOTICED, "the claim waits in RabbitMQ", async || {
        world.queues().into_iter().find(|queue| queue.ready + queue.unacked > 0)
    })
    .await;
    assert!(world.delete_queue(&holding.name));
    world.restart(Part::Warranty).await;
    everything_is_carried_out(&world).await;
}
