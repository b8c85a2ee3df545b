//! Its rows, and every query on them.

mod order_item;
mod stock;

pub use order_item::OrderItem;
pub use stock::Stock;
