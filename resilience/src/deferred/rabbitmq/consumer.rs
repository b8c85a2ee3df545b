//! From the broker to the handlers: one consumer per kind, which waits while the kind's gate is
//! closed to it and then fetches one message as the probe.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use lapin::Channel;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions,
    BasicQosOptions, BasicRejectOptions,
};
use lapin::types::FieldTable;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::line::{ANSWER, Fault, Line, within};
use super::message::Message;
use super::topology::Names;
use crate::breaker::State;
use crate::deferred::counts;
use crate::deferred::kind::{Claim, Kind, Place};
use crate::deferred::ledger;
use crate::deferred::shared::Shared;

/// A broker closes the channel of whoever leaves a delivery unacked for too long: RabbitMQ after
/// half an hour. By then the row's own lease has protected the work all along.
const UNACKED: Duration = Duration::from_mins(15);

/// Between two looks at what keeps us from consuming.
const LOOK: Duration = Duration::from_millis(250);

/// A row that somebody has locked is tried again after this, and after twice as long each time. One
/// that is locked for longer keeps no message waiting, and no place: it is published again later.
const LOCKED: Duration = Duration::from_millis(10);
const LONG_LOCKED: Duration = Duration::from_millis(80);

/// The consumer of one kind.
pub(super) struct Consumer {
    pub(super) shared: Arc<Shared>,
    pub(super) kind: Arc<Kind>,
    pub(super) names: Names,
    pub(super) line: Arc<Line>,
    pub(super) ending: CancellationToken,
    /// Deliveries under way, until they are acked.
    pub(super) deliveries: TaskTracker,
    /// Told when the ledger can't be reached.
    pub(super) away: Notify,
}

/// Why nothing is consumed for now.
enum Pause {
    Ending,
    Gated,
    NoLedger,
}

/// What became of a delivery.
enum Delivered {
    /// It is acked, its work carried out or somebody else's.
    Acked,
    /// It is back in the queue.
    Requeued,
}

impl Consumer {
    /// Ends with what ended the connection, or when it is told to: those that run are acked then.
    pub(super) async fn run(self: Arc<Self>) -> Result<(), Fault> {
        let channel = self.line.channel().await?;
        // As many as may run here: what waits, waits where another process can have it.
        let prefetch = u16::try_from(self.kind.slots.most()).unwrap_or(u16::MAX);
        within(ANSWER, channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
        loop {
            match self.consume(&channel).await? {
                Pause::Ending => break,
                Pause::Gated => self.probe(&channel).await?,
                Pause::NoLedger => self.ledger_is_back().await,
            }
        }
        if self.shared.stop.is_cancelled() {
            self.deliveries.close();
            self.deliveries.wait().await;
        }
        Ok(())
    }

    async fn consume(self: &Arc<Self>, channel: &Channel) -> Result<Pause, Fault> {
        let consuming = channel.basic_consume(
            self.names.queue(self.kind.name),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        // Answered by the queue, not by whoever we are connected to.
        let consuming = timeout(ANSWER, consuming).await;
        let mut consumer = consuming.map_err(|_| Fault::Queue(self.kind.name))??;
        let pause = loop {
            let delivery = tokio::select! {
                biased;
                () = self.ending.cancelled() => break Pause::Ending,
                () = self.away.notified() => break Pause::NoLedger,
                delivery = consumer.next() => delivery,
            };
            let delivery = delivery
                .ok_or(Fault::Because("the broker has ended a consumer: its queue is gone"))??;
            let Some(message) = self.read(&delivery).await else { continue };
            let slots = tokio::select! {
                biased;
                () = self.ending.cancelled() => {
                    requeue(&delivery).await;
                    break Pause::Ending;
                }
                () = self.away.notified() => {
                    requeue(&delivery).await;
                    break Pause::NoLedger;
                }
                slots = self.kind.slots.take(1) => slots,
            };
            let place = self.kind.admit(slots).ok().and_then(|mut places| places.pop());
            let Some(place) = place else {
                requeue(&delivery).await;
                break Pause::Gated;
            };
            drop(self.start(message, delivery, place));
        };
        let cancelling = channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
        within(ANSWER, cancelling).await?;
        while let Some(Some(Ok(delivery))) = consumer.next().now_or_never() {
            requeue(&delivery).await;
        }
        Ok(pause)
    }

    /// Until the gate is open, with one message at a time that tries it.
    async fn probe(self: &Arc<Self>, channel: &Channel) -> Result<(), Fault> {
        while !self.ending.is_cancelled() {
            if let Some(rejection) = self.kind.gated() {
                self.rest(rejection.retry_after().min(LOOK)).await;
                continue;
            }
            if matches!(self.kind.gate.state(), State::Closed | State::ForcedClosed) {
                return Ok(());
            }
            let Some(slot) = self.kind.slots.try_take(1).pop() else {
                self.rest(LOOK).await;
                continue;
            };
            let Ok(Some(place)) = self.kind.admit(vec![slot]).map(|mut places| places.pop()) else {
                continue;
            };
            let queue = self.names.queue(self.kind.name);
            let getting = channel.basic_get(queue, BasicGetOptions::default());
            let got =
                timeout(ANSWER, getting).await.map_err(|_| Fault::Queue(self.kind.name))??;
            let Some(got) = got else {
                place.unused();
                self.rest(LOOK).await;
                continue;
            };
            let Some(message) = self.read(&got.delivery).await else {
                place.unused();
                continue;
            };
            // A task that fails to end has panicked: its delivery comes back with the channel.
            let delivered = self.start(message, got.delivery, place).await;
            if !matches!(delivered, Ok(Delivered::Acked)) {
                self.rest(LOOK).await;
            }
        }
        Ok(())
    }

    async fn rest(&self, time: Duration) {
        tokio::select! {
            () = self.ending.cancelled() => {}
            () = self.kind.wake.notified() => {}
            () = sleep(time) => {}
        }
    }

    /// What the delivery says. What can't be read goes to the parked queue, and blocks nothing.
    async fn read(&self, delivery: &Delivery) -> Option<Message> {
        let message = Message::read(&delivery.data);
        if message.is_none() {
            tracing::error!(
                kind = self.kind.name,
                "a message that isn't ours goes to the parked queue"
            );
            let rejecting = delivery.reject(BasicRejectOptions { requeue: false });
            let _ = timeout(ANSWER, rejecting).await;
        }
        message
    }

    fn start(
        self: &Arc<Self>,
        message: Message,
        delivery: Delivery,
        place: Place,
    ) -> tokio::task::JoinHandle<Delivered> {
        let consumer = Arc::clone(self);
        let task = async move { consumer.deliver(message, &delivery, place).await };
        self.shared.running.spawn(self.deliveries.track_future(task))
    }

    async fn deliver(&self, message: Message, delivery: &Delivery, place: Place) -> Delivered {
        let Message { id, token } = message;
        let name = self.kind.name;
        let mut wait = LOCKED;
        let (since, row) = loop {
            let since = Instant::now();
            let claiming = self.kind.claims.ask(&self.shared.door, (id, token));
            match timeout(ANSWER, claiming).await {
                Ok(Some(Claim::Row(row))) => break (since, *row),
                // By its sender, who is marking it, more often than not.
                Ok(Some(Claim::Locked)) if wait <= LONG_LOCKED => {
                    sleep(wait).await;
                    wait *= 2;
                }
                Ok(Some(Claim::Locked)) => {
                    place.unused();
                    tracing::warn!(%id, kind = name, "a row is locked: its message is dropped");
                    self.kind.dropped().push((id, token));
                    ack(delivery).await;
                    return Delivered::Acked;
                }
                Ok(Some(Claim::Stale)) => {
                    place.unused();
                    counts::stale(name);
                    tracing::debug!(%id, kind = name, "a stale message is dropped");
                    ack(delivery).await;
                    return Delivered::Acked;
                }
                Ok(None) | Err(_) => {
                    place.unused();
                    self.away.notify_one();
                    requeue(delivery).await;
                    return Delivered::Requeued;
                }
            }
        };
        let mut carrying = std::pin::pin!(self.shared.carry(&self.kind, row, place, since));
        tokio::select! {
            _ = &mut carrying => ack(delivery).await,
            () = sleep(UNACKED) => {
                ack(delivery).await;
                carrying.await;
            }
        }
        Delivered::Acked
    }

    /// Until the ledger answers.
    async fn ledger_is_back(&self) {
        let mut wait = LOOK;
        while !self.ending.is_cancelled() {
            self.rest(wait).await;
            let asking = self.shared.door.run(|conn| ledger::next_due(conn, &[]));
            if matches!(timeout(ANSWER, asking).await, Ok(Ok(_))) {
                return;
            }
            wait = (wait * 2).min(ANSWER);
        }
    }
}

/// Best effort, as [`requeue`]: what isn't acked comes again, and is stale then.
async fn ack(delivery: &Delivery) {
    let _ = timeout(ANSWER, delivery.ack(BasicAckOptions::default())).await;
}

async fn requeue(delivery: &Delivery) {
    let options = BasicNackOptions { requeue: true, multiple: false };
    let _ = timeout(ANSWER, delivery.nack(options)).await;
}
