//! What RabbitMQ carries arrives, once.

use std::sync::atomic::Ordering;
use std::time::Duration;

use diesel::sql_types::Uuid as SqlUuid;
use diesel::{QueryableByName, RunQueryDsl as _, sql_query};
use lapin::options::BasicGetOptions;
use lapin::types::AMQPValue;
use uuid::Uuid;

use super::rig::{OTHER, Others, PARKED, Rig, WORK, put, settings, until};

#[derive(QueryableByName)]
struct Sent {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    rows: i64,
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_all_kinds_are_carried_by_the_broker_and_leave_nothing_behind() {
    let rig = Rig::new();
    let running = rig.start().await;
    rig.defer(300);
    rig.defer_all::<Others>(300);
    running.deferred.nudge();
    rig.all_done(600).await;
    let sent: Sent = rig.sql(|conn| {
        sql_query("SELECT count(*) AS rows FROM deferred WHERE sent_at IS NOT NULL")
            .get_result(conn)
    });
    // A fast handler has ended what its sender hasn't marked yet: few do.
    assert!(sent.rows > 0, "nothing went through the broker");
    assert_eq!(rig.outside.all_runs(), 600);
    rig.queues_are_empty(0).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_runtimes_share_a_queue_and_each_call_runs_in_one() {
    let rig = Rig::new();
    let (one, two) = (rig.start().await, rig.start().await);
    rig.outside.hold();
    rig.defer(100);
    one.deferred.nudge();
    // 16 places each: both have their share.
    until(Duration::from_secs(20), "both work", || rig.outside.running() == 32).await;
    rig.outside.let_go();
    rig.all_done(100).await;
    assert_eq!(rig.outside.all_runs(), 100);
    tokio::join!(one.stop(), two.stop());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_is_fetched_than_may_run_at_a_time() {
    let rig = Rig::new();
    let running = rig.launch(settings("work").concurrency(10));
    running.broker(resilience::deferred::Broker::Work).await;
    rig.outside.hold();
    rig.defer(50);
    running.deferred.nudge();
    until(Duration::from_secs(20), "ten run", || rig.outside.running() == 10).await;
    until(Duration::from_secs(20), "forty wait in the queue, ten are out", || {
        rig.queue(WORK).is_some_and(|queue| (queue.ready, queue.unacked) == (40, 10))
    })
    .await;
    rig.outside.let_go();
    rig.all_done(50).await;
    assert_eq!(rig.outside.most.load(Ordering::Relaxed), 10);
    running.stop().await;
}

#[derive(QueryableByName)]
struct Token {
    #[diesel(sql_type = SqlUuid)]
    token: Uuid,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_delivered_a_hundred_times_has_one_effect() {
    let rig = Rig::new();
    let running = rig.start().await;
    rig.outside.hold();
    let id = rig.defer(1)[0];
    running.deferred.nudge();
    until(Duration::from_secs(20), "it runs", || rig.outside.running() == 1).await;
    let Token { token } = rig.sql(|conn| sql_query("SELECT token FROM deferred").get_result(conn));
    let message = format!(r#"{{"id":"{id}","token":"{token}"}}"#);
    let (_connection, channel) = rig.channel().await;
    // Half of them while it runs, half when it is over.
    for _ in 0..50 {
        put(&channel, WORK, message.as_bytes()).await;
    }
    until(Duration::from_secs(20), "the copies are dropped", || {
        rig.queue(WORK).is_some_and(|queue| (queue.ready, queue.unacked) == (0, 1))
    })
    .await;
    rig.outside.let_go();
    rig.all_done(1).await;
    for _ in 0..50 {
        put(&channel, WORK, message.as_bytes()).await;
    }
    rig.queues_are_empty(0).await;
    rig.all_done(1).await;
    assert_eq!(rig.outside.runs(id), 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_message_ends_in_the_parked_queue_and_blocks_nothing() {
    let rig = Rig::new();
    let running = rig.start().await;
    let (_connection, channel) = rig.channel().await;
    for body in [&b""[..], b"\xff\xfe", b"{}", b"{\"id\":1,\"token\":2}"] {
        put(&channel, WORK, body).await;
    }
    rig.defer(20);
    running.deferred.nudge();
    rig.all_done(20).await;
    rig.queues_are_empty(4).await;
    assert_eq!(rig.queue(PARKED).map(|queue| queue.ready), Some(4));
    // Sent there, and not delivered until the broker had enough of it.
    let got = channel.basic_get(PARKED.into(), BasicGetOptions::default()).await.unwrap().unwrap();
    let headers = got.delivery.properties.headers().as_ref().unwrap();
    let reason = headers.inner().get("x-first-death-reason");
    assert_eq!(reason, Some(&AMQPValue::LongString("rejected".into())), "{headers:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_in_the_wrong_queue_starts_no_wrong_handler() {
    let rig = Rig::new();
    let running = rig.start().await;
    running.deferred.breaker::<super::rig::Works>().force_open();
    let id = rig.defer(1)[0];
    running.deferred.nudge();
    until(Duration::from_secs(20), "it is sent", || rig.count("sent") == 1).await;
    let (_connection, channel) = rig.channel().await;
    let moved = super::gate::take(&channel, WORK).await;
    put(&channel, OTHER, &moved).await;
    until(Duration::from_secs(20), "it is dropped", || {
        rig.queue(OTHER).is_some_and(|queue| (queue.ready, queue.unacked) == (0, 0))
    })
    .await;
    assert_eq!(rig.outside.runs(id), 0);
    // And it isn't lost either: the queue that it should be in is empty.
    running.deferred.breaker::<super::rig::Works>().reset();
    rig.all_done(1).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_finishes_and_acks_what_runs_and_gives_the_rest_back() {
    let rig = Rig::new();
    let running = rig.launch(settings("work").concurrency(4));
    running.broker(resilience::deferred::Broker::Work).await;
    rig.outside.hold();
    rig.defer(20);
    running.deferred.nudge();
    until(Duration::from_secs(20), "all are out", || {
        rig.queue(WORK).is_some_and(|queue| (queue.ready, queue.unacked) == (16, 4))
    })
    .await;
    let stopping = tokio::spawn(running.stop());
    until(Duration::from_secs(20), "the consumer is gone", || {
        rig.queue(WORK).is_some_and(|queue| queue.consumers == 0)
    })
    .await;
    rig.outside.let_go();
    stopping.await.unwrap();
    assert_eq!((rig.count("done"), rig.count("sent")), (4, 16));
    until(Duration::from_secs(20), "what ran is acked", || {
        rig.queue(WORK).is_some_and(|queue| (queue.ready, queue.unacked) == (16, 0))
    })
    .await;
    // The next one finds the rest.
    let next = rig.start().await;
    rig.all_done(20).await;
    assert_eq!(rig.outside.all_runs(), 20);
    next.stop().await;
}
