//! What Warehouse needs to know.

use service::access::Callers;
use service::config::{BaseConfig, Reader};
use service::peer::PeerConfig;

/// The variables of [`BaseConfig`] (port 8280) and of [`PeerConfig`] for `WARRANTY`
/// (`WARRANTY_TIMEOUT_MS` 300).
#[derive(Clone, Debug)]
pub struct Config {
    /// What every service needs.
    pub base: BaseConfig,
    /// Decides on claims.
    pub warranty: PeerConfig,
}

impl Config {
    /// Reads all of it, so that all that is wrong is said at once.
    pub fn read(reader: &mut Reader) -> Option<Self> {
        let base =
            BaseConfig::read(reader, warehouse_api::NAME, warehouse_api::PORT, Callers::Services);
        let (name, port) = (warranty_api::NAME, warranty_api::PORT);
        let warranty = PeerConfig::read(reader, base.as_ref(), name, port, 300);
        Some(Self { base: base?, warranty })
    }
}
