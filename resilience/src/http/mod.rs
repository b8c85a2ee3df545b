//! HTTP calls to one dependency, through its breaker, within a deadline.
//!
//! - [`Transport`] holds the connections; the clients share it. The only module that knows
//!   `reqwest`.
//! - [`Client`] is bound to one dependency: base address, breaker, timeout, what its codes mean.
//! - [`Request`] is one call. It either returns what was asked for, or a [`CallError`] that says
//!   what is known: whose fault, whether anything may have happened, when to come back.
//! - [`Context`] is what a request passes on to all the calls made for it.
//!
//! # What counts as what
//!
//! | Answer | Error | Effect | For the breaker |
//! |---|---|---|---|
//! | the expected status, with a readable body | | | success |
//! | breaker open | [`Rejected`](ErrorKind::Rejected) | none | |
//! | less than 1 ms left | [`DeadlineExceeded`](ErrorKind::DeadlineExceeded) | none | |
//! | no connection | [`Connect`](ErrorKind::Connect) | none | failure |
//! | none within the timeout | [`TimedOut`](ErrorKind::TimedOut) | unknown | failure, or ignored where the deadline was the shorter |
//! | connection reset or closed | [`Lost`](ErrorKind::Lost) | unknown | failure |
//! | anything that isn't what it should be | [`Unreadable`](ErrorKind::Unreadable) | unknown | failure |
//! | 4xx with one of the final codes | [`Refused`](ErrorKind::Refused) | none | success |
//! | 409 `idempotency_in_progress`, 401 | [`Busy`](ErrorKind::Busy) | unknown | success |
//! | 429 | [`Busy`](ErrorKind::Busy) | unknown | failure |
//! | 503 with `X-Failed-Dependency` | [`Downstream`](ErrorKind::Downstream) | unknown¹ | success |
//! | 503 `deadline_exceeded` | [`Unavailable`](ErrorKind::Unavailable) | unknown¹ | ignored |
//! | any other 5xx | [`Unavailable`](ErrorKind::Unavailable) | unknown¹ | failure |
//!
//! ¹ none where the code is one of the client's no-effect codes.
//!
//! An error body is a JSON object with a string `code` and a string `message`.

mod classify;
mod client;
mod context;
mod error;
mod request;
mod tls;
mod transport;

pub use ::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
pub use client::{Client, ClientBuilder};
pub use context::Context;
pub use error::{CallError, Effect, ErrorKind, Refusal};
pub use request::{Reply, Request};
pub use tls::RootCertificate;
pub use transport::{Transport, TransportConfig, TransportError};
