//! For your tests, as for the library's own: time, chance and the network in a test's hands.
#![doc = include_str!("../../docs/testkit.md")]

mod clock;
#[cfg(feature = "testkit")]
pub mod crash;
#[cfg(feature = "testkit")]
pub mod model;
#[cfg(feature = "testkit")]
mod proxy;
#[cfg(all(feature = "testkit", feature = "saga"))]
pub mod saga;

pub use clock::ManualClock;
#[cfg(feature = "testkit")]
pub use proxy::{Act, Counts, Fault, HttpProxy, Proxy, Rule, Seen};
