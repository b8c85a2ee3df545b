//! Sagas on a real journal.
//!
//! [`world`] is what the tests stand on: other systems, which lose answers, and a saga over them.
//! [`worker`] is a process of its own that can be killed.

mod attack;
mod course;
mod crashes;
mod operators;
mod races;
mod takeover;
mod trials;
mod worker;
mod world;
