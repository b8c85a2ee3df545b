//! Whose turn it is on a connection, since when, and until when.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::limits::Limits;
use super::places::{Place, Places};

/// A connection's state, told by those who see it change: its stream, its service, and the pipeline.
/// Clones are of the same connection.
#[derive(Clone)]
pub(crate) struct Turn(Arc<Inner>);

struct Inner {
    limits: Arc<Limits>,
    places: Places,
    id: u64,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    since: Instant,
    /// Since when the client takes nothing of what waits for it.
    stalled: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing of the next request has come.
    Idle,
    /// A head is coming, or should be: the first one.
    Head,
    /// A body is coming: the pipeline keeps its time.
    Body,
    /// The request is there: it is our turn.
    Work,
}

impl Turn {
    /// A connection that has just begun.
    pub(super) fn new(place: &Place, limits: &Arc<Limits>) -> Self {
        let (places, id) = (place.places().clone(), place.id());
        places.wait(id);
        let state = State { phase: Phase::Head, since: Instant::now(), stalled: None };
        Self(Arc::new(Inner { limits: Arc::clone(limits), places, id, state: Mutex::new(state) }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Some bytes have come.
    pub(super) fn heard(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Idle {
            (state.phase, state.since) = (Phase::Head, Instant::now());
        }
    }

    /// A head is there: whoever has sent one is waited for anew.
    pub(super) fn asked(&self) {
        self.lock().phase = Phase::Body;
        self.0.places.wait(self.0.id);
    }

    /// The whole request is there.
    pub(crate) fn complete(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Body {
            state.phase = Phase::Work;
            self.0.places.work(self.0.id);
        }
    }

    /// The answer is on its way: the next request may come.
    pub(super) fn answered(&self) {
        let mut state = self.lock();
        (state.phase, state.since) = (Phase::Idle, Instant::now());
        self.0.places.wait(self.0.id);
    }

    /// The client takes nothing.
    pub(super) fn stalled(&self) {
        self.lock().stalled.get_or_insert_with(Instant::now);
    }

    /// The client takes something.
    pub(super) fn moved(&self) {
        self.lock().stalled = None;
    }

    /// Until when the client has to do what it is waited for; nothing while it is our turn.
    pub(super) fn ends(&self) -> Option<Instant> {
        let (limits, state) = (&self.0.limits, self.lock());
        let turn = match state.phase {
            Phase::Idle => Some(state.since + limits.idle_time),
            Phase::Head => Some(state.since + limits.head_time),
            Phase::Body | Phase::Work => None,
        };
        let taken = state.stalled.map(|since| since + limits.write_time);
        turn.into_iter().chain(taken).min()
    }

    /// It hasn't.
    pub(super) fn missed(&self) {
        let state = self.lock();
        if state.phase == Phase::Head || state.stalled.is_some() {
            let what = if state.stalled.is_some() { "answer" } else { "head" };
            tracing::debug!(what, "a client was too slow");
        }
    }
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Turn").field(&self.lock().phase).finish()
    }
}
