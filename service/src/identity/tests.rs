//! Which tokens are taken, and what happens while keys can't be had.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Json;
use axum::Router;
use axum::response::IntoResponse;
use axum::routing::get;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, StatusCode};
use proptest::prelude::*;
use resilience::registry::Registry;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::sync::watch;

use super::*;
use crate::chance::cases;
use crate::config::Reader;
use crate::testing::jwt::{SigningKey, base64, claims, unsigned};
use crate::testing::until;

const SECRET: &str = "a secret of more than thirty-two bytes";
const ISSUER: &str = "https://id.example.com";
const AUDIENCE: &str = "store";
const USER: &str = "6d2cb5a0-943c-4b96-9aa6-89eac7bdfd2b";

fn identity(variable: &str, value: &str) -> Identity {
    paced(variable, value, Pace::default())
}

fn paced(variable: &str, value: &str, pace: Pace) -> Identity {
    let variables =
        [(variable, value), ("USER_JWT_ISSUER", ISSUER), ("USER_JWT_AUDIENCE", AUDIENCE)];
    let owned = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut reader = Reader::from_variables(owned).unwrap();
    let config = IdentityConfig::read(&mut reader);
    let config = reader.finish(config).unwrap();
    let own = HeaderValue::from_static("Bearer of-services-alone");
    Identity::paced(&config, &Peers::new(Registry::new(), Some(own)).unwrap(), pace).unwrap()
}

fn by_secret() -> Identity {
    identity("USER_JWT_SECRET", SECRET)
}

fn valid() -> Value {
    claims(ISSUER, AUDIENCE, &USER)
}

fn with(name: &str, value: impl Into<Value>) -> Value {
    let mut claims = valid();
    claims[name] = value.into();
    claims
}

fn without(name: &str) -> Value {
    let mut claims = valid();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

async fn refusal(identity: &Identity, token: &str) -> u16 {
    let refused = identity.verify(Bearer::Presented(token)).await;
    let failure = refused.expect_err(token);
    assert!(!failure.message().contains(token));
    failure.status().as_u16()
}

fn user() -> Uuid {
    USER.parse().unwrap()
}

fn now() -> i64 {
    chrono::Utc::now().timestamp()
}

#[tokio::test]
async fn a_token_signed_with_the_secret_is_its_subject_s() {
    let (identity, key) = (by_secret(), SigningKey::secret(SECRET));
    let leeway = i64::try_from(LEEWAY).unwrap();
    for claims in [
        valid(),
        with("sub", USER.to_uppercase()),
        with("aud", json!(["other", AUDIENCE])),
        with("exp", now() - leeway + 10),
        with("nbf", now() + leeway - 10),
    ] {
        let subject = identity.verify(Bearer::Presented(&key.sign(None, &claims))).await;
        let subject = subject.unwrap_or_else(|refused| panic!("{claims}: {refused}"));
        assert!(subject.is(user()) && !subject.is(Uuid::nil()), "{claims}");
    }
    let nobody = key.sign(None, &with("sub", "somebody@example.com"));
    let nobody = identity.verify(Bearer::Presented(&nobody)).await.unwrap();
    assert!(!nobody.is(user()) && !nobody.is(Uuid::nil()));
}

#[tokio::test]
async fn claims_that_are_missing_over_or_somebody_else_s_are_refused() {
    let (identity, key) = (by_secret(), SigningKey::secret(SECRET));
    let leeway = i64::try_from(LEEWAY).unwrap();
    for claims in [
        without("exp"),
        without("iss"),
        without("aud"),
        without("sub"),
        with("exp", now() - leeway - 5),
        with("exp", "tomorrow"),
        with("exp", Value::Null),
        with("exp", -1),
        with("nbf", now() + leeway + 5),
        with("iss", "https://evil.example.com"),
        with("iss", ""),
        with("aud", "other"),
        with("aud", json!([])),
        with("aud", json!(["other"])),
        with("sub", Value::Null),
        with("sub", 7),
        json!([]),
        json!("x"),
    ] {
        assert_eq!(refusal(&identity, &key.sign(None, &claims)).await, 401, "{claims}");
    }
}

#[tokio::test]
async fn a_token_that_nobody_or_somebody_else_has_signed_is_refused() {
    let (identity, key) = (by_secret(), SigningKey::secret(SECRET));
    for none in ["none", "None", "NONE", "nOnE", ""] {
        assert_eq!(refusal(&identity, &unsigned(&json!({"alg": none}), &valid())).await, 401);
    }
    assert_eq!(refusal(&identity, &unsigned(&json!({"alg": "HS256"}), &valid())).await, 401);
    assert_eq!(refusal(&identity, &unsigned(&json!({}), &valid())).await, 401);
    for other in
        [SigningKey::secret("another secret of at least 32 bytes"), SigningKey::secret("x")]
    {
        assert_eq!(refusal(&identity, &other.sign(None, &valid())).await, 401);
    }
    for other in [SigningKey::rsa(2048), SigningKey::ec()] {
        assert_eq!(refusal(&identity, &other.sign(None, &valid())).await, 401);
        let jwk = json!({"alg": other.algorithm(), "jwk": other.jwk("own")});
        assert_eq!(refusal(&identity, &other.sign_as(&jwk, &valid())).await, 401);
    }
    // Signed with the secret, and by its own account with something else.
    for algorithm in ["HS384", "HS512", "RS256", "ES256", "PS256", "EdDSA", "none"] {
        let head = json!({"alg": algorithm});
        assert_eq!(refusal(&identity, &key.sign_as(&head, &valid())).await, 401, "{algorithm}");
    }
    let critical = json!({"alg": "HS256", "crit": ["b64"], "b64": false});
    assert_eq!(refusal(&identity, &key.sign_as(&critical, &valid())).await, 401);

    let good = key.sign(None, &valid());
    let parts: Vec<_> = good.split('.').collect();
    let forged = base64(with("sub", Uuid::nil().to_string()).to_string().as_bytes());
    for wrong in [
        format!("{}.{forged}.{}", parts[0], parts[2]),
        format!("{}.{}", parts[0], parts[1]),
        format!("{good}."),
        format!(".{good}"),
        good[..good.len() - 1].to_owned(),
        format!("{}.{}.{}", parts[0], parts[1], parts[2].to_lowercase()),
        "..".to_owned(),
        good.repeat(200),
    ] {
        assert_eq!(refusal(&identity, &wrong).await, 401, "{wrong}");
    }
    for bearer in [Bearer::Absent, Bearer::Malformed] {
        assert_eq!(identity.verify(bearer).await.unwrap_err().status().as_u16(), 401);
    }
}

/// Keys that are published on this machine, and how often they were asked for.
struct Publisher {
    url: String,
    keys: watch::Sender<Option<Value>>,
    asked: Arc<AtomicUsize>,
}

impl Publisher {
    /// Without keys it answers 500.
    async fn new(keys: Option<Value>) -> Self {
        let (keys, asked) = (watch::Sender::new(keys), Arc::new(AtomicUsize::new(0)));
        let (shown, count) = (keys.subscribe(), Arc::clone(&asked));
        let answer = async move |headers: HeaderMap| {
            assert!(!headers.contains_key(AUTHORIZATION), "it is none of ours");
            count.fetch_add(1, Ordering::Relaxed);
            match shown.borrow().clone() {
                Some(keys) => Json(keys).into_response(),
                None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            }
        };
        let routes = Router::new().route("/keys/jwks.json", get(answer));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys/jwks.json", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { url, keys, asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

#[tokio::test]
async fn a_token_signed_by_a_published_key_is_taken_by_that_key_s_algorithm_alone() {
    let (rsa, ec, weak) = (SigningKey::rsa(2048), SigningKey::ec(), SigningKey::rsa(1024));
    let mut sealing = rsa.jwk("sealing");
    sealing["use"] = json!("enc");
    let set = json!({"keys": [
        {"kty": "new", "kid": "unheard of"}, 7, rsa.jwk("rsa"), ec.jwk("ec"), weak.jwk("weak"), sealing,
        SigningKey::secret(SECRET).jwk("secret"),
    ]});
    let publisher = Publisher::new(Some(set)).await;
    let identity = identity("USER_JWKS_URL", &publisher.url);
    for (id, key) in [("rsa", &rsa), ("ec", &ec)] {
        let subject = identity.verify(Bearer::Presented(&key.sign(Some(id), &valid()))).await;
        assert!(subject.unwrap().is(user()), "{id}");
    }
    // A public key is no secret, and an id is no other key's.
    let Value::String(modulus) = &rsa.jwk("rsa")["n"] else { unreachable!() };
    let public = SigningKey::secret(modulus);
    let wrong = [
        public.sign(Some("rsa"), &valid()),
        SigningKey::secret(SECRET).sign(Some("secret"), &valid()),
        rsa.sign(Some("ec"), &valid()),
        ec.sign(Some("rsa"), &valid()),
        rsa.sign(Some("sealing"), &valid()),
        weak.sign(Some("weak"), &valid()),
        rsa.sign(None, &valid()),
        SigningKey::rsa(2048).sign(Some("rsa"), &valid()),
        rsa.sign_as(&json!({"alg": "none", "kid": "rsa"}), &valid()),
        unsigned(&json!({"alg": "RS256", "kid": "rsa"}), &valid()),
        rsa.sign(Some("rsa"), &without("exp")),
    ];
    for token in wrong {
        assert_eq!(refusal(&identity, &token).await, 401, "{token}");
    }
    assert_eq!(publisher.asked(), 1, "no token has it ask again so soon");
}

#[tokio::test]
async fn without_keys_nobody_is_refused_or_let_in_and_503_says_who_is_to_blame() {
    let key = SigningKey::ec();
    let publisher = Publisher::new(None).await;
    let identity = identity("USER_JWKS_URL", &publisher.url);
    let token = key.sign(None, &valid());
    let failure = identity.verify(Bearer::Presented(&token)).await.unwrap_err();
    assert_eq!((failure.status().as_u16(), failure.code()), (503, "dependency_unavailable"));
    assert_eq!(failure.dependency(), Some("identity"));
    // Without a token no key is needed to tell.
    assert_eq!(identity.verify(Bearer::Absent).await.unwrap_err().status().as_u16(), 401);

    publisher.keys.send_replace(Some(json!({"keys": [key.jwk("k")]})));
    until(Duration::from_secs(20), "the keys are there by themselves", async || {
        identity.verify(Bearer::Presented(&token)).await.ok()
    })
    .await;
}

/// It is none of our services, and no neighbour: names, TCP and TLS take several ways there and back.
#[tokio::test]
async fn keys_may_be_far_away() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/keys", listener.local_addr().unwrap().port());
    let _identity = identity("USER_JWKS_URL", &url);
    let (mut asker, _) = listener.accept().await.unwrap();
    let begun = Instant::now();
    // It says hello, and waits for the same until it gives up.
    asker.read_to_end(&mut Vec::new()).await.unwrap();
    assert!(begun.elapsed() > FETCH_TIME / 2, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn known_keys_stay_while_there_are_no_new_ones_and_go_when_there_are() {
    const OFTEN: Duration = Duration::from_millis(5);
    let (old, new) = (SigningKey::ec(), SigningKey::rsa(2048));
    let publisher = Publisher::new(Some(json!({"keys": [old.jwk("old")]}))).await;
    let pace = Pace { refresh: OFTEN, retry: OFTEN, pause: Duration::ZERO };
    let identity = paced("USER_JWKS_URL", &publisher.url, pace);
    let [by_old, by_new] = [old.sign(Some("old"), &valid()), new.sign(Some("new"), &valid())];
    let is_taken = async |token: &str| identity.verify(Bearer::Presented(token)).await.is_ok();
    assert!(is_taken(&by_old).await && !is_taken(&by_new).await);
    for useless in [Some(json!({"keys": []})), Some(json!([])), Some(json!({"keys": [7]})), None] {
        publisher.keys.send_replace(useless);
        let asked = publisher.asked();
        until(Duration::from_secs(20), "it has seen that", async || {
            (publisher.asked() >= asked + 3).then_some(())
        })
        .await;
        assert!(is_taken(&by_old).await);
    }
    publisher.keys.send_replace(Some(json!({"keys": [new.jwk("new")]})));
    until(Duration::from_secs(20), "the new key", async || is_taken(&by_new).await.then_some(()))
        .await;
    assert!(!is_taken(&by_old).await, "it was taken away");
}

#[tokio::test]
async fn a_key_that_is_not_known_yet_is_asked_for_at_once() {
    let (old, new) = (SigningKey::ec(), SigningKey::ec());
    let publisher = Publisher::new(Some(json!({"keys": [old.jwk("old")]}))).await;
    let pace = Pace { pause: Duration::ZERO, ..Pace::default() };
    let identity = paced("USER_JWKS_URL", &publisher.url, pace);
    let by_old = old.sign(Some("old"), &valid());
    assert!(identity.verify(Bearer::Presented(&by_old)).await.is_ok());
    publisher.keys.send_replace(Some(json!({"keys": [old.jwk("old"), new.jwk("new")]})));
    let by_new = new.sign(Some("new"), &valid());
    assert!(identity.verify(Bearer::Presented(&by_new)).await.is_ok());
    assert_eq!(publisher.asked(), 2);
}

proptest! {
    #![proptest_config(cases(1_000))]

    #[test]
    fn no_other_bytes_are_a_token(
        any_text in "\\PC{0,200}",
        parts in prop::collection::vec("[A-Za-z0-9_-]{0,60}", 0..5),
        raw in prop::collection::vec(any::<u8>(), 0..60),
        at in any::<prop::sample::Index>(),
        bit in 0_u8..7,
    ) {
        let good = SigningKey::secret(SECRET).sign(None, &valid());
        let mut changed = good.clone().into_bytes();
        let at = at.index(changed.len());
        changed[at] ^= 1 << bit;
        let changed = String::from_utf8(changed).unwrap();
        // The last character of 32 bytes in base64 has bits that mean nothing; they are refused too.
        let head = base64(br#"{"alg":"HS256"}"#);
        let tokens = [
            any_text,
            parts.join("."),
            format!("{head}.{}.{}", base64(&raw), base64(&raw)),
            format!("{}.{head}.{head}", base64(&raw)),
            changed,
            format!("{good}{}", parts.join("")).split_off(1),
        ];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let identity = by_secret();
        for token in tokens {
            let verified = runtime.block_on(identity.verify(Bearer::Presented(&token)));
            prop_assert!(verified.is_err(), "{token}");
        }
    }
}
