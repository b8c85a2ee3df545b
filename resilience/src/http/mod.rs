//! HTTP calls to one dependency, through its pipeline, within a deadline.
#![doc = include_str!("../../docs/http.md")]
// `transport` is the only module that knows `reqwest`, and `tls` the only one that knows `native-tls`.
// `exchange` is one attempt, and `meaning` what an answer means that isn't what was asked for.

mod classify;
mod client;
mod context;
mod error;
mod exchange;
mod meaning;
mod request;
mod tls;
mod transport;

pub use ::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
pub use classify::ByKind;
pub use client::{Client, ClientBuilder};
pub use context::Context;
pub use error::{CallError, Effect, ErrorKind, Refusal};
pub use request::{Reply, Request};
pub use tls::RootCertificate;
pub use transport::{Transport, TransportConfig, TransportError};
