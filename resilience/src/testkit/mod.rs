//! For tests, ours and yours: virtual time, a network that breaks, a reference model.
#![doc = include_str!("../../docs/testkit.md")]

mod clock;
#[cfg(feature = "testkit")]
pub mod model;
#[cfg(feature = "testkit")]
mod proxy;

pub use clock::ManualClock;
#[cfg(feature = "testkit")]
pub use proxy::{Act, Counts, Fault, HttpProxy, Proxy, Rule, Seen};
