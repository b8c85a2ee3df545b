//! For tests, ours and yours: time that is turned by hand.

mod clock;
#[cfg(feature = "testkit")]
pub mod model;
#[cfg(feature = "testkit")]
mod proxy;

pub use clock::ManualClock;
#[cfg(feature = "testkit")]
pub use proxy::{Act, Counts, Fault, HttpProxy, Proxy, Rule, Seen};
