//! From the ledger to the broker: due rows are claimed, published, and marked when the broker has
//! them.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Channel, Confirmation};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::line::{ANSWER, Fault, Line, within};
use super::message::Message;
use super::topology::Names;
use crate::deferred::counts;
use crate::deferred::database::DatabaseError;
use crate::deferred::ledger::{self, ToSend};
use crate::deferred::shared::Shared;

/// How many rows are claimed, and published before their confirms are awaited, by one lane: of each
/// kind an equal share.
const BATCH: usize = 200;

/// How long rows are ours to publish. Longer than claiming, confirming and marking take together.
const LEASE: Duration = Duration::from_secs(10);

/// For the confirms of a batch.
const CONFIRM: Duration = Duration::from_secs(5);

/// Between two looks at the ledger when nobody nudges: another process may have deferred something.
const LOOK: Duration = Duration::from_millis(500);

/// A kind whose queue refuses messages, as it is full, is left out for so long: its rows are the
/// oldest, and would be published again and again in the place of all others.
const REFUSED: Duration = Duration::from_secs(1);

/// One of the relay's lanes. Each has a channel of its own, so that one batch is confirmed while the
/// next is claimed.
pub(super) struct Lane {
    pub(super) shared: Arc<Shared>,
    pub(super) names: Names,
    pub(super) line: Arc<Line>,
    /// Whether the broker has told us to publish nothing for now.
    pub(super) blocked: watch::Receiver<bool>,
    pub(super) ending: CancellationToken,
    /// The lane looks at the ledger by itself. A spare one waits until another has more than it can
    /// carry.
    pub(super) first: bool,
    pub(super) help: Arc<Notify>,
}

/// What became of a batch.
#[derive(Default)]
struct Published {
    confirmed: HashSet<Uuid>,
    returned: HashSet<Uuid>,
    refused: HashSet<Uuid>,
    /// Every confirm has come.
    complete: bool,
    fault: Option<Fault>,
}

impl Lane {
    /// Ends with what ended the connection, or when it is told to.
    pub(super) async fn run(mut self) -> Result<(), Fault> {
        let mut refusing: BTreeMap<&str, Instant> = BTreeMap::new();
        let mut channel = None;
        loop {
            tokio::select! {
                biased;
                () = self.ending.cancelled() => return Ok(()),
                unblocked = self.blocked.wait_for(|blocked| !blocked) => {
                    if unblocked.is_err() {
                        return Ok(());
                    }
                }
            }
            let token = Uuid::new_v4();
            refusing.retain(|_, since| since.elapsed() < REFUSED);
            let mut kinds = self.shared.names();
            kinds.retain(|kind| !refusing.contains_key(kind));
            let share = BATCH / kinds.len().max(1);
            let (rows, next) = match self.claim(kinds, share, token).await {
                Ok(claimed) => claimed,
                Err(error) => {
                    tracing::debug!(%error, "the relay can't read the ledger");
                    self.rest(Some(LOOK)).await;
                    continue;
                }
            };
            if rows.is_empty() {
                self.rest(next).await;
                continue;
            }
            if rows.len() >= share {
                self.help.notify_one();
            }
            let published = match self.open(channel.take()).await {
                Ok(open) => {
                    let published = self.publish(&open, &rows, token).await;
                    // What a channel still owes would be taken for the answer to the next batch; and
                    // RabbitMQ may go on refusing on the channel on which it has begun to.
                    let reusable = published.complete && published.refused.is_empty();
                    channel = reusable.then_some(open);
                    published
                }
                Err(fault) => Published { fault: Some(fault), ..Published::default() },
            };
            self.mark(&rows, &published, token).await;
            for row in rows.iter().filter(|row| published.refused.contains(&row.id)) {
                let kind = self.shared.kinds.get(row.kind.as_str()).map(|kind| kind.name);
                if kind.is_some_and(|kind| refusing.insert(kind, Instant::now()).is_none()) {
                    tracing::warn!(kind, "the queue of a kind refuses messages for now");
                }
            }
            if let Some(fault) = published.fault {
                return Err(fault);
            }
            if !published.returned.is_empty() {
                return Err(Fault::Because("what was published found no queue"));
            }
        }
    }

    async fn claim(
        &self,
        kinds: Vec<&'static str>,
        share: usize,
        token: Uuid,
    ) -> Result<(Vec<ToSend>, Option<Duration>), DatabaseError> {
        let claiming = self.shared.door.run(move |conn| {
            let rows = ledger::claim_to_send(conn, &kinds, share, token, LEASE)?;
            let next = if rows.is_empty() { ledger::next_due(conn, &kinds)? } else { None };
            Ok((rows, next))
        });
        claiming.await
    }

    /// Until there may be something to do: the next row is due after this.
    async fn rest(&self, next: Option<Duration>) {
        if self.first {
            tokio::select! {
                () = self.ending.cancelled() => {}
                () = self.shared.relay.notified() => {}
                () = sleep(next.unwrap_or(LOOK).min(LOOK)) => {}
            }
        } else {
            tokio::select! {
                () = self.ending.cancelled() => {}
                () = self.help.notified() => {}
            }
        }
    }

    async fn open(&self, channel: Option<Channel>) -> Result<Channel, Fault> {
        if let Some(channel) = channel {
            return Ok(channel);
        }
        let channel = self.line.channel().await?;
        within(ANSWER, channel.confirm_select(ConfirmSelectOptions::default())).await?;
        Ok(channel)
    }

    async fn publish(&self, channel: &Channel, rows: &[ToSend], token: Uuid) -> Published {
        let mut published = Published::default();
        let mut blocked = self.blocked.clone();
        let started = Instant::now();
        let mut confirms: FuturesUnordered<_> =
            rows.iter().map(|row| self.send(channel, row, token)).collect();
        loop {
            let confirm = tokio::select! {
                biased;
                confirm = confirms.next() => confirm,
                // Nobody knows how long for: somebody else is to carry these rows out.
                _ = blocked.wait_for(|blocked| *blocked) => return published,
                () = sleep_until(started + CONFIRM) => {
                    let silent = rows.iter().find(|row| !published.has_answer(row.id));
                    let kind = silent.and_then(|row| self.shared.kinds.get(row.kind.as_str()));
                    let late = Fault::Because("the broker doesn't confirm in time");
                    published.fault = Some(kind.map_or(late, |kind| Fault::Queue(kind.name)));
                    return published;
                }
            };
            match confirm {
                Some(Ok((id, confirmation))) => {
                    counts::confirmed(started.elapsed());
                    published.note(id, confirmation);
                }
                Some(Err(error)) => {
                    published.fault = Some(error.into());
                    return published;
                }
                None => {
                    published.complete = true;
                    return published;
                }
            }
        }
    }

    async fn send(
        &self,
        channel: &Channel,
        row: &ToSend,
        token: Uuid,
    ) -> lapin::Result<(Uuid, Confirmation)> {
        let message = Message { id: row.id, token };
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let body = message.body();
        let publishing = channel.basic_publish(
            self.names.exchange(),
            row.kind.as_str().into(),
            options,
            &body,
            message.properties(),
        );
        Ok((row.id, publishing.await?.await?))
    }

    /// Writes down which of the rows the broker has.
    async fn mark(&self, rows: &[ToSend], published: &Published, token: Uuid) {
        let there = |row: &&ToSend| {
            published.confirmed.contains(&row.id) && !published.returned.contains(&row.id)
        };
        let sent: Vec<Uuid> = rows.iter().filter(there).map(|row| row.id).collect();
        let not_sent: Vec<Uuid> = rows.iter().filter(|row| !there(row)).map(|row| row.id).collect();
        let marking = self.shared.door.run(move |conn| {
            ledger::sent(conn, &sent, token)?;
            ledger::not_sent(conn, &not_sent, token)
        });
        if let Err(error) = marking.await {
            // Their lease runs out, and they are published again.
            tracing::debug!(%error, "the relay can't write to the ledger");
        }
    }
}

impl Published {
    /// Whether the queue has said something: yes, or no.
    fn has_answer(&self, id: Uuid) -> bool {
        self.confirmed.contains(&id) || self.refused.contains(&id)
    }

    /// Takes a confirm in. lapin hands a returned message to whichever confirm comes next: whose it
    /// is stands in the message itself.
    fn note(&mut self, id: Uuid, confirmation: Confirmation) {
        if confirmation.is_ack() {
            self.confirmed.insert(id);
        } else {
            self.refused.insert(id);
        }
        if let Some(message) = confirmation.take_message() {
            let returned = Message::read(&message.delivery.data).map_or(id, |message| message.id);
            self.returned.insert(returned);
            counts::unrouted();
        }
    }
}
