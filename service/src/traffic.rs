//! How many requests come, how many fail, and how long they take: for whoever looks at the service now.
//!
//! Metrics can only be written, and read by whoever scrapes them: this is what a service knows itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

/// Upper bounds in milliseconds. What takes longer is in a place of its own.
const BOUNDS: [u64; 11] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000];

/// Counts since the start of the process. Clones share everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct Traffic(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    requests: AtomicU64,
    failures: AtomicU64,
    took: [AtomicU64; BOUNDS.len() + 1],
}

/// A service's own requests since its start, without those for operators.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TrafficView {
    /// How many were answered.
    requests: u64,
    /// How many of them with a 5xx.
    failures: u64,
    /// Upper bounds in milliseconds.
    bounds: [u64; BOUNDS.len()],
    /// How many took at most so long, and longer than the bound before; the last ones took longer.
    took: Vec<u64>,
}

impl Traffic {
    /// A request was answered.
    pub(crate) fn count(&self, status: StatusCode, took: Duration) {
        let counts = &self.0;
        counts.requests.fetch_add(1, Ordering::Relaxed);
        if status.is_server_error() {
            counts.failures.fetch_add(1, Ordering::Relaxed);
        }
        let place = BOUNDS.partition_point(|bound| Duration::from_millis(*bound) < took);
        counts.took[place].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn view(&self) -> TrafficView {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        TrafficView {
            requests: read(&self.0.requests),
            failures: read(&self.0.failures),
            bounds: BOUNDS,
            took: self.0.took.iter().map(read).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_counted_in_the_first_place_that_is_long_enough() {
        let traffic = Traffic::default();
        traffic.count(StatusCode::OK, Duration::ZERO);
        traffic.count(StatusCode::NOT_FOUND, Duration::from_millis(2));
        traffic.count(StatusCode::SERVICE_UNAVAILABLE, Duration::from_secs(3));
        let view = traffic.view();
        assert_eq!((view.requests, view.failures), (3, 1));
        assert_eq!(view.took, [1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    }
}
