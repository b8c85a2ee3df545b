//! Who a user is: a JWT (RFC 7519) in `Authorization`, where the configuration asks for one.
//!
//! A token is taken when it is signed by a key that was configured, by that key's algorithm, and has
//! the configured issuer and audience, a `sub`, and an `exp` that isn't over; `nbf` counts where there
//! is one. Clocks may differ by [`LEEWAY`] seconds. `jwk`, `jku` and `x5u` in its head are not looked
//! at.
//!
//! What the user of a token may do is the service's to say: it finds the [`Subject`] with the request.

mod config;
mod crypto;
mod jwks;
#[cfg(test)]
#[cfg(feature = "testing")]
mod tests;

use std::fmt;
use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use url::Url;
use uuid::Uuid;

use crate::access::Bearer;
use crate::failure::{Failure, Result, code};
use crate::peer::{PeerConfig, Peers};
pub use config::IdentityConfig;
use config::KeySource;
use jwks::{Found, Jwks, Pace};

/// Seconds by which clocks may differ.
pub const LEEWAY: u64 = 30;

/// The realm of its 401, and the name of where keys are fetched from.
const REALM: &str = "user";
const NAME: &str = "identity";

/// Bytes of a token at most: more isn't read.
const LONGEST: usize = 8 * 1024;

/// How long fetching keys may take.
const FETCH_TIME: Duration = Duration::from_secs(2);

/// How many of the keys that somebody has published can be used.
pub(crate) fn usable_keys(published: &[u8]) -> usize {
    crypto::install();
    jwks::usable(published)
}

/// Whom a valid token is about: nobody, where its `sub` is no UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject(Option<Uuid>);

impl Subject {
    /// Whether it is this user.
    pub fn is(self, user: Uuid) -> bool {
        self.0 == Some(user)
    }
}

/// What tells whether a token is valid.
#[derive(Clone)]
pub(crate) struct Identity {
    keys: Keys,
    issuer: String,
    audience: String,
}

#[derive(Clone)]
enum Keys {
    Secret(DecodingKey),
    Published(Jwks),
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
}

impl Identity {
    /// Begins to fetch the keys, where they are published. In a runtime.
    pub(crate) fn new(config: &IdentityConfig, peers: &Peers) -> anyhow::Result<Self> {
        Self::paced(config, peers, Pace::default())
    }

    fn paced(config: &IdentityConfig, peers: &Peers, pace: Pace) -> anyhow::Result<Self> {
        crypto::install();
        let keys = match &config.keys {
            KeySource::Secret(secret) => Keys::Secret(DecodingKey::from_secret(secret.as_bytes())),
            KeySource::Jwks(address) => {
                let client = peers.stranger(&publisher(address.clone(), pace))?;
                Keys::Published(Jwks::follow(client, address.clone(), pace))
            }
        };
        Ok(Self { keys, issuer: config.issuer.clone(), audience: config.audience.clone() })
    }

    /// Whom the token is about.
    ///
    /// # Errors
    /// 401 when it isn't valid; 503 while there are no keys to tell that by.
    pub(crate) async fn verify(&self, bearer: Bearer<'_>) -> Result<Subject> {
        let token = match bearer {
            Bearer::Presented(token) if token.len() <= LONGEST => token,
            Bearer::Absent => return Err(refused(false, "this takes a user's token")),
            Bearer::Presented(_) | Bearer::Malformed => return Err(invalid()),
        };
        let head = decode_header(token).map_err(|_| invalid())?;
        if head.crit.is_some() {
            // It demands what isn't understood here (RFC 7515, 4.1.11).
            return Err(invalid());
        }
        match &self.keys {
            Keys::Secret(key) => self.check(token, Algorithm::HS256, key),
            Keys::Published(jwks) => match jwks.find(head.kid.as_deref()).await {
                Found::Key(found) => self.check(token, found.algorithm, &found.decoding),
                Found::Unknown => Err(invalid()),
                Found::Nothing => Err(Failure::unavailable(
                    code::DEPENDENCY_UNAVAILABLE,
                    "the keys that users' tokens are signed by can't be had yet",
                )
                .with_dependency(NAME)),
            },
        }
    }

    /// The algorithm is the key's; a token that names another one is none.
    fn check(&self, token: &str, algorithm: Algorithm, key: &DecodingKey) -> Result<Subject> {
        let mut rules = Validation::new(algorithm);
        rules.leeway = LEEWAY;
        rules.validate_nbf = true;
        rules.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        rules.set_issuer(&[&self.issuer]);
        rules.set_audience(&[&self.audience]);
        match decode::<Claims>(token, key, &rules) {
            Ok(valid) => Ok(Subject(Uuid::try_parse(&valid.claims.sub).ok())),
            Err(error) if matches!(error.kind(), ErrorKind::ExpiredSignature) => {
                Err(refused(true, "the user's token has expired"))
            }
            Err(_) => Err(invalid()),
        }
    }
}

fn publisher(mut address: Url, pace: Pace) -> PeerConfig {
    // The client adds the path.
    address.set_path("");
    address.set_query(None);
    address.set_fragment(None);
    PeerConfig {
        name: NAME,
        url: address,
        timeout: FETCH_TIME,
        failures: 3,
        open_for: pace.retry * 3,
    }
}

fn invalid() -> Failure {
    refused(true, "the user's token is not valid")
}

fn refused(sent: bool, message: &str) -> Failure {
    Failure::unauthorized(REALM, sent, message)
}
