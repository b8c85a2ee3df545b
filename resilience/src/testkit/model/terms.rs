//! What is said between the model and a test.

use std::time::Duration;

use crate::breaker::State;

/// A call that the model let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(pub(super) usize);

/// How a call ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// [`Permit::success`](crate::Permit::success)
    Success,
    /// [`Permit::failure`](crate::Permit::failure)
    Failure,
    /// [`Permit::ignored`](crate::Permit::ignored)
    Ignored,
    /// The permit is dropped.
    Dropped,
}

/// A call that the model did not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The state that it was refused in.
    pub state: State,
    /// [`Rejection::retry_after`](crate::Rejection::retry_after)
    pub retry_after: Duration,
}

/// What happened; [`EventKind`](crate::breaker::EventKind) without the details.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It opened.
    Opened {
        /// [`State::Closed`], or [`State::HalfOpen`] when a probe failed.
        from: State,
    },
    /// The wait is over: a call probes.
    HalfOpened,
    /// A probe's lease ended: another call probes in its place.
    ProbeReplaced,
    /// A probe succeeded.
    Closed,
    /// [`Model::force_open`](super::Model::force_open)
    ForcedOpen,
    /// [`Model::force_closed`](super::Model::force_closed)
    ForcedClosed,
    /// [`Model::reset`](super::Model::reset)
    Reset,
    /// [`Model::reconfigure`](super::Model::reconfigure)
    Reconfigured,
}
