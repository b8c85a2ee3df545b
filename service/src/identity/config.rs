//! Who users are: the variables.

use std::fmt;

use url::{Host, Url};

use crate::config::Reader;

/// Bytes that a secret has at least: as many as its digest (RFC 7518, 3.2).
const SHORTEST_SECRET: usize = 32;

/// Where users' identities are from. Without any of these nobody is asked for one.
///
/// | variable | default | meaning |
/// |---|---|---|
/// | `USER_JWT_SECRET` | none | users' tokens are signed with it, by HS256: at least 32 bytes |
/// | `USER_JWKS_URL` | none | or they are signed by one of the keys there, by RS256 or ES256: an `https` address, or one of this machine |
/// | `USER_JWT_ISSUER` | required with either | their `iss` |
/// | `USER_JWT_AUDIENCE` | required with either | their `aud`, or one of it |
#[derive(Clone)]
pub struct IdentityConfig {
    pub(super) keys: KeySource,
    pub(super) issuer: String,
    pub(super) audience: String,
}

/// Where the keys are from.
#[derive(Clone)]
pub(super) enum KeySource {
    Secret(String),
    Jwks(Url),
}

impl fmt::Debug for IdentityConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = match self.keys {
            KeySource::Secret(_) => "USER_JWT_SECRET",
            KeySource::Jwks(_) => "USER_JWKS_URL",
        };
        f.debug_struct("IdentityConfig").field("keys", &keys).finish_non_exhaustive()
    }
}

impl IdentityConfig {
    /// Where the keys are published, if they are.
    pub(crate) fn published(&self) -> Option<&Url> {
        match &self.keys {
            KeySource::Secret(_) => None,
            KeySource::Jwks(url) => Some(url),
        }
    }

    /// Reads the variables of the table above.
    pub(crate) fn read(reader: &mut Reader) -> Option<Self> {
        const SECRET: &str = "USER_JWT_SECRET";
        const JWKS: &str = "USER_JWKS_URL";
        let names = [SECRET, JWKS, "USER_JWT_ISSUER", "USER_JWT_AUDIENCE"];
        if !names.iter().any(|name| reader.is_given(name)) {
            return None;
        }
        // Half of it is a mistake that would leave the door open.
        let given = [SECRET, JWKS].map(|name| reader.is_given(name));
        if given[0] == given[1] {
            reader.problem(format!("either {SECRET} or {JWKS} should be set with USER_JWT_…"));
        }
        let secret = reader.optional(SECRET, "a secret of at least 32 bytes", |text| {
            (text.len() >= SHORTEST_SECRET).then(|| text.to_owned())
        });
        let address = "an https address such as https://id.example.com/.well-known/jwks.json";
        let address = reader.optional(JWKS, address, |text| {
            let url = Url::parse(text).ok()?;
            let near = match url.host()? {
                Host::Domain(name) => name == "localhost",
                Host::Ipv4(ip) => ip.is_loopback(),
                Host::Ipv6(ip) => ip.is_loopback(),
            };
            let plain = url.username().is_empty() && url.password().is_none();
            // Whoever is in between would otherwise say who everybody is.
            let trusted = url.scheme() == "https" || (url.scheme() == "http" && near);
            (trusted && plain).then_some(url)
        });
        let issuer = "the issuer of users' tokens, as their iss has it";
        let issuer = reader.required("USER_JWT_ISSUER", issuer, |text| Some(text.to_owned()));
        let audience = "what users' tokens are for, as their aud has it";
        let audience = reader.required("USER_JWT_AUDIENCE", audience, |text| Some(text.to_owned()));
        let keys = match (secret, address) {
            (Some(secret), None) => KeySource::Secret(secret),
            (None, Some(url)) => KeySource::Jwks(url),
            _ => return None,
        };
        Some(Self { keys, issuer: issuer?, audience: audience? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: (&str, &str) = ("USER_JWT_SECRET", "geheim-geheim-geheim-geheim-geheim-x");
    const JWKS: (&str, &str) = ("USER_JWKS_URL", "https://id.example.com/jwks.json");
    const ISSUER: (&str, &str) = ("USER_JWT_ISSUER", "https://id.example.com");
    const AUDIENCE: (&str, &str) = ("USER_JWT_AUDIENCE", "store");

    fn read(variables: &[(&str, &str)]) -> Result<Option<IdentityConfig>, String> {
        let owned = variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        let mut reader = Reader::from_variables(owned).unwrap();
        let config = IdentityConfig::read(&mut reader);
        reader.finish(Some(config)).map_err(|error| error.to_string())
    }

    #[test]
    fn identity_is_asked_for_when_it_is_wholly_configured() {
        assert!(read(&[]).unwrap().is_none());
        for keys in [SECRET, JWKS] {
            let config = read(&[keys, ISSUER, AUDIENCE]).unwrap().unwrap();
            assert!(!format!("{config:?}").contains("geheim"));
        }
    }

    #[test]
    fn half_an_identity_does_not_start_open() {
        for half in [
            &[SECRET][..],
            &[ISSUER],
            &[AUDIENCE],
            &[ISSUER, AUDIENCE],
            &[SECRET, ISSUER],
            &[JWKS, AUDIENCE],
            &[SECRET, JWKS, ISSUER, AUDIENCE],
        ] {
            let error = read(half).unwrap_err();
            assert!(error.contains("USER_JWT_") && !error.contains("geheim"), "{error}");
        }
    }

    #[test]
    fn a_short_secret_and_an_address_that_others_can_forge_are_refused_and_not_repeated() {
        for secret in ["geheim", &"g".repeat(31)] {
            let error = read(&[("USER_JWT_SECRET", secret), ISSUER, AUDIENCE]).unwrap_err();
            assert!(error.contains("USER_JWT_SECRET should be") && !error.contains(secret));
        }
        for address in ["http://id.example.com/geheim", "ftp://geheim", "https://u:geheim@h/"] {
            let error = read(&[("USER_JWKS_URL", address), ISSUER, AUDIENCE]).unwrap_err();
            assert!(error.contains("USER_JWKS_URL should be") && !error.contains("geheim"));
        }
        assert!(read(&[("USER_JWKS_URL", "http://127.0.0.1:1/k"), ISSUER, AUDIENCE]).is_ok());
    }
}
