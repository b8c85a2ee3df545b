//! Calls per second, from the first commit to the last end.

use std::time::Instant;

use diesel::Connection as _;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use resilience::breaker::Breaker;
use resilience::deferred::{Deferral, Settings, defer_all};
use uuid::Uuid;

use super::running::{Nothing, Running, until_done};
use crate::ground::{Database, Ground};
use bench_ground::times::median;

/// Calls per round, deferred so many in a transaction.
const CALLS: u32 = 10_000;
const PER_COMMIT: usize = 100;
const ROUNDS: usize = 3;

/// Handlers that run at once, and messages that a consumer may hold.
pub(crate) const AT_ONCE: u16 = 100;

/// Unconfirmed messages at once.
const WINDOW: usize = 200;

/// Calls per second: medians of the rounds.
pub(crate) struct Carry {
    /// Publishing with confirms, consuming, acknowledging, on the same kind of queue.
    pub(crate) bare: f64,
    pub(crate) rabbitmq: f64,
    pub(crate) ledger_only: f64,
}

pub(crate) async fn measure(ground: &Ground) -> Carry {
    let (mut bare, mut rabbitmq, mut alone) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (vhost, ledger) = (ground.vhost(), ground.ledger());
        bare.push(messages(vhost.url()).await);
        rabbitmq.push(calls(&ledger, Some(vhost.url())).await);
        alone.push(calls(&ground.ledger(), None).await);
    }
    Carry { bare: median(bare), rabbitmq: median(rabbitmq), ledger_only: median(alone) }
}

/// From each of these ledgers alone, in turn.
pub(crate) async fn ledger_only(ledgers: &[Database]) -> Vec<f64> {
    let mut rates = vec![Vec::new(); ledgers.len()];
    for _ in 0..ROUNDS {
        for (ledger, rates) in ledgers.iter().zip(&mut rates) {
            rates.push(calls(ledger, None).await);
        }
    }
    rates.into_iter().map(median).collect()
}

fn rate(began: Instant) -> f64 {
    f64::from(CALLS) / began.elapsed().as_secs_f64()
}

async fn calls(ledger: &Database, broker: Option<&str>) -> f64 {
    let breaker = Breaker::builder("nothing").build();
    let settings = Settings::new().concurrency(AT_ONCE.into()).breaker(breaker);
    let mut running = Running::start(ledger, broker, settings).await;
    let began = Instant::now();
    let mut conn = ledger.connect();
    let deferred = running.deferred.clone();
    let accepting = tokio::task::spawn_blocking(move || {
        let payloads: Vec<u32> = (0..CALLS).collect();
        for payloads in payloads.chunks(PER_COMMIT) {
            let committed = conn.transaction(|conn| {
                let call = |payload| Deferral::new::<Nothing>(Uuid::now_v7(), payload);
                let calls: Result<Vec<_>, _> = payloads.iter().map(call).collect();
                defer_all(conn, &calls.expect("numbers"))
            });
            assert_eq!(committed, Ok(payloads.len()));
            deferred.nudge();
        }
    });
    accepting.await.expect("it accepts");
    for _ in 0..CALLS {
        running.runs.recv().await.expect("it runs");
    }
    until_done(ledger).await;
    let rate = rate(began);
    running.stop().await;
    rate
}

/// The same messages without a ledger.
async fn messages(url: &str) -> f64 {
    let connect = || Connection::connect(url, ConnectionProperties::default());
    let (publisher, consumer) =
        (connect().await.expect("RabbitMQ"), connect().await.expect("RabbitMQ"));
    let (to, from) = (channel(&publisher).await, channel(&consumer).await);
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let queue = ShortString::from("bare");
    to.queue_declare(queue.clone(), QueueDeclareOptions::durable(), arguments)
        .await
        .expect("a queue");
    to.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
    from.basic_qos(AT_ONCE, BasicQosOptions::default()).await.expect("a prefetch");
    let consume = BasicConsumeOptions::default();
    let mut deliveries = from
        .basic_consume(queue.clone(), "bench".into(), consume, FieldTable::default())
        .await
        .expect("a consumer");
    let body = format!(r#"{{"id":"{}","token":"{}"}}"#, Uuid::now_v7(), Uuid::new_v4());
    let began = Instant::now();
    let publishing = tokio::spawn(async move {
        let messages: Vec<u32> = (0..CALLS).collect();
        for window in messages.chunks(WINDOW) {
            let mut confirms = Vec::with_capacity(window.len());
            for _ in window {
                let options = BasicPublishOptions { mandatory: true, ..Default::default() };
                let properties = BasicProperties::default().with_delivery_mode(2);
                let sent = to.basic_publish(
                    "".into(),
                    queue.clone(),
                    options,
                    body.as_bytes(),
                    properties,
                );
                confirms.push(sent.await.expect("it is sent"));
            }
            for confirmed in join_all(confirms).await {
                assert!(confirmed.expect("it is confirmed").is_ack());
            }
        }
    });
    for _ in 0..CALLS {
        let delivery = deliveries.next().await.expect("a message").expect("a message");
        delivery.ack(BasicAckOptions::default()).await.expect("it is acknowledged");
    }
    publishing.await.expect("it publishes");
    rate(began)
}

async fn channel(connection: &Connection) -> Channel {
    connection.create_channel().await.expect("a channel")
}
