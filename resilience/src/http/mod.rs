//! HTTP calls to one dependency, through a [`Pipeline`](crate::pipeline): deadline → bulkhead → retry
//! → breaker → timeout → call.
//!
//! - [`Transport`] holds the connections; the clients share it. The only module that knows
//!   `reqwest`.
//! - [`Client`] is bound to one dependency and one class of calls to it: base address, the stages of
//!   its pipeline, what its codes mean.
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
//! | as many calls in flight as there may be | [`BulkheadFull`](ErrorKind::BulkheadFull) | none | |
//! | less than 1 ms left | [`DeadlineExceeded`](ErrorKind::DeadlineExceeded) | none | |
//! | no connection | [`Connect`](ErrorKind::Connect) | none | failure |
//! | none within the timeout | [`TimedOut`](ErrorKind::TimedOut) | unknown¹ | failure, or ignored where the deadline was the shorter |
//! | connection reset or closed | [`Lost`](ErrorKind::Lost) | unknown¹ | failure |
//! | anything that isn't what it should be | [`Unreadable`](ErrorKind::Unreadable) | unknown¹ | failure |
//! | 4xx with one of the final codes | [`Refused`](ErrorKind::Refused) | none | success |
//! | 409 `idempotency_in_progress` | [`Busy`](ErrorKind::Busy) | unknown | success |
//! | 401 | [`Busy`](ErrorKind::Busy) | none | success |
//! | 429 | [`Busy`](ErrorKind::Busy) | none | failure |
//! | 503 with `X-Failed-Dependency` | [`Downstream`](ErrorKind::Downstream) | unknown² | success |
//! | 503 `deadline_exceeded` | [`Unavailable`](ErrorKind::Unavailable) | unknown² | ignored |
//! | any other 5xx | [`Unavailable`](ErrorKind::Unavailable) | unknown² | failure |
//!
//! ¹ *done* where the answer had begun with the expected status (and, for JSON, its type): the
//! request was carried out, only the rest of the answer was lost, late, too long or unreadable.
//! ² none where the code is one of the client's no-effect codes.
//!
//! An answer with *another* 2xx, or of another type, may come from something in between: its effect
//! is unknown.
//!
//! An error body is a JSON object with a string `code` and a string `message`.
//!
//! # What is sent along
//!
//! The [`Context`]'s headers (the request's id, `traceparent`), `Accept: application/json`, and in
//! `X-Request-Timeout` the milliseconds that the attempt may take: the next hop refuses what it can't
//! finish. [`Request::idempotency_key`] and [`Request::compensate`] add theirs.
//!
//! # What is repeated
//!
//! Nothing, unless the client was given a [`Retry`](ClientBuilder::retry). Then: no connection, a
//! timeout that wasn't the deadline's, a lost or unreadable answer, 409 `idempotency_in_progress`,
//! 429, and 500, 502, 503, 504. Of these only requests that are idempotent by their method, by an
//! [`idempotency_key`](Request::idempotency_key) or because [they say so](Request::idempotent), and
//! others where the effect is certainly *none*. A `Retry-After` is waited for. An answer that names a
//! system further down is never repeated: it would multiply the traffic of a system in trouble.
//!
//! The effect of an error is that of all attempts taken together.
//!
//! *When not to use it*: for downloads and uploads that don't fit into memory, for other content than
//! JSON, or across a proxy: it makes none of these well.

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
