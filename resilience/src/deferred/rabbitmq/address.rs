//! Where the broker is.

use std::fmt;
use std::str::FromStr;

use lapin::uri::{AMQPScheme, AMQPUri};
use url::{Host, Url};

/// Seconds. Silence for twice as long is the end of a connection: a broker that is frozen, or whose
/// network is gone, is noticed within ten seconds.
const HEARTBEAT: u16 = 5;

/// Where a RabbitMQ is, and as whom to speak to it: `amqp://user:password@host:5672/vhost`.
///
/// With `amqps://` the connection is encrypted, and the broker's certificate is held to the system's
/// certificate authorities. The password never shows in `Debug`, in a log line or in an error.
#[derive(Clone)]
pub struct Address(AMQPUri);

/// Not the address of a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidAddress(&'static str);

impl fmt::Display for InvalidAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not an address like amqp://user:password@host:5672/vhost: {}", self.0)
    }
}

impl std::error::Error for InvalidAddress {}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(address: &str) -> Result<Self, InvalidAddress> {
        // No error of a parser is passed on: it could quote the password.
        let url = Url::parse(address).map_err(|_| InvalidAddress("it can't be parsed"))?;
        if !matches!(url.scheme(), "amqp" | "amqps") {
            return Err(InvalidAddress("it must begin with amqp:// or amqps://"));
        }
        // Left to itself, lapin takes what it can't read for `localhost`.
        let host = match url.host() {
            Some(Host::Domain("")) | None => return Err(InvalidAddress("it names no host")),
            Some(Host::Domain(name)) => name.to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
        };
        let mut uri: AMQPUri =
            address.parse().map_err(|_| InvalidAddress("part of it can't be decoded"))?;
        uri.authority.host = host;
        uri.query.heartbeat = Some(HEARTBEAT);
        Ok(Self(uri))
    }
}

impl Address {
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
    use super::*;

    #[test]
    fn password_shows_nowhere() {
        let address: Address = "amqps://shop:s%2Fecret@broker/live?heartbeat=600".parse().unwrap();
        assert_eq!(address.to_string(), "amqps://broker:5671/live");
        assert!(!format!("{address:?}").contains("ecret"));
        assert!(address.encrypted());
        let uri = address.uri();
        assert_eq!(uri.authority.userinfo.password, "s/ecret");
        assert_eq!(uri.query.heartbeat, Some(HEARTBEAT));
        let error = "amqp://shop:secret@:port/".parse::<Address>().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("secret"));
    }

    #[test]
    fn host_is_the_one_that_was_written() {
        for (address, host) in [
            ("amqp://broker", ("broker", 5672)),
            ("amqp://10.0.0.7:5673/%2f", ("10.0.0.7", 5673)),
            ("amqp://[::1]:5673/live", ("::1", 5673)),
        ] {
            assert_eq!(address.parse::<Address>().unwrap().host(), host, "{address}");
        }
        for wrong in ["", "broker:5672", "http://broker", "amqp:///live", "amqp://b/?heartbeat=x"] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }
}
