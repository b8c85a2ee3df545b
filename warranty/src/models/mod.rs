//! Its rows, and every query on them.

mod close;
mod state;
mod warranty;

pub use close::{Close, Named};
pub use state::State;
pub use warranty::Row;
