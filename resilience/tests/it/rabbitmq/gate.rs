//! While a kind's breaker is open, its messages wait in RabbitMQ.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicGetOptions};
use resilience::State;
use resilience::deferred::Broker;

use super::rig::{Rig, WORK, Works, until};

/// Takes a message out of a queue.
pub(super) async fn take(channel: &Channel, queue: &str) -> Vec<u8> {
    let got = channel.basic_get(queue.into(), BasicGetOptions::default()).await.unwrap().unwrap();
    got.delivery.ack(BasicAckOptions::default()).await.unwrap();
    got.delivery.data
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_target_is_dead_its_calls_wait_in_the_broker_even_killed_and_restarted() {
    let rig = Rig::dedicated();
    let running = rig.start().await;
    let breaker = running.deferred.breaker::<Works>().clone();
    rig.outside.down.store(true, Ordering::Relaxed);
    rig.defer(50);
    running.deferred.nudge();
    until(Duration::from_secs(20), "the breaker opens", || breaker.state() == State::Open).await;
    // The probe may be out, and what has just failed may be on its way back.
    let waiting = |least| rig.queue(WORK).is_some_and(|queue| queue.ready >= least);
    until(Duration::from_secs(20), "they wait in the broker", || waiting(49)).await;
    let before = rig.outside.all_runs();
    let waits = Instant::now();
    tokio::task::block_in_place(|| {
        rig.broker.write_names();
        rig.broker.kill();
    });
    running.broker(Broker::Down).await;
    tokio::task::block_in_place(|| rig.broker.start());
    running.broker(Broker::Work).await;
    until(Duration::from_secs(20), "they wait in the broker again", || waiting(49)).await;
    // One probe per open wait, and those that were on their way when it opened: nothing is burnt.
    let probes = u32::try_from(waits.elapsed().as_millis() / 500).unwrap();
    let ran = rig.outside.all_runs() - before;
    assert!(ran <= probes + 2, "{ran} ran in a time of {probes} probes");
    rig.outside.down.store(false, Ordering::Relaxed);
    let healed = Instant::now();
    rig.all_done(50).await;
    assert!(healed.elapsed() < Duration::from_secs(5), "{:?}", healed.elapsed());
    rig.queues_are_empty(0).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_that_an_operator_forces_open_holds_everything_back() {
    let rig = Rig::new();
    let running = rig.start().await;
    let breaker = running.deferred.breaker::<Works>().clone();
    breaker.force_open();
    rig.defer(30);
    running.deferred.nudge();
    until(Duration::from_secs(20), "all wait in the broker", || {
        rig.queue(WORK).is_some_and(|queue| (queue.ready, queue.unacked) == (30, 0))
    })
    .await;
    assert_eq!(rig.outside.all_runs(), 0);
    breaker.reset();
    let began = Instant::now();
    rig.all_done(30).await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    running.stop().await;
}
