//! Deferred calls on a real ledger.
//!
//! [`bed`] is what the tests stand on, [`worker`] a process of its own that can be killed.

mod bed;
mod crashes;
mod faults;
mod gate;
mod leases;
mod operators;
mod outage;
mod outcomes;
mod storm;
mod submit;
mod timing;
mod worker;

pub(crate) use bed::{Connections, connections, eventually};
