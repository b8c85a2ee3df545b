//! Deferred calls that RabbitMQ carries, against real nodes that are killed, stopped, frozen and
//! wiped.

mod carrying;
//mod crash;
mod gate;
mod losing;
mod rig;
//mod storm;
