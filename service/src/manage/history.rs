//! What the breakers of this process have done lately.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use resilience::breaker::{Event, EventKind, Events};
use resilience::registry::Registry;
use serde::Serialize;
use tokio::sync::watch;
use utoipa::ToSchema;

use super::rfc3339;
use super::view::millis;

/// Events that are kept of each breaker: one that opens every second takes nothing from the others.
const KEPT: usize = 16;

/// Events of one breaker that may come before they are looked at.
const QUEUE: usize = 64;

/// The latest events, the oldest first. Clones share everything.
#[derive(Clone, Debug)]
pub(crate) struct History(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    began: SystemTime,
    events: Mutex<BTreeMap<Arc<str>, VecDeque<Event>>>,
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
            let mut all = self.lock();
            let kept = all.entry(Arc::clone(&event.breaker)).or_default();
            if kept.len() >= KEPT {
                kept.pop_front();
            }
            kept.push_back(event);
            drop(all);
            self.0.count.send_modify(|count| *count += 1);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, VecDeque<Event>>> {
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
        let all = self.lock();
        let mut events: Vec<_> = all.values().flatten().collect();
        events.sort_by_key(|event| event.at);
        events.iter().skip(events.len().saturating_sub(count)).copied().map(Into::into).collect()
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

#[cfg(test)]
mod tests {
    use resilience::registry::Key;

    use super::*;
    use crate::testing::until;

    #[tokio::test]
    async fn a_breaker_that_opens_all_the_time_takes_no_other_ones_events_from_the_history() {
        let registry = Registry::new();
        let breaker = |name| registry.breaker(&Key::new(name), |breaker| breaker).unwrap();
        let (quiet, busy) = (breaker("quiet"), breaker("busy"));
        let history = History::of(&registry);
        quiet.force_open();
        for number in 0..600_u64 {
            busy.force_open();
            busy.reset();
            // Each is looked at before more come than there is room for.
            until(std::time::Duration::from_secs(5), "it is kept", async || {
                (*history.changes().borrow() == 2 * number + 3).then_some(())
            })
            .await;
        }
        let latest = history.latest(50);
        assert!(latest.len() <= 50, "{latest:?}");
        assert_eq!(latest[0].breaker, "quiet", "{latest:?}");
        assert!(latest.is_sorted_by_key(|event| event.at.clone()), "{latest:?}");
    }
}
