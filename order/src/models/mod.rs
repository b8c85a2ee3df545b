//! Its rows, and every query on them.

mod order_row;
mod running_return;

pub use order_row::OrderRow;
pub use running_return::{Claimed, RunningReturn};
