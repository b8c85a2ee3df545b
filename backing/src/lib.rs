//! The servers behind the services, run privately: for the launcher, and for tests.
//!
//! | module | what it is |
//! |---|---|
//! | [`postgres`] | a PostgreSQL cluster of one's own, on a port of the loopback interface |
//! | [`rabbitmq`] | a RabbitMQ node of one's own, likewise |
//! | [`Server`] | either of them, running, for callers that may block |
//! | [`certificate`] | what servers of tests prove with who they are |
//! | [`port`] | ports of the loopback interface |
//! | [`process`] | what `/proc` tells about processes |
//!
//! Nothing in here runs as root, and what is ephemeral vanishes with the process that made it,
//! however that ends.

mod account;
pub mod certificate;
mod error;
mod guardian;
pub mod port;
pub mod postgres;
pub mod process;
pub mod rabbitmq;
mod server;

pub use self::error::{Error, Software};
pub use self::server::Server;
