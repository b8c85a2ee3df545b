#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

pub mod breaker;
pub mod clock;
pub mod deadline;
pub mod fallback;
#[cfg(feature = "http")]
pub mod http;
pub mod retry;
pub mod rollback;

pub use breaker::{Breaker, BreakerBuilder, FailurePolicy, Permit, Rejection, Snapshot, State};
pub use clock::{Clock, ManualClock, SystemClock};
pub use deadline::{Deadline, InvalidTimeout};
pub use fallback::{LastKnown, Remembered};
pub use retry::{Delays, RetryPolicy};
pub use rollback::{Backlog, Rollback, RolledBack, Undo, UndoError};
