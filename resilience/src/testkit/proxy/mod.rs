//! Proxies that break the network between a test and a dependency.

mod fault;
mod http;
mod line;
mod message;
mod pipe;
mod rule;
mod tcp;

pub use fault::Fault;
pub use http::{HttpProxy, Seen};
pub use rule::{Act, Rule};
pub use tcp::{Counts, Proxy};
