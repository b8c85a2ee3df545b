//! What the door counts, and what of that is shown.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use diesel::connection::{Instrumentation, InstrumentationEvent};

use super::{Db, Inner, Shared};

impl Db {
    /// Hands over what `/metrics` shows.
    pub(crate) fn publish(&self, defers: bool) {
        let Inner { pool, shared, service, .. } = &*self.0;
        let service = ("service", *service);
        metrics::counter!("db_statements_total", &[service]).absolute(self.statements());
        if defers {
            let statements = self.background_statements();
            metrics::counter!("db_background_statements_total", &[service]).absolute(statements);
        }
        let up = if shared.reached.load(Ordering::Relaxed) { 1.0 } else { 0.0 };
        metrics::gauge!("db_up", &[service]).set(up);
        let state = pool.state();
        let busy = state.connections - state.idle_connections;
        for (state, count) in [("in_use", busy), ("idle", state.idle_connections)] {
            let labels = [service, ("state", state)];
            metrics::gauge!("db_pool_connections", &labels).set(f64::from(count));
        }
        metrics::gauge!("db_pool_limit", &[service]).set(f64::from(pool.max_size()));
        let waiting = shared.waiting.load(Ordering::Relaxed);
        metrics::gauge!("db_pool_waiting", &[service]).set(f64::from(waiting));
    }
}

/// Counted for as long as it waits.
pub(super) struct Waiting<'a>(&'a Shared);

impl<'a> Waiting<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        shared.waiting.fetch_add(1, Ordering::Relaxed);
        Self(shared)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts statements, so that a test can hold a route to its number.
pub(super) struct Count(pub(super) Arc<Shared>, pub(super) fn(&Shared) -> &AtomicU64);

impl Instrumentation for Count {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        if matches!(event, InstrumentationEvent::StartQuery { .. }) {
            (self.1)(&self.0).fetch_add(1, Ordering::Relaxed);
        }
    }
}
