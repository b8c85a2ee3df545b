//! What Order needs to know.

use std::time::Duration;

use service::access::Callers;
use service::config::{BaseConfig, Reader};
use service::deferred::DeferredConfig;
use service::peer::PeerConfig;

/// The variables of [`BaseConfig`] (port 8380) and of [`PeerConfig`] for `WAREHOUSE` and `WARRANTY`
/// (`WAREHOUSE_TIMEOUT_MS` and `WARRANTY_TIMEOUT_MS` 500), and of [`DeferredConfig`].
#[derive(Clone, Debug)]
pub struct Config {
    /// What every service needs.
    pub base: BaseConfig,
    /// Holds the items.
    pub warehouse: PeerConfig,
    /// Holds the warranties.
    pub warranty: PeerConfig,
    /// How what can't be undone or completed at once is done later.
    pub deferred: DeferredConfig,
}

impl Config {
    /// Reads all of it, so that all that is wrong is said at once.
    pub fn read(reader: &mut Reader) -> Option<Self> {
        let base = BaseConfig::read(reader, order_api::NAME, order_api::PORT, Callers::Services);
        let known = base.as_ref();
        let warehouse =
            PeerConfig::read(reader, known, warehouse_api::NAME, warehouse_api::PORT, 500);
        let warranty = PeerConfig::read(reader, known, warranty_api::NAME, warranty_api::PORT, 500);
        // A call that times out and its undo that does too must leave time for the answer.
        let both = warehouse.timeout.max(warranty.timeout) * 2 + Duration::from_millis(100);
        PeerConfig::check_nesting(
            reader,
            known,
            "twice the longer of WAREHOUSE_TIMEOUT_MS and WARRANTY_TIMEOUT_MS, and 100 ms,",
            both,
        );
        let deferred = DeferredConfig::read(reader);
        Some(Self { base: base?, warehouse, warranty, deferred })
    }
}
