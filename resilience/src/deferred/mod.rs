//! Calls that are made later, and never lost.
//!
//! PostgreSQL is the ledger: what was deferred is a row, committed in the caller's own transaction,
//! and ends as `done` or `parked`, whatever dies.

mod builder;
mod call;
mod combine;
mod database;
mod direct;
mod executor;
mod handle;
mod handler;
mod janitor;
mod kind;
mod ledger;
mod operators;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;
mod runtime;
mod settings;
mod shared;
mod slots;
mod submit;

use diesel_migrations::{EmbeddedMigrations, embed_migrations};

pub use builder::{BuildError, Builder};
pub use call::{Deferral, Hold, defer, hold};
pub use database::{Database, DatabaseError, Work};
pub use handle::Deferred;
pub use handler::{Attempt, Handler, HandlerError};
pub use operators::{Entry, Filter, KindSnapshot, OperatorError, Snapshot, Stage, UnknownStage};
pub use runtime::Runtime;
pub use settings::Settings;
pub use shared::Broker;
pub use submit::{SubmitError, Submitted};

/// The ledger's schema: run it before the service's own migrations, or with them.
pub const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations");
