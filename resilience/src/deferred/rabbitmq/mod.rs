//! RabbitMQ carries the calls.

use std::sync::Arc;

use super::shared::{Broker, Shared};

/// Where the broker is.
#[derive(Clone)]
pub(super) struct Address(String);

impl Address {
    /// An error says what it should look like, and not what it was: it holds a password.
    pub(super) fn parse(address: &str) -> Result<Self, String> {
        if address.starts_with("amqp://") || address.starts_with("amqps://") {
            Ok(Self(address.to_owned()))
        } else {
            Err("it should look like amqp://user:password@host:port/vhost".to_owned())
        }
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Address").field(&self.0.len()).finish()
    }
}

/// Keeps the broker in use until [`Shared::stop`] is cancelled, and returns when what it carries is
/// given back or over. The carrier is to come: until then it says that the broker is away.
pub(super) async fn supervise(shared: Arc<Shared>, _address: Address) {
    shared.set_broker(Broker::Down);
    shared.stop.cancelled().await;
}
