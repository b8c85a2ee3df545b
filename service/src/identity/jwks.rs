//! Keys that somebody else publishes: fetched in the background, and kept while they can't be.

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use resilience::http::{CallError, Client, Context};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use url::Url;

use super::crypto;

/// How long it is from one fetch to the next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// While nothing is amiss.
    pub(super) refresh: Duration,
    /// After one that failed.
    pub(super) retry: Duration,
    /// At least, where a token names a key that isn't known: anybody can make one.
    pub(super) pause: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            refresh: Duration::from_mins(5),
            retry: Duration::from_secs(2),
            pause: Duration::from_secs(10),
        }
    }
}

/// How long a request waits for a fetch that may bring its key.
const PATIENCE: Duration = Duration::from_millis(400);

/// Keys that are looked at, of a set.
const MOST_KEYS: usize = 64;

/// A key that tokens may be signed by, and by which algorithm. That is the key's to say: a token that
/// says otherwise is none.
#[derive(Clone, Debug)]
pub(super) struct Key {
    id: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
}

/// What the set holds that can be used here.
#[derive(Debug)]
struct Keys(Vec<Key>);

/// What came of asking for a key.
#[derive(Debug)]
pub(super) enum Found {
    Key(Key),
    /// The set is known, and hasn't it.
    Unknown,
    /// There is no set to be had yet.
    Nothing,
}

#[derive(Clone, Debug)]
pub(super) struct Jwks {
    seen: watch::Receiver<Seen>,
    wake: Arc<Notify>,
    pause: Duration,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    /// The last set that could be used.
    keys: Option<Arc<Keys>>,
    /// When the last fetch ended, however.
    last: Option<Instant>,
}

impl Jwks {
    /// Fetches for as long as somebody holds it.
    pub(super) fn follow(client: Client, address: Url, pace: Pace) -> Self {
        let (sender, seen) = watch::channel(Seen::default());
        let wake = Arc::new(Notify::new());
        let woken = Arc::clone(&wake);
        tokio::spawn(async move {
            tokio::select! {
                () = fetch_on(&client, &address, pace, &sender, &woken) => {}
                () = sender.closed() => {}
            }
        });
        Self { seen, wake, pause: pace.pause }
    }

    /// The key of this id, or the only one where a token names none.
    pub(super) async fn find(&self, id: Option<&str>) -> Found {
        let mut seen = self.seen.clone();
        let (found, last) = {
            let now = seen.borrow_and_update();
            (look_up(now.keys.as_deref(), id), now.last)
        };
        let fetched = last.is_some_and(|last| last.elapsed() < self.pause);
        if fetched || matches!(found, Found::Key(_)) {
            return found;
        }
        self.wake.notify_one();
        let _ = tokio::time::timeout(PATIENCE, seen.changed()).await;
        look_up(seen.borrow().keys.as_deref(), id)
    }
}

async fn fetch_on(
    client: &Client,
    address: &Url,
    pace: Pace,
    seen: &watch::Sender<Seen>,
    woken: &Notify,
) {
    loop {
        let fetched = fetch(client, address).await;
        let mut next = pace.refresh;
        seen.send_modify(|seen| {
            seen.last = Some(Instant::now());
            match fetched {
                Ok(keys) if !keys.0.is_empty() => seen.keys = Some(Arc::new(keys)),
                Ok(_) => {
                    tracing::warn!("the set of keys at USER_JWKS_URL has none that can be used");
                    next = pace.retry;
                }
                Err(error) => {
                    tracing::warn!(%error, "the keys at USER_JWKS_URL can't be fetched");
                    next = pace.retry;
                }
            }
        });
        let (ended, due) = (Instant::now(), Instant::now() + next);
        // Whoever has not seen that fetch yet may ask for it once more.
        let asked_for = async {
            woken.notified().await;
            while ended.elapsed() < pace.pause {
                woken.notified().await;
            }
        };
        let _ = tokio::time::timeout_at(due, asked_for).await;
    }
}

fn look_up(keys: Option<&Keys>, id: Option<&str>) -> Found {
    let Some(Keys(keys)) = keys else { return Found::Nothing };
    let key = match (id, &keys[..]) {
        (None, [only]) => Some(only),
        (None, _) => None,
        (Some(id), all) => all.iter().find(|key| key.id.as_deref() == Some(id)),
    };
    key.cloned().map_or(Found::Unknown, Found::Key)
}

/// What is published (RFC 7517). One that can't be read must not hide the others.
#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

async fn fetch(client: &Client, address: &Url) -> Result<Keys, CallError> {
    let mut request = client.get(address.path());
    for (name, value) in address.query_pairs() {
        request = request.query(&name, &value);
    }
    Ok(request.fetch::<Set>(&Context::new()).await?.body.into())
}

/// How many of what is published can be used.
pub(super) fn usable(published: &[u8]) -> usize {
    serde_json::from_slice::<Set>(published).map_or(0, |set| Keys::from(set).0.len())
}

impl From<Set> for Keys {
    fn from(published: Set) -> Self {
        Self(published.keys.into_iter().take(MOST_KEYS).filter_map(Key::read).collect())
    }
}

impl Key {
    fn read(published: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(published).ok()?;
        let is_for_signatures =
            matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature));
        let algorithm = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => Algorithm::RS256,
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
                Algorithm::ES256
            }
            _ => return None,
        };
        let agreed = match jwk.common.key_algorithm {
            None => true,
            Some(KeyAlgorithm::RS256) => algorithm == Algorithm::RS256,
            Some(KeyAlgorithm::ES256) => algorithm == Algorithm::ES256,
            Some(_) => false,
        };
        let decoding = DecodingKey::from_jwk(&jwk).ok()?;
        let usable = is_for_signatures && agreed && crypto::is_usable(algorithm, &decoding);
        usable.then_some(Self { id: jwk.common.key_id, algorithm, decoding })
    }
}
