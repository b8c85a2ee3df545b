//! What Warehouse promises, held to it over HTTP on a real PostgreSQL.

mod claims;
mod items;
mod outage;
mod plumbing;
mod races;
mod repeats;
mod schema;
mod undo;
mod world;
