//! Calls that are made later, and never lost.
#![doc = include_str!("../../docs/deferred.md")]

// Inside: `ledger` is every statement, `executor` carries one row out and `attempt` makes its call,
// `direct` claims rows where no broker carries them, `janitor` takes back what nobody is at any more,
// `rabbitmq` is the carrier. All of them meet in `shared`.

mod attempt;
mod builder;
mod call;
mod combine;
mod counts;
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
pub mod rabbitmq;
mod runtime;
mod settings;
mod shared;
mod slots;
mod statement;
mod submit;

use diesel_migrations::{EmbeddedMigrations, embed_migrations};

pub use builder::{BuildError, Builder};
pub use call::{Deferral, Hold, defer, defer_all, hold};
pub use database::{Database, DatabaseError, Work};
pub use handle::Deferred;
pub use handler::{Attempt, Handler, HandlerError};
pub use operators::{Entry, Filter, KindSnapshot, OperatorError, Snapshot, Stage, UnknownStage};
pub use runtime::Runtime;
pub use settings::Settings;
pub use shared::Broker;
pub use submit::{SubmitError, Submitted};
#[cfg(feature = "saga")]
pub(crate) use {
    database::{Door, waits},
    handler::storable,
    ledger::{are_open, micros},
    operators::{DISCARDED, find, renew},
    shared::Shared,
    statement::statement,
};

/// The ledger's schema: run it before the service's own migrations, or with them.
pub const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/deferred");
