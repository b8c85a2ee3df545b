//! Whom `https` trusts. The only module that knows `native-tls`, as `transport` does `reqwest`.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use native_tls::{Certificate, Error, TlsConnector};

use super::transport::TransportError;

/// Reading the system's roots is most of what making a transport costs: some 140 certificates are
/// parsed. They are read once per process, and shared.
static SYSTEM: Mutex<Option<TlsConnector>> = Mutex::new(None);

/// The certificate of an authority to trust besides the system's, for a private one.
#[derive(Clone, PartialEq, Eq)]
pub struct RootCertificate {
    der: Vec<u8>,
}

impl RootCertificate {
    /// Reads the first certificate of a text in PEM form.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn from_pem(pem: &[u8]) -> Result<Self, TransportError> {
        let der = Certificate::from_pem(pem).and_then(|certificate| certificate.to_der());
        Ok(Self { der: der.map_err(refused)? })
    }
}

impl fmt::Debug for RootCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootCertificate").finish_non_exhaustive()
    }
}

/// Verifies against the system's roots and these.
pub(super) fn connector(extra_roots: &[RootCertificate]) -> Result<TlsConnector, TransportError> {
    if !extra_roots.is_empty() {
        return build(extra_roots).map_err(refused);
    }
    let mut shared = SYSTEM.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(connector) = &*shared {
        return Ok(connector.clone());
    }
    let connector = build(&[]).map_err(refused)?;
    *shared = Some(connector.clone());
    Ok(connector)
}

fn build(extra_roots: &[RootCertificate]) -> Result<TlsConnector, Error> {
    let mut builder = TlsConnector::builder();
    builder.request_alpns(&["http/1.1"]);
    for root in extra_roots {
        builder.add_root_certificate(Certificate::from_der(&root.der)?);
    }
    builder.build()
}

fn refused(error: Error) -> TransportError {
    TransportError(Box::new(error))
}
