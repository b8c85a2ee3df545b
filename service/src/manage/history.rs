//! What the breakers of this process have done lately.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use resilience::breaker::{Event, EventKind, Events};
use resilience::registry::Registry;
use serde::Serialize;
use tokio::sync::watch;
use utoipa::ToSchema;

use super::rfc3339;
use super::view::millis;

/// Events that are kept, of all breakers together.
const KEPT: usize = 512;

/// Events of one breaker that may come before they are looked at.
const QUEUE: usize = 64;

/// The latest events, the oldest first. Clones share everything.
#[derive(Clone, Debug)]
pub(crate) struct History(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    began: SystemTime,
    events: Mutex<VecDeque<Event>>,
    /// How many there were.
    count: watch::Sender<u64>,
}

/// Something that happened to a breaker.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BreakerEvent {
    /// RFC 3339.
    pub(crate) at: String,
    /// Its name.
    pub(crate) breaker: String,
    /// `opened`, `half_opened`, `probe_replaced`, `closed`, `forced_open`, `forced_closed`, `reset` or
    /// `reconfigured`.
    what: &'static str,
    /// Of one that opened: what the last failure was.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Of one that opened: milliseconds until it probes.
    #[serde(skip_serializing_if = "Option::is_none")]
    open_for_ms: Option<u64>,
}

impl History {
    /// Listens to all breakers that there are, as long as there are.
    pub(crate) fn of(registry: &Registry) -> Self {
        let history = Self(Arc::new(Inner {
            began: SystemTime::now(),
            events: Mutex::default(),
            count: watch::Sender::default(),
        }));
        for (_, breaker) in registry.breakers() {
            tokio::spawn(history.clone().listen(breaker.subscribe(QUEUE)));
        }
        history
    }

    async fn listen(self, mut events: Events) {
        while let Some(event) = events.recv().await {
            let mut kept = self.lock();
            if kept.len() >= KEPT {
                kept.pop_front();
            }
            kept.push_back(event);
            drop(kept);
            self.0.count.send_modify(|count| *count += 1);
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Event>> {
        self.0.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since when it listens.
    pub(crate) fn began(&self) -> SystemTime {
        self.0.began
    }

    /// Tells that there is one more.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.count.subscribe()
    }

    /// The latest, at most so many, the oldest of them first.
    pub(crate) fn latest(&self, count: usize) -> Vec<BreakerEvent> {
        let events = self.lock();
        events.iter().skip(events.len().saturating_sub(count)).map(BreakerEvent::from).collect()
    }
}

impl From<&Event> for BreakerEvent {
    fn from(event: &Event) -> Self {
        let (reason, open_for) = match &event.kind {
            EventKind::Opened { reason, open_for, .. } => (reason.clone(), Some(*open_for)),
            _ => (None, None),
        };
        Self {
            at: rfc3339(event.at),
            breaker: event.breaker.to_string(),
            what: match &event.kind {
                EventKind::Opened { .. } => "opened",
                EventKind::HalfOpened => "half_opened",
                EventKind::ProbeReplaced => "probe_replaced",
                EventKind::Closed => "closed",
                EventKind::ForcedOpen => "forced_open",
                EventKind::ForcedClosed => "forced_closed",
                EventKind::Reset => "reset",
                _ => "reconfigured",
            },
            reason: reason.map(|reason| reason.to_string()),
            open_for_ms: open_for.map(millis),
        }
    }
}
