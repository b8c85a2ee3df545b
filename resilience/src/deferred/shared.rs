//! What everything in a runtime shares.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{Notify, RwLock, broadcast, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Span;
use uuid::Uuid;

use super::database::Door;
use super::kind::Kind;

/// Who carries the calls: RabbitMQ, or the runtime by itself, straight from the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum Broker {
    /// None is configured.
    Absent,
    /// It is away; the runtime does without.
    Down,
    /// It carries the calls.
    Work,
}

impl Broker {
    /// `absent`, `down` or `work`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Down => "down",
            Self::Work => "work",
        }
    }
}

/// Told of each attempt: its span, and what travels with the call.
pub(super) type OnAttempt = fn(&Span, &BTreeMap<String, String>);

/// A runtime's common state. The carrier (`rabbitmq`) needs no more than this.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Names the exchange and the queues.
    #[cfg_attr(not(feature = "rabbitmq"), expect(dead_code, reason = "for the carrier"))]
    pub(super) app: String,
    pub(super) door: Door,
    pub(super) kinds: BTreeMap<&'static str, Arc<Kind>>,
    pub(super) on_attempt: Option<OnAttempt>,
    /// Unless it is [`Broker::Work`], rows are carried out straight from the ledger. Only the
    /// carrier's supervisor changes it.
    pub(super) broker: watch::Sender<Broker>,
    /// Told when there may be something to publish. For the relay alone.
    pub(super) relay: Notify,
    /// The ids of calls that have ended in this process.
    pub(super) ended: broadcast::Sender<Uuid>,
    /// Held by each call that is made: shared, or alone by one that may have killed the process.
    pub(super) turns: RwLock<()>,
    /// Cancelled when nothing more is to be begun; what runs goes on.
    pub(super) stop: CancellationToken,
    /// Cancelled when what runs is to be given back at once.
    pub(crate) cut: CancellationToken,
    /// What runs: the calls that are carried out, until their outcome is written.
    pub(crate) running: TaskTracker,
}

impl Shared {
    pub(super) fn new(
        app: String,
        door: Door,
        (kinds, on_attempt): (BTreeMap<&'static str, Arc<Kind>>, Option<OnAttempt>),
        broker: Broker,
    ) -> Self {
        Self {
            app,
            door,
            kinds,
            on_attempt,
            broker: watch::Sender::new(broker),
            relay: Notify::new(),
            ended: broadcast::Sender::new(1024),
            turns: RwLock::new(()),
            stop: CancellationToken::new(),
            cut: CancellationToken::new(),
            running: TaskTracker::new(),
        }
    }

    pub(super) fn broker(&self) -> Broker {
        *self.broker.borrow()
    }

    /// The carrier's supervisor says what it sees. Logged once per change.
    #[cfg(feature = "rabbitmq")]
    pub(super) fn set_broker(&self, broker: Broker) {
        let changed = self.broker.send_if_modified(|present| {
            let changed = *present != broker;
            *present = broker;
            changed
        });
        super::counts::broker(broker);
        if changed && broker == Broker::Work {
            tracing::info!("the broker carries the deferred calls");
        } else if changed {
            tracing::warn!("the broker is lost: deferred calls are carried out without it");
        }
    }

    /// Nothing more is begun, and what runs is given back.
    pub(super) fn cut_off(&self) {
        let left = self.running.len();
        if left > 0 {
            tracing::warn!(left, "deferred calls are cut off by the shutdown");
        }
        self.stop.cancel();
        self.cut.cancel();
    }

    /// Something was deferred, or has become due.
    pub(crate) fn nudge(&self) {
        self.relay.notify_one();
        self.kinds.values().for_each(|kind| kind.wake());
    }

    /// Everything that there is a handler for.
    pub(super) fn names(&self) -> Vec<&'static str> {
        self.kinds.keys().copied().collect()
    }
}

#[cfg(all(test, feature = "rabbitmq", feature = "metrics"))]
mod tests {
    use diesel::r2d2::{ConnectionManager, Pool};
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn the_metric_follows_the_broker_though_the_ledger_is_away() {
        let pool = Pool::builder().build_unchecked(ConnectionManager::new("postgres://nowhere"));
        let door = Door::new(pool);
        let shared = Shared::new("shop".to_owned(), door, (BTreeMap::new(), None), Broker::Down);
        let recorder = PrometheusBuilder::new().build_recorder();
        let shown = recorder.handle();
        for (broker, up) in [(Broker::Work, "1"), (Broker::Down, "0")] {
            metrics::with_local_recorder(&recorder, || shared.set_broker(broker));
            let shown = shown.render();
            assert!(shown.contains(&format!("\nresilience_deferred_broker_up {up}\n")), "{shown}");
        }
    }
}
