//! Exchange, queues and bindings, as they are declared by whoever comes first.
//!
//! There is no alternate exchange: what it takes counts as routed, so a publish for a queue that is
//! gone would be confirmed and not returned, and be taken for sent.

use std::time::Duration;

use lapin::options::{
    ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ExchangeKind};

use super::line::{ANSWER, Fault, within};
use crate::deferred::builder::PARKED;

/// A backstop. What is given up is given up by the ledger, which counts attempts; a broker counts
/// deliveries of work that never ran.
const DELIVERY_LIMIT: i64 = 1000;

/// The names of what is in the broker, versioned: an exchange or a queue can't be changed later.
#[derive(Clone, Debug)]
pub(super) struct Names {
    exchange: String,
}

impl Names {
    pub(super) fn new(app: &str) -> Self {
        Self { exchange: format!("{app}.v1") }
    }

    pub(super) fn exchange(&self) -> ShortString {
        self.exchange.as_str().into()
    }

    /// Where the messages of this kind wait.
    pub(super) fn queue(&self, kind: &str) -> ShortString {
        format!("{}.{kind}", self.exchange).into()
    }

    /// Where messages end that can't be read, or were delivered too often.
    pub(super) fn parked(&self) -> ShortString {
        self.queue(PARKED)
    }
}

fn quorum() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments
}

/// Declares all of it. What is there already, and as it should be, is left as it is.
pub(super) async fn declare(
    channel: &Channel,
    names: &Names,
    kinds: &[&'static str],
) -> Result<(), Fault> {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let exchange = channel.exchange_declare(
        names.exchange(),
        ExchangeKind::Direct,
        options,
        FieldTable::default(),
    );
    within(ANSWER, exchange).await?;
    queue(channel, names.parked(), quorum()).await?;
    for kind in kinds {
        let mut arguments = quorum();
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(DELIVERY_LIMIT));
        arguments.insert("x-dead-letter-exchange".into(), AMQPValue::LongString("".into()));
        let parked = names.parked().as_str().into();
        arguments.insert("x-dead-letter-routing-key".into(), AMQPValue::LongString(parked));
        queue(channel, names.queue(kind), arguments).await?;
        let binding = channel.queue_bind(
            names.queue(kind),
            names.exchange(),
            (*kind).into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        within(ANSWER, binding).await?;
    }
    Ok(())
}

async fn queue(channel: &Channel, name: ShortString, arguments: FieldTable) -> Result<(), Fault> {
    let declaring = channel.queue_declare(name, QueueDeclareOptions::durable(), arguments);
    within(ANSWER, declaring).await.map(drop)
}

/// What a queue takes to go whose leader is gone: RabbitMQ waits for that one first.
const DELETE: Duration = Duration::from_secs(15);

/// Deletes the queue of this kind unless messages wait in it. RabbitMQ 3.10 leaves a quorum queue
/// without a leader, or without a process, for good when the node is killed within seconds of its
/// declaration or deletion. Should it have had messages after all, the ledger sends them again.
pub(super) async fn remove_broken(
    channel: &Channel,
    names: &Names,
    kind: &str,
) -> Result<(), Fault> {
    if waiting(channel, names, kind).await? > 0 {
        return Ok(());
    }
    tracing::warn!(kind, "a queue that seems to be broken is deleted, to be declared anew");
    let deleting = channel.queue_delete(names.queue(kind), QueueDeleteOptions::default());
    within(DELETE, deleting).await.map(drop)
}

/// How many messages wait in the queue of this kind. A queue that is gone is a fault, which ends the
/// channel.
pub(super) async fn waiting(channel: &Channel, names: &Names, kind: &str) -> Result<u32, Fault> {
    let passive = QueueDeclareOptions::durable().passive();
    let asking = channel.queue_declare(names.queue(kind), passive, FieldTable::default());
    within(ANSWER, asking).await.map(|queue| queue.message_count())
}
