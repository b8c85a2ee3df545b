//! Calls to other services: from configuration to a client, and from its errors to our envelope.

use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderValue, StatusCode};
use resilience::Breaker;
use resilience::http::{CallError, Client, ErrorKind, Transport, TransportConfig};
use resilience::registry::{Key, Registry, RegistryFull};
use url::Url;

use crate::config::{BaseConfig, Reader};
use crate::failure::{Failure, code};
use crate::telemetry;

/// Codes of a 503 that promise that nothing has happened.
const NO_EFFECT: &[&str] = &[code::ROLLED_BACK, code::SHUTTING_DOWN];

/// Codes of a 503 with which a service says that it takes back what it couldn't finish. Mostly for a
/// system further down, which it names then; else for want of time.
const WORKING: &[&str] = &[code::ROLLED_BACK, code::ROLLBACK_PENDING];

/// How another service is called.
///
/// | variable | default | meaning |
/// |---|---|---|
/// | `<NAME>_URL` | `http://127.0.0.1:<its port>` | where it is |
/// | `<NAME>_TIMEOUT_MS` | by caller | longest that one call may take; less than `REQUEST_BUDGET_MS` |
/// | `BREAKER_FAILURES` | 3 | failures in a row that open its breaker |
/// | `BREAKER_OPEN_MS` | 6000 | wait until one call probes |
#[derive(Clone, Debug)]
pub struct PeerConfig {
    /// Its name, as health and error bodies tell it.
    pub name: &'static str,
    /// Where it is.
    pub url: Url,
    /// Longest that one call may take.
    pub timeout: Duration,
    /// Failures in a row that open the breaker.
    pub failures: u32,
    /// How long the breaker stays open before it probes.
    pub open_for: Duration,
}

impl PeerConfig {
    /// Reads the variables of the table above.
    pub fn read(
        reader: &mut Reader,
        base: Option<&BaseConfig>,
        name: &'static str,
        default_port: u16,
        default_timeout: u64,
    ) -> Self {
        let upper = name.to_ascii_uppercase();
        let variable = format!("{upper}_TIMEOUT_MS");
        let timeout = reader.millis(&variable, default_timeout);
        Self::check_nesting(reader, base, &variable, timeout);
        Self {
            name,
            url: reader.service_url(&format!("{upper}_URL"), default_port),
            timeout,
            failures: reader.number("BREAKER_FAILURES", 3, 1..=1000),
            open_for: reader.millis("BREAKER_OPEN_MS", 6000),
        }
    }

    /// A call that may take longer than the request that it serves would never be seen to fail.
    pub fn check_nesting(
        reader: &mut Reader,
        base: Option<&BaseConfig>,
        variable: &str,
        timeout: Duration,
    ) {
        if let Some(base) = base
            && timeout >= base.budget
        {
            reader.problem(format!(
                "{variable} is {} ms and should be less than REQUEST_BUDGET_MS, {} ms",
                timeout.as_millis(),
                base.budget.as_millis()
            ));
        }
    }
}

/// Clients of other services, on connections that they share, with breakers that are registered.
#[derive(Clone, Debug)]
pub struct Peers {
    transport: Transport,
    registry: Registry,
    /// What they let this service in by.
    authorization: Option<HeaderValue>,
}

impl Peers {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// When TLS can't be set up.
    pub(crate) fn new(
        registry: Registry,
        authorization: Option<HeaderValue>,
    ) -> anyhow::Result<Self> {
        let transport = Transport::new(TransportConfig::default())?;
        Ok(Self { transport, registry, authorization })
    }

    /// For all calls to a service whose calls share their fate. `final_codes` are the codes of its
    /// business answers.
    ///
    /// # Errors
    /// When there are more breakers than a process should have.
    pub fn client(
        &self,
        peer: &PeerConfig,
        final_codes: &'static [&'static str],
    ) -> Result<Client, RegistryFull> {
        self.build(&Key::new(peer.name), peer, peer.timeout, final_codes)
    }

    /// For a class of calls with a timeout of its own, and a breaker of its own therefore: what is
    /// slow for a read isn't for a purchase.
    ///
    /// # Errors
    /// As for [`Peers::client`].
    pub fn class(
        &self,
        class: &str,
        peer: &PeerConfig,
        timeout: Duration,
        final_codes: &'static [&'static str],
    ) -> Result<Client, RegistryFull> {
        self.build(&Key::new(peer.name).class(class), peer, timeout, final_codes)
    }

    /// For questions about a service rather than to it: none of them is held back because others failed,
    /// and none says anything about the calls of users.
    pub fn unguarded(&self, peer: &PeerConfig, timeout: Duration) -> Client {
        // A name of its own: how long such questions take is no business of users either.
        let name = format!("{}/manage", peer.name);
        let breaker = Breaker::builder(name.as_str()).consecutive_failures(u32::MAX).build();
        let mut client = Client::builder(name, peer.url.clone())
            .timeout(timeout)
            .breaker(breaker)
            .final_codes(&[code::NOT_FOUND, code::WRONG_STATE, code::FORBIDDEN]);
        if let Some(authorization) = &self.authorization {
            client = client.secret_header(AUTHORIZATION, authorization.clone());
        }
        client.build(&self.transport)
    }

    /// For all calls to a system that is none of ours: it is shown no token, and may be far away.
    ///
    /// # Errors
    /// As for [`Peers::client`], and when TLS can't be set up.
    pub(crate) fn stranger(&self, peer: &PeerConfig) -> anyhow::Result<Client> {
        let config =
            TransportConfig { connect_timeout: peer.timeout, ..TransportConfig::default() };
        let transport = Transport::new(config)?;
        let shy = Self { transport, authorization: None, registry: self.registry.clone() };
        Ok(shy.build(&Key::new(peer.name), peer, peer.timeout, &[])?)
    }

    fn build(
        &self,
        key: &Key,
        peer: &PeerConfig,
        timeout: Duration,
        final_codes: &'static [&'static str],
    ) -> Result<Client, RegistryFull> {
        let breaker = self.registry.breaker(key, |breaker| {
            breaker
                .consecutive_failures(peer.failures)
                .open_for(peer.open_for)
                // Nobody waits longer for a healed system than for one that has just failed.
                .longest_open(peer.open_for)
                // A probe ends with its timeout; one that hangs all the same gives way soon after.
                .probe_lease(timeout * 2)
                .slow_call(timeout)
        })?;
        let mut client = Client::builder(peer.name, peer.url.clone())
            .timeout(timeout)
            .breaker(breaker)
            .final_codes(final_codes)
            .no_effect_codes(NO_EFFECT)
            .working_codes(WORKING)
            .on_attempt(telemetry::traces::inject);
        if let Some(authorization) = &self.authorization {
            client = client.secret_header(AUTHORIZATION, authorization.clone());
        }
        Ok(client.build(&self.transport))
    }
}

/// A business answer is passed on as it is; everything else is a 503 that names the system at
/// fault.
impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        match error.kind() {
            ErrorKind::Refused(refusal) => {
                let code = refusal.code.clone().unwrap_or_else(|| code::NOT_FOUND.to_owned());
                let message = refusal.message.clone().unwrap_or_default();
                Self::new(refusal.status, code, message)
            }
            ErrorKind::DeadlineExceeded | ErrorKind::TimedOut { inherited: true, .. } => {
                Self::deadline_exceeded().with_source(error)
            }
            ErrorKind::Unavailable(refusal)
                if refusal.code.as_deref() == Some(code::DEADLINE_EXCEEDED) =>
            {
                Self::deadline_exceeded().with_source(error)
            }
            // Our own bound, whoever is called.
            ErrorKind::BulkheadFull(_) => Self::unavailable(code::OVERLOADED, error.to_string()),
            _ => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                code::DEPENDENCY_UNAVAILABLE,
                error.to_string(),
            )
            .with_dependency(error.dependency())
            .with_retry_after(error.retry_after()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Tokens;

    #[test]
    fn what_peers_let_this_service_in_by_is_not_shown() {
        let tokens = Tokens::parse("geheim-geheim-geheim-geheim-geheim").unwrap();
        let peers = Peers::new(Registry::new(), tokens.authorization()).unwrap();
        let shown = format!("{peers:?}");
        assert!(shown.contains("authorization") && !shown.contains("geheim"), "{shown}");
    }
}
