//! Who has a place, and whose is given to somebody else.

use std::collections::{BTreeMap, HashMap};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::{Counter, Gauge};
use tokio::sync::Notify;

/// The places of a service. Clones share everything.
#[derive(Clone)]
pub(super) struct Places(Arc<Shared>);

struct Shared {
    limit: usize,
    reserve: usize,
    state: Mutex<State>,
    freed: Notify,
    gauge: Gauge,
    given_away: Counter,
}

#[derive(Default)]
struct State {
    /// Places that are taken, but for the reserve.
    open: usize,
    reserved: usize,
    /// Those of them all that are given away, and whose connection has not ended yet.
    leaving: usize,
    seats: HashMap<u64, Seat>,
    /// The seats whose client's turn it is, since the longest first; those of the reserve last.
    waiting: BTreeMap<Ticket, u64>,
    next: u64,
}

/// Whether it is of the reserve, and when the client's turn began.
type Ticket = (bool, u64);

struct Seat {
    reserved: bool,
    leaving: bool,
    ticket: Option<Ticket>,
    notice: Arc<Notify>,
}

impl Places {
    pub(super) fn new(service: &'static str, limit: usize, reserve: usize) -> Self {
        let labels = [("service", service)];
        Self(Arc::new(Shared {
            limit,
            reserve,
            state: Mutex::default(),
            freed: Notify::new(),
            gauge: metrics::gauge!("http_connections", &labels),
            given_away: metrics::counter!("http_connections_given_away_total", &labels),
        }))
    }

    /// A place for the next connection. Waits while every connection is being worked for, and until
    /// the one whose place it gets has ended.
    pub(super) async fn take(&self) -> Place {
        loop {
            if let Some(place) = self.try_take() {
                return place;
            }
            self.0.freed.notified().await;
        }
    }

    fn try_take(&self) -> Option<Place> {
        let mut state = self.lock();
        let reserved = state.open >= self.0.limit;
        if reserved {
            let none_left = state.reserved >= self.0.reserve;
            let first = state.waiting.first_key_value().map(|(ticket, id)| (*ticket, *id));
            // One of the reserve makes room only for another of the reserve.
            match first.filter(|((reserve, _), _)| none_left || !reserve) {
                // That one's place is for this one.
                _ if state.leaving > 0 => return None,
                Some((ticket, id)) => {
                    state.give_away(ticket, id);
                    self.0.given_away.increment(1);
                    return None;
                }
                None if none_left => return None,
                None => {}
            }
        }
        *state.count(reserved) += 1;
        state.next += 1;
        let (id, notice) = (state.next, Arc::default());
        let seat = Seat { reserved, leaving: false, ticket: None, notice: Arc::clone(&notice) };
        state.seats.insert(id, seat);
        self.0.gauge.increment(1.0);
        Some(Place { places: self.clone(), id, reserved, notice })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is the client's turn on this one. It may be given away from now on.
    pub(super) fn wait(&self, id: u64) {
        let mut state = self.lock();
        state.next += 1;
        let next = state.next;
        let Some(seat) = state.seats.get_mut(&id).filter(|seat| !seat.leaving) else { return };
        let ticket = (seat.reserved, next);
        let before = seat.ticket.replace(ticket);
        state.waiting.insert(ticket, id);
        if let Some(before) = before {
            state.waiting.remove(&before);
        }
        drop(state);
        // Whoever is to come may have this one.
        self.0.freed.notify_one();
    }

    /// It is ours. One that was given away at that moment is kept, and another one is looked for.
    pub(super) fn work(&self, id: u64) {
        let mut state = self.lock();
        let Some(seat) = state.seats.get_mut(&id) else { return };
        let (ticket, was_leaving) = (seat.ticket.take(), mem::take(&mut seat.leaving));
        if let Some(ticket) = ticket {
            state.waiting.remove(&ticket);
        }
        if was_leaving {
            state.leaving -= 1;
            drop(state);
            self.0.freed.notify_one();
        }
    }
}

impl State {
    fn count(&mut self, reserved: bool) -> &mut usize {
        if reserved { &mut self.reserved } else { &mut self.open }
    }

    fn give_away(&mut self, ticket: Ticket, id: u64) {
        self.waiting.remove(&ticket);
        if let Some(seat) = self.seats.get_mut(&id) {
            (seat.ticket, seat.leaving) = (None, true);
            self.leaving += 1;
            seat.notice.notify_one();
        }
    }
}

/// A connection's place. Dropped, it is free.
pub(super) struct Place {
    places: Places,
    id: u64,
    reserved: bool,
    notice: Arc<Notify>,
}

impl Place {
    pub(super) fn places(&self) -> &Places {
        &self.places
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn is_reserved(&self) -> bool {
        self.reserved
    }

    /// Resolves when somebody else is to have it: not while it is worked for.
    pub(super) async fn given_away(&self) {
        while !self.is_leaving() {
            self.notice.notified().await;
        }
    }

    fn is_leaving(&self) -> bool {
        self.places.lock().seats.get(&self.id).is_some_and(|seat| seat.leaving)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.places.lock();
        *state.count(self.reserved) -= 1;
        if let Some(seat) = state.seats.remove(&self.id) {
            state.leaving -= usize::from(seat.leaving);
            if let Some(ticket) = seat.ticket {
                state.waiting.remove(&ticket);
            }
        }
        drop(state);
        self.places.0.gauge.decrement(1.0);
        self.places.0.freed.notify_one();
    }
}
