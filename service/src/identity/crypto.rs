//! Signatures of users' tokens, checked by the OpenSSL that is in the process anyway: without this,
//! `jsonwebtoken` would bring a second library of them. Nothing is signed here.
//!
//! The only module that knows `openssl` as a verifier of signatures.

use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use openssl::bn::{BigNum, BigNumContext};
use openssl::ec::{EcGroup, EcKey, EcPoint};
use openssl::ecdsa::EcdsaSig;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::memcmp;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private, Public};
use openssl::rsa::Rsa;
use openssl::sha::sha256;
use openssl::sign::{Signer, Verifier};

/// Bits that an RSA key has at least (RFC 7518, 3.3).
const SHORTEST_RSA: u32 = 2048;

/// Bytes of each of the two numbers of an ES256 signature.
const COORDINATE: usize = 32;

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
    verifier_factory: verifier,
    key_utils: KeyUtils::new_unimplemented(),
};

/// Has `jsonwebtoken` check signatures here. Any number of times.
pub(super) fn install() {
    // The second time it is there already.
    let _ = PROVIDER.install_default();
}

/// Whether it is a key that signatures can be checked by. A weak one is none.
pub(super) fn is_usable(algorithm: Algorithm, key: &DecodingKey) -> bool {
    Key::read(algorithm, key).is_ok()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the type of the provider's field")]
fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    let key = Key::read(*algorithm, key)?;
    Ok(Box::new(Check { algorithm: *algorithm, key }))
}

struct Check {
    algorithm: Algorithm,
    key: Key,
}

enum Key {
    Hs256(PKey<Private>),
    Rs256(PKey<Public>),
    Es256(EcKey<Public>),
}

impl Key {
    fn read(algorithm: Algorithm, key: &DecodingKey) -> Result<Self, Error> {
        let unfit = |_: ErrorStack| Error::from(ErrorKind::InvalidKeyFormat);
        match (algorithm, key.kind()) {
            (Algorithm::HS256, DecodingKeyKind::SecretOrDer(secret)) => {
                PKey::hmac(secret).map(Self::Hs256).map_err(unfit)
            }
            (Algorithm::RS256, DecodingKeyKind::RsaModulusExponent { n, e }) => {
                let key = rsa(n, e).map_err(unfit)?;
                if key.bits() < SHORTEST_RSA {
                    return Err(ErrorKind::InvalidKeyFormat.into());
                }
                Ok(Self::Rs256(key))
            }
            (Algorithm::ES256, DecodingKeyKind::SecretOrDer(point)) => {
                p256(point).map(Self::Es256).map_err(unfit)
            }
            _ => Err(ErrorKind::InvalidAlgorithm.into()),
        }
    }

    fn is_signed(&self, message: &[u8], signature: &[u8]) -> Result<bool, ErrorStack> {
        match self {
            Self::Hs256(key) => {
                let mut signer = Signer::new(MessageDigest::sha256(), key)?;
                let own = signer.sign_oneshot_to_vec(message)?;
                Ok(own.len() == signature.len() && memcmp::eq(&own, signature))
            }
            Self::Rs256(key) => {
                Verifier::new(MessageDigest::sha256(), key)?.verify_oneshot(signature, message)
            }
            Self::Es256(key) => {
                if signature.len() != 2 * COORDINATE {
                    return Ok(false);
                }
                let (r, s) = signature.split_at(COORDINATE);
                let [r, s] = [BigNum::from_slice(r)?, BigNum::from_slice(s)?];
                EcdsaSig::from_private_components(r, s)?.verify(&sha256(message), key)
            }
        }
    }
}

fn rsa(n: &[u8], e: &[u8]) -> Result<PKey<Public>, ErrorStack> {
    let [n, e] = [BigNum::from_slice(n)?, BigNum::from_slice(e)?];
    PKey::from_rsa(Rsa::from_public_components(n, e)?)
}

/// An uncompressed point; OpenSSL refuses one that isn't on the curve.
fn p256(point: &[u8]) -> Result<EcKey<Public>, ErrorStack> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    let mut context = BigNumContext::new()?;
    let point = EcPoint::from_bytes(&group, point, &mut context)?;
    EcKey::from_public_key(&group, &point)
}

impl signature::Verifier<Vec<u8>> for Check {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        match self.key.is_signed(message, signature) {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(signature::Error::new()),
        }
    }
}

impl JwtVerifier for Check {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
