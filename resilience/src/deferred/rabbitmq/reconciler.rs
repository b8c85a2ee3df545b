//! Finds what the broker has lost: a disk, a queue, a message.

use std::sync::Arc;
use std::time::Duration;

use lapin::Channel;
use lapin::options::{BasicGetOptions, BasicNackOptions};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::line::{ANSWER, Fault, Line, within};
use super::topology::{self, Names};
use crate::deferred::builder::PARKED;
use crate::deferred::kind::Kind;
use crate::deferred::ledger;
use crate::deferred::shared::Shared;

const TICK: Duration = Duration::from_secs(1);

/// Rows that were sent so long ago are lost when their queue is empty, so long after it was connected
/// to: what was delivered is running by then, and a queue that was killed has read its log again.
const EMPTY: Duration = Duration::from_secs(5);

/// Of the rows that were sent so long ago, those that the queue can't have are lost.
const LONG: Duration = Duration::from_mins(5);

/// Every so many ticks is looked for those, and at the parked queue.
const SELDOM: u32 = 30;

/// So many rows at a time.
const LIMIT: i64 = 1000;

/// So many of those whose messages were dropped.
const DROPPED: usize = 1000;

pub(super) struct Reconciler {
    pub(super) shared: Arc<Shared>,
    pub(super) names: Names,
    /// That of the consumers: it is never blocked.
    pub(super) line: Arc<Line>,
    pub(super) ending: CancellationToken,
}

impl Reconciler {
    /// Ends with what ended the connection, or when it is told to.
    pub(super) async fn run(self) -> Result<(), Fault> {
        let channel = self.line.channel().await?;
        let mut ticks = 0_u32;
        let connected = Instant::now();
        loop {
            if ticks.is_multiple_of(SELDOM) {
                self.look_at_parked(&channel).await?;
            }
            tokio::select! {
                () = self.ending.cancelled() => return Ok(()),
                () = sleep(TICK) => {}
            }
            ticks = ticks.wrapping_add(1);
            for kind in self.shared.kinds.values() {
                self.take_back(kind).await;
                let kind = kind.name;
                let waiting = topology::waiting(&channel, &self.names, kind).await?;
                if waiting == 0 && connected.elapsed() >= EMPTY {
                    self.recall(kind, EMPTY, 0).await;
                } else if ticks.is_multiple_of(SELDOM) {
                    self.recall(kind, LONG, waiting.into()).await;
                }
            }
        }
    }

    /// Nobody consumes from the parked queue, so that nobody else would see that it is broken, and what
    /// can't be read be lost. One in which messages wait isn't.
    async fn look_at_parked(&self, channel: &Channel) -> Result<(), Fault> {
        if topology::waiting(channel, &self.names, PARKED).await? > 0 {
            return Ok(());
        }
        let getting = channel.basic_get(self.names.parked(), BasicGetOptions::default());
        let got = timeout(ANSWER, getting).await.map_err(|_| Fault::Queue(PARKED))??;
        if let Some(got) = got {
            // It has just come.
            let options = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
            within(ANSWER, got.delivery.nack(options)).await?;
        }
        Ok(())
    }

    /// Has rows published again whose messages were dropped because they were locked.
    async fn take_back(&self, kind: &Kind) {
        let dropped = {
            let mut dropped = kind.dropped();
            let rest = dropped.len().saturating_sub(DROPPED);
            dropped.split_off(rest)
        };
        if dropped.is_empty() {
            return;
        }
        let (name, messages) = (kind.name, dropped.clone());
        let taking = self.shared.door.run(move |conn| ledger::take_back(conn, name, &messages));
        let locked: Vec<_> = match timeout(ANSWER, taking).await {
            Ok(Ok(locked)) => locked.into_iter().collect(),
            Ok(Err(_)) | Err(_) => dropped.clone(),
        };
        if locked.len() < dropped.len() {
            self.shared.relay.notify_one();
        }
        // Before those that have waited for longer.
        kind.dropped().splice(..0, locked);
    }

    /// Has all rows published again that were sent so long ago, but for as many as still wait.
    async fn recall(&self, kind: &'static str, older_than: Duration, but: i64) {
        let recalling =
            self.shared.door.run(move |conn| ledger::recall(conn, kind, older_than, but, LIMIT));
        // The ledger being away is seen, and told, by whoever needs it.
        if let Ok(Ok(rows @ 1..)) = timeout(ANSWER, recalling).await {
            tracing::warn!(kind, rows, "the broker has lost messages: they are published again");
            self.shared.relay.notify_one();
        }
    }
}
