//! [breaker]: mod@breaker
//! [classify]: mod@classify
//! [registry]: mod@registry
//! [terms]: mod@terms
#![cfg_attr(
    feature = "pipeline",
    doc = "
[deadline]: mod@deadline
[bulkhead]: mod@bulkhead
[retry]: mod@retry
[fallback]: mod@fallback
[pipeline]: mod@pipeline
"
)]
#![cfg_attr(feature = "deferred", doc = "[deferred]: mod@deferred")]
#![cfg_attr(feature = "http", doc = "[http]: mod@http")]
#![cfg_attr(feature = "metrics", doc = "[metrics]: mod@metrics")]
#![cfg_attr(feature = "saga", doc = "[saga]: mod@saga")]
#![cfg_attr(feature = "rabbitmq", doc = "[rabbitmq]: mod@deferred::rabbitmq")]
#![cfg_attr(feature = "testkit", doc = "[testkit]: mod@testkit")]
#![cfg_attr(feature = "tower", doc = "[tower]: mod@tower")]
#![doc = ""]
// The first definition of a link holds: those above are for rustdoc, those at the end of the README
// for whoever reads it as a file.
#![doc = include_str!("../README.md")]
#![deny(missing_docs)]

pub mod breaker;
#[cfg(feature = "pipeline")]
pub mod bulkhead;
#[cfg(feature = "pipeline")]
pub mod call;
pub mod classify;
pub mod clock;
#[cfg(feature = "pipeline")]
pub mod deadline;
#[cfg(feature = "deferred")]
pub mod deferred;
#[cfg(feature = "pipeline")]
pub mod fallback;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "metrics")]
pub mod metrics;
#[cfg(feature = "pipeline")]
pub mod pipeline;
pub mod random;
pub mod registry;
#[cfg(feature = "pipeline")]
pub mod retry;
#[cfg(feature = "saga")]
pub mod saga;
mod sync;
#[cfg(doc)]
#[doc = include_str!("../docs/terms.md")]
pub mod terms {}
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;
#[cfg(feature = "pipeline")]
mod timer;
#[cfg(feature = "tower")]
pub mod tower;

pub use breaker::{Breaker, FailurePolicy, Permit, Rejection, Settings, Snapshot, State};
#[cfg(feature = "pipeline")]
pub use bulkhead::Bulkhead;
#[cfg(feature = "pipeline")]
pub use call::{Attempt, Call};
pub use classify::{Classify, Verdict};
pub use clock::{Clock, SystemClock};
#[cfg(feature = "pipeline")]
pub use deadline::{Deadline, InvalidTimeout};
#[cfg(feature = "pipeline")]
pub use fallback::{LastKnown, Remembered};
#[cfg(feature = "pipeline")]
pub use pipeline::Pipeline;
pub use random::Random;
pub use registry::Registry;
#[cfg(feature = "pipeline")]
pub use retry::{Backoff, Retry, RetryBudget, Retryable};
