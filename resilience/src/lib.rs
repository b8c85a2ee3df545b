#![doc = include_str!("../README.md")]
#![deny(missing_docs)]

pub mod breaker;
pub mod classify;
pub mod clock;
#[cfg(feature = "pipeline")]
pub mod deadline;
#[cfg(feature = "pipeline")]
pub mod fallback;
#[cfg(feature = "http")]
pub mod http;
pub mod random;
#[cfg(feature = "pipeline")]
pub mod retry;
#[cfg(feature = "pipeline")]
pub mod rollback;
mod sync;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;

pub use breaker::{Breaker, FailurePolicy, Permit, Rejection, Settings, Snapshot, State};
pub use classify::{Classify, Verdict};
pub use clock::{Clock, SystemClock};
#[cfg(feature = "pipeline")]
pub use deadline::{Deadline, InvalidTimeout};
#[cfg(feature = "pipeline")]
pub use fallback::{LastKnown, Remembered};
pub use random::Random;
#[cfg(feature = "pipeline")]
pub use retry::{Delays, RetryPolicy};
#[cfg(feature = "pipeline")]
pub use rollback::{Backlog, Rollback, RolledBack, Undo, UndoError};
