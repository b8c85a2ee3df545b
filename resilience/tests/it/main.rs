//! The library against real sockets, real databases and real brokers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod contract;
mod deferred;
mod effects;
mod examples;
mod failures;
mod http_proxy;
mod layers;
mod metrics;
mod model;
mod pages;
mod proxy;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;
mod recovery;
mod retries;
mod saga;
mod server;
mod subscriber;
mod tls;
mod tower;

use std::time::Duration;

use resilience::http::{Client, Transport, TransportConfig};
use url::Url;

fn transport() -> Transport {
    Transport::new(TransportConfig::default()).expect("a transport")
}

fn client(base: &Url) -> Client {
    Client::builder("billing", base.clone())
        .final_codes(&["not_found", "sold_out"])
        .no_effect_codes(&["rolled_back"])
        .working_codes(&["rolled_back"])
        .build(&transport())
}

/// As [`soon`], for what many do at once.
async fn patiently<T>(event: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_mins(1), event).await.expect("it never happens")
}

/// Bounds the wait for something that is bound to happen: a broken promise fails, and doesn't hang.
async fn soon<T>(event: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), event).await.expect("it never happens")
}
