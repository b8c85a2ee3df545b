//! What Store needs to know.

use std::time::Duration;

use service::access::Callers;
use service::config::{BaseConfig, Reader};
use service::deferred::DeferredConfig;
use service::peer::PeerConfig;

use crate::admission::AdmissionConfig;

/// The name by which health tells it.
pub const NAME: &str = "store";

/// The port that it listens on when nothing else is said.
pub const PORT: u16 = 8480;

/// The variables of [`BaseConfig`] (port 8480), and of [`PeerConfig`] for `ORDER`, `WAREHOUSE` and
/// `WARRANTY` (timeouts 400 ms, for reads), of [`DeferredConfig`], and:
///
/// | variable | default | meaning |
/// |---|---|---|
/// | `ORDER_WRITE_TIMEOUT_MS` | 1800 | longest that Order may take for what has an effect |
/// | `MAX_IN_FLIGHT` | 24 | requests that are worked on at a time, a third of them with an effect and the others reads; at least 2 |
/// | `MAX_WAITING` | 96 | requests that may wait for that, shared in the same way |
/// | `RATE_LIMIT_PER_SECOND` | 0 | requests per second of one user; 0 is no limit |
/// | `RATE_LIMIT_BURST` | 50 | how many may come at once, after a pause |
#[derive(Clone, Debug)]
pub struct Config {
    /// What every service needs.
    pub base: BaseConfig,
    /// Knows who bought what.
    pub order: PeerConfig,
    /// Longest that Order may take for what has an effect.
    pub order_writes: Duration,
    /// Knows what the items are.
    pub warehouse: PeerConfig,
    /// Knows what their warranties are.
    pub warranty: PeerConfig,
    /// How what can't be done at once is done later.
    pub deferred: DeferredConfig,
    /// How much is done at a time.
    pub admission: AdmissionConfig,
}

impl Config {
    /// Reads all of it, so that all that is wrong is said at once.
    pub fn read(reader: &mut Reader) -> Option<Self> {
        const WRITES: &str = "ORDER_WRITE_TIMEOUT_MS";
        let base = BaseConfig::read(reader, NAME, PORT, Callers::Users);
        let known = base.as_ref();
        let order = PeerConfig::read(reader, known, order_api::NAME, order_api::PORT, 400);
        let order_writes = reader.millis(WRITES, 1800).max(order.timeout);
        PeerConfig::check_nesting(reader, known, WRITES, order_writes);
        let warehouse =
            PeerConfig::read(reader, known, warehouse_api::NAME, warehouse_api::PORT, 400);
        let warranty = PeerConfig::read(reader, known, warranty_api::NAME, warranty_api::PORT, 400);
        let deferred = DeferredConfig::read(reader);
        let admission = AdmissionConfig::read(reader);
        Some(Self { base: base?, order, order_writes, warehouse, warranty, deferred, admission })
    }
}
