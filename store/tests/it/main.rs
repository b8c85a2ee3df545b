//! What Store promises its users, held to it over HTTP on a real PostgreSQL, in front of a real
//! Order, Warehouse and Warranty.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

/// Order with its Warehouse and its Warranty, as its own tests have them.
#[allow(dead_code, reason = "Order's own tests use the rest")]
#[path = "../../../order/tests/it/world.rs"]
mod systems;

mod admission;
mod claims;
mod degraded;
mod identity;
mod operators;
mod orders;
mod outage;
mod plumbing;
mod purchases;
mod refunds;
mod repeats;
mod schema;
mod world;
