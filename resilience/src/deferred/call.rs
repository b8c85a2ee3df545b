//! What is deferred.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::value::RawValue;
use uuid::Uuid;

use super::handler::Handler;

/// A call to be made later, by the [`Handler`] of its kind.
#[derive(Clone, Debug)]
pub struct Deferral {
    pub(super) id: Uuid,
    pub(super) kind: &'static str,
    pub(super) payload: Box<RawValue>,
    pub(super) context: BTreeMap<String, String>,
    pub(super) delay: Duration,
}

impl Deferral {
    /// A call for this kind of handler. The id is minted by you and is the call's idempotency key:
    /// deferring it twice is deferring it once.
    ///
    /// # Errors
    ///
    /// When the payload can't be serialized.
    pub fn new<H: Handler>(id: Uuid, payload: &H::Payload) -> Result<Self, serde_json::Error> {
        Ok(Self {
            id,
            kind: H::KIND,
            payload: serde_json::value::to_raw_value(payload)?,
            context: BTreeMap::new(),
            delay: Duration::ZERO,
        })
    }

    /// Not before so much time has passed since it was written down, by the database's clock.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// What travels with the call and isn't its payload: trace headers, a request's id.
    #[must_use]
    pub fn with_context(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.context.insert(name.into(), value.into());
        self
    }

    /// Its id.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// The kind of its handler.
    pub fn kind(&self) -> &'static str {
        self.kind
    }
}
