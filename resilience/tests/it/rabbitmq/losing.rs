//! Losing the broker, or part of it, loses nothing.

use std::time::Duration;

use backing::rabbitmq::testing::TestBroker;
use diesel::connection::SimpleConnection as _;
use diesel::dsl::sql;
use diesel::sql_types::BigInt;
use diesel::{Connection as _, PgConnection, RunQueryDsl as _};
use lapin::options::{ExchangeDeleteOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use resilience::deferred::{Broker, Deferral, defer};
use tokio::task::block_in_place;
use uuid::Uuid;

use super::rig::{OTHER, Others, PARKED, Rig, WORK, Works, put, settings, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_that_finds_no_queue_is_not_taken_for_sent_and_arrives_later() {
    let rig = Rig::new();
    let running = rig.start().await;
    // Nothing of it is run, so that what counts as sent can be seen; the other kind shares its
    // batches, and has its queue.
    running.deferred.breaker::<Works>().force_open();
    running.deferred.breaker::<Others>().force_open();
    let (_connection, channel) = rig.channel().await;
    let unbound =
        channel.queue_unbind(WORK.into(), "shop.v1".into(), "work".into(), FieldTable::default());
    unbound.await.unwrap();
    rig.sql(|conn| {
        conn.batch_execute(
            "CREATE TABLE marks (id uuid);
             CREATE FUNCTION mark() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN INSERT INTO marks VALUES (new.id); RETURN new; END $$;
             CREATE TRIGGER mark AFTER UPDATE ON deferred FOR EACH ROW
             WHEN (new.kind = 'work' AND new.state = 'sent') EXECUTE FUNCTION mark()",
        )
    });
    let mixed = rig.defer(50).len() + rig.defer_all::<Others>(50).len();
    running.deferred.nudge();
    // Rebuilt, and published again: what is sent is what the queues have.
    until(Duration::from_secs(30), "all of it is in the queues", || {
        rig.count("sent") == mixed as u64
    })
    .await;
    let ready = |name: &str| rig.queue(name).map_or(0, |queue| queue.ready);
    until(Duration::from_secs(20), "each message is in its queue", || {
        ready(WORK) == 50 && ready(OTHER) >= 50
    })
    .await;
    // None of it was taken for sent before.
    let marks: i64 = rig
        .sql(|conn| diesel::select(sql::<BigInt>("(SELECT count(*) FROM marks)")).get_result(conn));
    assert_eq!(marks, 50);
    running.deferred.breaker::<Works>().reset();
    running.deferred.breaker::<Others>().reset();
    rig.all_done(100).await;
    assert_eq!(rig.outside.all_runs(), 100);
    rig.queues_are_empty(0).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_queue_or_exchange_is_declared_again_and_its_calls_published_again() {
    let rig = Rig::new();
    let running = rig.start().await;
    let breaker = running.deferred.breaker::<Works>().clone();
    breaker.force_open();
    rig.defer(40);
    running.deferred.nudge();
    until(Duration::from_secs(20), "they are sent", || rig.count("sent") == 40).await;
    assert!(block_in_place(|| rig.broker.delete_queue(rig.vhost.name(), WORK)));
    let ready = || rig.queue(WORK).map_or(0, |queue| queue.ready);
    until(Duration::from_secs(30), "they are published again", || ready() == 40).await;
    let (_connection, channel) = rig.channel().await;
    channel.exchange_delete("shop.v1".into(), ExchangeDeleteOptions::default()).await.unwrap();
    rig.defer(40);
    running.deferred.nudge();
    until(Duration::from_secs(30), "all are published", || rig.count("sent") == 80).await;
    breaker.reset();
    rig.all_done(80).await;
    assert_eq!(rig.outside.all_runs(), 80);
    rig.queues_are_empty(0).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_closed_in_the_middle_of_confirms_lose_nothing_and_double_nothing() {
    // Its own node: all connections of the node are closed.
    let rig = Rig::dedicated();
    let running = rig.start().await;
    for round in 1..=10 {
        rig.defer(200);
        running.deferred.nudge();
        until(Duration::from_secs(20), "some are under way", || {
            rig.count("done") > (round - 1) * 200
        })
        .await;
        block_in_place(|| rig.broker.close_connections());
    }
    rig.all_done(2000).await;
    running.broker(Broker::Work).await;
    rig.queues_are_empty(0).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_killed_and_restarted_still_has_its_messages() {
    let rig = Rig::dedicated();
    // Nobody consumes: one runtime that only publishes, as its gate is forced open.
    let running = rig.start().await;
    running.deferred.breaker::<Works>().force_open();
    rig.defer(100);
    running.deferred.nudge();
    until(Duration::from_secs(20), "they are sent", || rig.count("sent") == 100).await;
    running.stop().await;
    block_in_place(|| {
        rig.broker.write_names();
        rig.broker.kill();
        rig.broker.start();
    });
    // Asked of the queue itself: RabbitMQ's tools show nothing of a queue that nobody has used yet.
    // It can be asked before it has read all of its log; nobody is there to publish anything anew.
    let (_connection, channel) = rig.channel().await;
    let there_again = async {
        loop {
            let passive = QueueDeclareOptions::durable().passive();
            let queue = channel.queue_declare(WORK.into(), passive, FieldTable::default()).await;
            if queue.unwrap().message_count() == 100 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), there_again).await.expect("all are there again");
    assert_eq!(rig.count("sent"), 100);
    let next = rig.start().await;
    rig.all_done(100).await;
    // Its messages, and no others, were carried out.
    assert_eq!(rig.outside.all_runs(), 100);
    next.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_a_crash_left_without_a_leader_is_declared_anew() {
    let rig = Rig::dedicated();
    // It is killed before it has written the names of its queues: they come back, and answer nobody.
    let running = rig.start().await;
    running.deferred.breaker::<Works>().force_open();
    block_in_place(|| {
        rig.broker.kill();
        rig.broker.start();
    });
    rig.defer(40);
    until(Duration::from_mins(1), "they are sent", || rig.count("sent") == 40).await;
    running.broker(Broker::Work).await;
    running.deferred.breaker::<Works>().reset();
    rig.all_done(40).await;
    assert_eq!(rig.outside.all_runs(), 40);
    rig.queues_are_empty(0).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_whose_process_is_gone_is_declared_anew() {
    let rig = Rig::new();
    rig.start().await.stop().await;
    block_in_place(|| rig.broker.break_queue(rig.vhost.name(), WORK));
    let running = rig.launch(settings("work"));
    rig.defer(40);
    rig.all_done(40).await;
    // Without a broker they would be done as well.
    running.deferred.breaker::<Works>().force_open();
    rig.defer(40);
    let waiting = || rig.queue(WORK).map_or(0, |queue| queue.ready);
    until(Duration::from_mins(1), "they wait in the broker", || waiting() == 40).await;
    running.deferred.breaker::<Works>().reset();
    rig.all_done(80).await;
    assert_eq!(rig.outside.all_runs(), 80);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_queue_whose_process_is_gone_is_declared_anew() {
    let rig = Rig::new();
    rig.start().await.stop().await;
    block_in_place(|| rig.broker.break_queue(rig.vhost.name(), PARKED));
    let running = rig.launch(settings("work"));
    let (_connection, channel) = rig.channel().await;
    let arrives = async {
        while rig.queue(PARKED).is_none_or(|queue| queue.ready == 0) {
            put(&channel, WORK, b"garbage").await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_mins(1), arrives).await;
    in_time.expect("what can't be read arrives where it can be looked at");
    running.broker(Broker::Work).await;
    rig.defer(40);
    rig.all_done(40).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_lost_its_disk_is_given_everything_again() {
    let rig = Rig::dedicated();
    let running = rig.start().await;
    running.deferred.breaker::<Works>().force_open();
    rig.defer(100);
    running.deferred.nudge();
    until(Duration::from_secs(20), "they are sent", || rig.count("sent") == 100).await;
    running.stop().await;
    // While nobody looks: the rows say sent, and the broker is empty.
    block_in_place(|| rig.broker.wipe());
    assert_eq!(rig.count("sent"), 100);
    let next = rig.start().await;
    rig.all_done(100).await;
    assert_eq!(rig.outside.all_runs(), 100);
    next.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_alarm_counts_as_away_and_its_end_as_back() {
    let rig = Rig::dedicated();
    let running = rig.start().await;
    block_in_place(|| rig.broker.set_memory_alarm(true));
    rig.defer(50);
    running.deferred.nudge();
    running.broker(Broker::Down).await;
    rig.all_done(50).await;
    block_in_place(|| rig.broker.set_memory_alarm(false));
    running.broker(Broker::Work).await;
    rig.defer(50);
    running.deferred.nudge();
    rig.all_done(100).await;
    rig.queues_are_empty(0).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_absent_at_the_start_is_done_without_and_taken_up_when_it_comes_and_goes() {
    let rig = Rig::dedicated();
    block_in_place(|| rig.broker.stop());
    let running = rig.launch(settings("work"));
    rig.defer(20);
    running.deferred.nudge();
    rig.all_done(20).await;
    assert_eq!(running.deferred.broker(), Broker::Down);
    let mut expected = 20;
    let lose: [fn(&TestBroker); 2] = [TestBroker::stop, TestBroker::kill];
    for lose in lose {
        block_in_place(|| rig.broker.start());
        running.broker(Broker::Work).await;
        rig.defer(20);
        running.deferred.nudge();
        rig.all_done(expected + 20).await;
        block_in_place(|| lose(&rig.broker));
        running.broker(Broker::Down).await;
        rig.defer(20);
        running.deferred.nudge();
        expected += 40;
        rig.all_done(expected).await;
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_broker_is_noticed_and_done_without() {
    let rig = Rig::dedicated();
    let running = rig.start().await;
    block_in_place(|| rig.broker.freeze());
    rig.defer(20);
    running.deferred.nudge();
    let noticed = std::time::Instant::now();
    running.broker(Broker::Down).await;
    assert!(noticed.elapsed() < Duration::from_secs(12), "{:?}", noticed.elapsed());
    rig.all_done(20).await;
    block_in_place(|| rig.broker.thaw());
    running.broker(Broker::Work).await;
    rig.defer(20);
    running.deferred.nudge();
    rig.all_done(40).await;
    rig.queues_are_empty(0).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_takes_nothing_more_holds_up_no_other_kind() {
    let rig = Rig::new();
    let running = rig.start().await;
    running.deferred.breaker::<Works>().force_open();
    let policy = r#"{"max-length":1,"overflow":"reject-publish"}"#;
    let set = ["set_policy", "-p", rig.vhost.name(), "full", "[.]work$", policy];
    block_in_place(|| rig.broker.rabbitmqctl(&set));
    rig.sql(|conn| {
        conn.batch_execute(
            "CREATE SEQUENCE tries;
             CREATE FUNCTION tried() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM nextval('tries'); RETURN new; END $$;
             CREATE TRIGGER tried AFTER UPDATE ON deferred FOR EACH ROW
             WHEN (new.kind = 'work' AND new.state = 'pending' AND new.token IS NOT NULL)
             EXECUTE FUNCTION tried()",
        )
    });
    let full = rig.defer(1000).len() as u64;
    running.deferred.nudge();
    until(Duration::from_secs(20), "some are refused", || {
        rig.number("SELECT last_value FROM tries") >= 1000
    })
    .await;
    rig.defer_all::<Others>(20);
    running.deferred.nudge();
    until(Duration::from_secs(5), "the others are done", || rig.count("done") == 20).await;
    let before = rig.number("SELECT last_value FROM tries");
    assert!(before < 5000, "{before} times was something published that is refused");
    block_in_place(|| rig.broker.rabbitmqctl(&["clear_policy", "-p", rig.vhost.name(), "full"]));
    running.deferred.breaker::<Works>().reset();
    rig.all_done(full + 20).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_has_lost_the_broker_takes_no_more_than_it_can_carry() {
    let rig = Rig::new();
    let running = rig.start().await;
    let cut_off = rig.launch_at("amqp://127.0.0.1:1", settings("work"));
    for running in [&running, &cut_off] {
        running.deferred.breaker::<Works>().force_open();
    }
    rig.defer(50);
    running.deferred.nudge();
    let ready = || rig.queue(WORK).map_or(0, |queue| queue.ready);
    // What a slow broker didn't confirm in time is there twice; the ledger knows when all are sent.
    let sent = || rig.count("sent") == 50;
    until(Duration::from_secs(20), "they wait in the broker", || sent() && ready() >= 50).await;
    let waiting = ready();
    // Time for some looks at the ledger.
    let later = Deferral::new::<Others>(Uuid::new_v4(), &0).unwrap().after(Duration::from_secs(5));
    rig.sql(|conn| defer(conn, &later).map(drop));
    until(Duration::from_secs(20), "time has passed", || rig.count("done") == 1).await;
    assert_eq!((ready(), rig.count("sent")), (waiting, 50), "they are published again and again");
    // The other has not: what waits in the broker is carried out by whoever can.
    cut_off.deferred.breaker::<Works>().reset();
    rig.all_done(51).await;
    tokio::join!(running.stop(), cut_off.stop());
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_somebody_has_locked_hold_up_no_other_and_are_carried_out_when_they_are_let_go() {
    let rig = Rig::new();
    let running = rig.start().await;
    running.deferred.breaker::<Works>().force_open();
    // More than there are places.
    let locked = rig.defer(20);
    let others = rig.defer(30).len() as u64;
    running.deferred.nudge();
    until(Duration::from_secs(20), "they are sent", || rig.count("sent") == 50).await;
    let ids: Vec<_> = locked.iter().map(|id| format!("'{id}'")).collect();
    let mut operator = PgConnection::establish(rig.database.url()).unwrap();
    let lock = format!("BEGIN; SELECT 1 FROM deferred WHERE id IN ({}) FOR UPDATE", ids.join(", "));
    operator.batch_execute(&lock).unwrap();
    running.deferred.breaker::<Works>().reset();
    until(Duration::from_secs(20), "the others are done", || rig.count("done") == others).await;
    until(Duration::from_secs(20), "nothing goes round in the broker", || {
        rig.queue(WORK).is_some_and(|queue| (queue.ready, queue.unacked) == (0, 0))
    })
    .await;
    assert_eq!(rig.outside.all_runs(), 30);
    operator.batch_execute("COMMIT").unwrap();
    rig.all_done(50).await;
    assert_eq!(rig.outside.all_runs(), 50);
    rig.queues_are_empty(0).await;
    running.stop().await;
}
