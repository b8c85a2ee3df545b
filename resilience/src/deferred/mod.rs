//! Calls that are made later, and never lost.
//!
//! PostgreSQL is the ledger: what was deferred is a row, committed in the caller's own transaction,
//! and ends as `done` or `parked`, whatever dies.

mod call;
mod database;
mod handler;
mod ledger;
#[cfg(feature = "rabbitmq")]
pub mod rabbitmq;

use diesel_migrations::{EmbeddedMigrations, embed_migrations};

pub use call::Deferral;
pub use database::{Database, DatabaseError, Work};
pub use handler::{Attempt, Handler, HandlerError};

/// The ledger's schema: run it before the service's own migrations, or with them.
pub static MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations");
