//! What Order promises, held to it over HTTP on a real PostgreSQL, between a real Warehouse and a
//! real Warranty.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod claims;
mod explain;
mod operators;
mod orders;
mod outage;
mod plumbing;
mod races;
mod repeats;
mod returns;
mod rollback;
mod sagas;
mod schema;
mod trials;
mod undo;
mod world;
