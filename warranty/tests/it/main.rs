//! What Warranty promises, held to it over HTTP on a real PostgreSQL.

mod claims;
mod outage;
mod periods;
mod plumbing;
mod races;
mod repeats;
mod restore;
mod schema;
mod undo;
mod world;
