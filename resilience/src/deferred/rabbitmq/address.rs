//! Where the broker is.

use std::fmt;

use lapin::uri::{AMQPScheme, AMQPUri};
use url::{Host, Url};

/// Seconds. Silence for twice as long is the end of a connection: a broker that is frozen, or whose
/// network is gone, is noticed within ten seconds.
const HEARTBEAT: u16 = 5;

/// The most bytes that a name in the protocol may have.
const SHORT: usize = 255;

/// Where a RabbitMQ is, and as whom to speak to it: `amqp://user:password@host:5672/vhost`.
///
/// With `amqps://` the connection is encrypted, and the broker's certificate is held to the system's
/// certificate authorities. The password shows in no log line and in no error.
#[derive(Clone)]
pub(in crate::deferred) struct Address(AMQPUri);

impl Address {
    /// Reads it. What is wrong otherwise, without the address: it holds a password.
    pub(in crate::deferred) fn parse(address: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("{why}; like amqp://user:password@host:5672/vhost");
        // No error of a parser is passed on: it could quote the password.
        let url = Url::parse(address).map_err(|_| wrong("it is no URL"))?;
        if !matches!(url.scheme(), "amqp" | "amqps") {
            return Err(wrong("it must begin with amqp:// or amqps://"));
        }
        // Left to itself, lapin takes what it can't read for `localhost`.
        let host = match url.host() {
            Some(Host::Domain("")) | None => return Err(wrong("it names no host")),
            Some(Host::Domain(name)) => name.to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
        };
        let mut uri: AMQPUri = address.parse().map_err(|_| wrong("part of it can't be decoded"))?;
        if uri.vhost.len() > SHORT {
            return Err(wrong("its virtual host has too long a name"));
        }
        uri.authority.host = host;
        uri.query.heartbeat = Some(HEARTBEAT);
        Ok(Self(uri))
    }

    pub(super) fn host(&self) -> (&str, u16) {
        (&self.0.authority.host, self.0.authority.port)
    }

    pub(super) fn encrypted(&self) -> bool {
        self.0.scheme == AMQPScheme::AMQPS
    }

    pub(super) fn uri(&self) -> AMQPUri {
        self.0.clone()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uri = &self.0;
        write!(f, "{}://{}:{}/{}", uri.scheme, uri.authority.host, uri.authority.port, uri.vhost)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Address").field(&self.to_string()).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_text_is_an_address_or_refused_and_no_password_shows(
            scheme in "amqps?|http|.{0,5}",
            password in "[A-Z]{30}",
            rest in "[a-z0-9.:\\[\\]]{0,30}(/[!-~]{0,20})?(\\?[!-~]{0,20})?",
        ) {
            let text = format!("{scheme}://user:{password}@{rest}");
            let shown = match Address::parse(&text) {
                Ok(address) => format!("{address} {address:?}"),
                Err(error) => error,
            };
            prop_assert!(!shown.contains(&password), "{}", shown);
        }
    }

    #[test]
    fn password_shows_nowhere() {
        let address = Address::parse("amqps://shop:s%2Fecret@broker/live?heartbeat=600").unwrap();
        assert_eq!(address.to_string(), "amqps://broker:5671/live");
        assert!(!format!("{address:?}").contains("ecret"));
        assert!(address.encrypted());
        let uri = address.uri();
        assert_eq!(uri.authority.userinfo.password, "s/ecret");
        assert_eq!(uri.query.heartbeat, Some(HEARTBEAT));
        let error = Address::parse("amqp://shop:secret@:port/").unwrap_err();
        assert!(!error.contains("secret"));
    }

    #[test]
    fn host_is_the_one_that_was_written() {
        for (address, host) in [
            ("amqp://broker", ("broker", 5672)),
            ("amqp://10.0.0.7:5673/%2f", ("10.0.0.7", 5673)),
            ("amqp://[::1]:5673/live", ("::1", 5673)),
        ] {
            assert_eq!(Address::parse(address).unwrap().host(), host, "{address}");
        }
        for wrong in ["", "broker:5672", "http://broker", "amqp:///live", "amqp://b/?heartbeat=x"] {
            assert!(Address::parse(wrong).is_err(), "{wrong}");
        }
    }
}
