//! Users' tokens, well-formed or not, and the keys that sign them.

use openssl::base64::encode_block;
use openssl::bn::{BigNum, BigNumContext};
use openssl::ec::{EcGroup, EcKey};
use openssl::ecdsa::EcdsaSig;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::sha::sha256;
use openssl::sign::Signer;
use serde_json::{Value, json};

/// A key that tokens are signed with, and its algorithm.
#[derive(Debug)]
pub enum SigningKey {
    /// HS256.
    Secret(String),
    /// RS256.
    Rsa(PKey<Private>),
    /// ES256.
    Ec(EcKey<Private>),
}

impl SigningKey {
    /// A secret.
    pub fn secret(secret: &str) -> Self {
        Self::Secret(secret.to_owned())
    }

    /// A new RSA key of so many bits.
    ///
    /// # Panics
    /// When OpenSSL can't make one; the other functions likewise.
    pub fn rsa(bits: u32) -> Self {
        let key = Rsa::generate(bits).and_then(PKey::from_rsa);
        Self::Rsa(key.expect("a key"))
    }

    /// A new key on the curve P-256.
    pub fn ec() -> Self {
        Self::Ec(EcKey::generate(&p256()).expect("a key"))
    }

    /// What it says of its algorithm.
    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::Secret(_) => "HS256",
            Self::Rsa(_) => "RS256",
            Self::Ec(_) => "ES256",
        }
    }

    /// As it is published, under this id.
    pub fn jwk(&self, id: &str) -> Value {
        match self {
            Self::Secret(secret) => {
                json!({"kty": "oct", "kid": id, "k": base64(secret.as_bytes())})
            }
            Self::Rsa(key) => {
                let key = key.rsa().expect("an RSA key");
                let [n, e] = [key.n(), key.e()].map(|part| base64(&part.to_vec()));
                json!({"kty": "RSA", "use": "sig", "alg": "RS256", "kid": id, "n": n, "e": e})
            }
            Self::Ec(key) => {
                let [mut x, mut y] =
                    [BigNum::new().expect("a number"), BigNum::new().expect("one")];
                let mut context = BigNumContext::new().expect("a context");
                let point = key.public_key();
                point.affine_coordinates(&p256(), &mut x, &mut y, &mut context).expect("a point");
                // All 32 bytes of it, also where the first is zero (RFC 7518, section 6.2.1.2).
                let [x, y] = [x, y].map(|part| base64(&part.to_vec_padded(32).expect("32 bytes")));
                json!({"kty": "EC", "use": "sig", "crv": "P-256", "kid": id, "x": x, "y": y})
            }
        }
    }

    /// A token with this key's algorithm, and these claims.
    pub fn sign(&self, id: Option<&str>, claims: &Value) -> String {
        let mut head = json!({"typ": "JWT", "alg": self.algorithm()});
        if let Some(id) = id {
            head["kid"] = json!(id);
        }
        self.sign_as(&head, claims)
    }

    /// A token with any head, whatever it says.
    pub fn sign_as(&self, head: &Value, claims: &Value) -> String {
        let [head, claims] = [head, claims].map(|part| base64(part.to_string().as_bytes()));
        let message = format!("{head}.{claims}");
        let signature = self.signature(message.as_bytes()).expect("a signature");
        format!("{message}.{}", base64(&signature))
    }

    fn signature(&self, message: &[u8]) -> Result<Vec<u8>, openssl::error::ErrorStack> {
        match self {
            Self::Secret(secret) => {
                let key = PKey::hmac(secret.as_bytes())?;
                Signer::new(MessageDigest::sha256(), &key)?.sign_oneshot_to_vec(message)
            }
            Self::Rsa(key) => {
                Signer::new(MessageDigest::sha256(), key)?.sign_oneshot_to_vec(message)
            }
            Self::Ec(key) => {
                let signature = EcdsaSig::sign(&sha256(message), key)?;
                let mut bytes = signature.r().to_vec_padded(32)?;
                bytes.extend(signature.s().to_vec_padded(32)?);
                Ok(bytes)
            }
        }
    }
}

/// A token that nobody has signed.
pub fn unsigned(head: &Value, claims: &Value) -> String {
    let [head, claims] = [head, claims].map(|part| base64(part.to_string().as_bytes()));
    format!("{head}.{claims}.")
}

/// Claims that are in order, for a quarter of an hour.
pub fn claims(issuer: &str, audience: &str, subject: &impl ToString) -> Value {
    let expires = chrono::Utc::now().timestamp() + 900;
    json!({"iss": issuer, "aud": audience, "sub": subject.to_string(), "exp": expires})
}

/// As JWTs have it: for URLs, without padding.
pub fn base64(bytes: &[u8]) -> String {
    encode_block(bytes).trim_end_matches('=').replace('+', "-").replace('/', "_")
}

fn p256() -> EcGroup {
    EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("a curve")
}
