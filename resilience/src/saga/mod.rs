//! Operations that reach into several systems, and are taken back whole when they fail.
#![doc = include_str!("../../docs/saga.md")]

// Inside: `journal` is every statement; `run` is one saga under way, and all that it writes; `back`
// undoes; `takeover` is what happens when whoever ran one has died, and the two kinds of deferred
// calls that end what could not be ended at once. All of them meet in `shared`.

mod back;
mod call;
mod counts;
mod erased;
mod handle;
mod journal;
mod operators;
mod run;
mod settings;
mod shared;
mod step;
mod takeover;

use diesel_migrations::{EmbeddedMigrations, embed_migrations};

pub use call::{Known, Outcome, Stage, Start, StartError, Started, UnknownStage};
pub use erased::Steps;
pub use handle::Sagas;
pub use operators::{Filter, KindSnapshot, SagaEntry, StepEntry};
pub use run::{Committed, Local, Run, Saga, Stop};
pub use settings::Settings;
pub use step::{Action, Effect, Failure, Step};

pub(crate) use shared::Definitions;
pub(crate) use takeover::{handlers, recover};

/// The journal's schema, which stands beside that of the [deferred calls](crate::deferred::MIGRATIONS):
/// run both before the service's own migrations, or with them.
pub const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/saga");
