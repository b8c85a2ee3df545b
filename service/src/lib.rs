//! The plumbing that the four services share: configuration, boot, the database's one door, the
//! error envelope, input checking, idempotency, tombstones, health, and graceful shutdown.
//!
//! No domain word lives here: what an order or a warranty is, only its own service knows. A service
//! reads its configuration ([`config`]), builds a [`boot::Base`], hangs its routes on it and calls
//! [`boot::serve`]; the rest of a request's way is the same everywhere and is written once, in
//! [`pipeline`].
//!
//! | module | what it is |
//! |---|---|
//! | [`access`] | who is let in: tokens of services and operators |
//! | [`identity`] | who a user is, where that is asked for |
//! | [`config`] | variables over a file over defaults, with errors that name the variable |
//! | [`cli`] | `serve`, `migrate`, `revert`, `seed`, `health`, `doctor`, `openapi`: the commands of a service's binary |
//! | [`database_url`] | where the database is, and how it proves that it is that one |
//! | [`boot`] | from configuration to a served router, and back out on SIGTERM |
//! | [`db`] | all blocking database work goes through [`db::Db::run`] |
//! | [`deferred`] | from configuration to what makes calls later |
//! | [`saga`] | from a request to a saga, and from the failure of a peer to what follows for one |
//! | [`failure`] | one error type, one envelope |
//! | [`answer`] | what an operation answers, in a form that can be remembered |
//! | [`input`] | paths, queries and bodies, checked field by field |
//! | [`idempotency`] | what `Idempotency-Key` promises |
//! | [`tombstone`] | ids whose effect was undone, and the lock that makes that exact |
//! | [`pipeline`] | what every request passes: ids, deadline, body limit, detached writes, envelope |
//! | [`peer`] | from configuration to a client of another service, and from its errors to ours |
//! | `headers` | what an answer tells a browser not to do with it |
//! | [`health`] | `/manage/health` |
//! | [`client`] | being a user, for tests and drills |
//! | [`probe`] | asking a service from outside |
//! | [`doctor`] | what is wrong, in one line each |
//! | [`manage`] | `/manage/access`, `/manage/resilience`, `/manage/overview`, `/manage/deferred` where calls are deferred, and `/manage/sagas` where there are any |
//! | `traffic` | how many requests, and how long they take, for `/manage/overview` |
//! | [`server`] | connections: how many, and how long each may keep us waiting |
//! | `testing` | with the feature of that name: what the tests of every service need |

pub mod access;
pub mod answer;
pub mod boot;
#[cfg(test)]
mod chance;
pub mod cli;
pub mod client;
pub mod config;
pub mod database_url;
pub mod db;
pub mod deferred;
pub mod doctor;
pub mod failure;
mod headers;
pub mod health;
#[cfg(test)]
mod hostile;
pub mod idempotency;
pub mod identity;
pub mod input;
pub mod lifecycle;
pub mod manage;
pub mod migrate;
pub mod observe;
pub mod openapi;
pub mod peer;
pub mod pipeline;
pub mod probe;
pub mod saga;
pub mod server;
pub mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
pub mod tombstone;
mod traffic;

pub use answer::Answer;
pub use db::Db;
pub use failure::{Failure, Result};
