//! Sagas on a real journal.
//!
//! [`world`] is what the tests stand on, with other systems, which lose answers ([`systems`]), and a
//! saga over them ([`trip`]).
//! [`worker`] is a process of its own that can be killed.

mod answers;
mod course;
mod courses;
mod crashes;
mod free;
mod metrics;
mod operators;
mod races;
mod systems;
mod takeover;
mod trials;
mod trip;
mod worker;
mod world;
