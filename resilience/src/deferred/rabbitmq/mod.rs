//! RabbitMQ carries the deferred calls to whoever is free. The only module that knows lapin.

mod address;
mod line;
mod message;
mod topology;

pub use address::{Address, InvalidAddress};
