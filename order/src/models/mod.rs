//! Its rows, and every query on them.

mod order_row;

pub use order_row::OrderRow;
