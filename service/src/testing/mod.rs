//! What the tests of every service need: a served service, a client that can also misbehave, and
//! the table of bad input that every route must withstand. Behind the feature `testing`.
//!
//! ```no_run
//! # async fn test(run: impl FnOnce(tokio::net::TcpListener, service::cli::Shutdown)
//! #     -> std::pin::Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>) {
//! use service::testing::{TestServer, assert_envelope};
//!
//! let server = TestServer::start(run).await;
//! let answer = server.client().get("/nothing").send().await;
//! assert_envelope(&answer, 404, "not_found");
//! server.stop().await;
//! # }
//! ```
//!
//! Everything here panics where it fails, and waits bounded.

pub mod bad_input;
mod client;
pub mod jwt;
pub mod network;
pub mod operator;
pub mod plumbing;
mod server;
pub mod sql;

use std::time::{Duration, Instant};

use uuid::Uuid;

pub use crate::client::{Call, Client, Response};
pub use server::{TestServer, config};

/// Times of Store and Order that a crowded machine keeps: for tests in which no time is a promise.
pub const PATIENT: &[(&str, &str)] = &[
    ("DB_TIMEOUT_MS", "15000"),
    ("REQUEST_BUDGET_MS", "20000"),
    ("ORDER_TIMEOUT_MS", "8000"),
    ("ORDER_WRITE_TIMEOUT_MS", "18000"),
    ("WAREHOUSE_TIMEOUT_MS", "8000"),
    ("WARRANTY_TIMEOUT_MS", "8000"),
    // A breaker that opened on the way closes before a test's patience ends.
    ("BREAKER_OPEN_MS", "300"),
];

/// Asks every few milliseconds until there is something.
///
/// # Panics
/// After `limit`.
pub async fn until<T>(limit: Duration, what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Panics unless this is the envelope with this status and code, complete.
#[track_caller]
pub fn assert_envelope(response: &Response, status: u16, code: &str) {
    if let Err(wrong) = response.envelope(status, code) {
        panic!("{wrong}\n{response:?}");
    }
}

/// Ways to write an id that the contract does not accept.
pub fn wrong_ids() -> Vec<String> {
    let id = Uuid::new_v4();
    let text = id.to_string();
    vec![
        id.simple().to_string(),
        id.braced().to_string(),
        id.urn().to_string(),
        text[1..].to_owned(),
        format!("{text}0"),
        format!("{}g", &text[1..]),
        text.replace('-', "_"),
        "1".to_owned(),
        "null".to_owned(),
        "x".repeat(2000),
        format!("{}\0", &text[1..]),
        format!("{}\u{e9}", &text[2..]),
    ]
}
