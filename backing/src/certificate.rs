//! Certificates for tests: an authority of one's own, and servers that it vouches for.
//!
//! Everything here panics where it fails.

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::extension::{BasicConstraints, KeyUsage, SubjectAlternativeName};
use openssl::x509::{X509, X509Builder, X509Name};

/// Who vouches for servers. Its key is forgotten with it.
pub struct Authority {
    certificate: X509,
    key: PKey<Private>,
}

/// What a server proves with who it is, as PEM text.
pub struct Identity {
    /// Its certificate.
    pub certificate: String,
    /// The key of that.
    pub key: String,
}

impl Authority {
    /// A new one, good for a day.
    pub fn new() -> Self {
        expect(Self::make())
    }

    fn make() -> Result<Self, ErrorStack> {
        let key = new_key()?;
        let mut draft = draft("an authority for tests", &key)?;
        draft.append_extension(BasicConstraints::new().critical().ca().build()?)?;
        draft.append_extension(KeyUsage::new().critical().key_cert_sign().build()?)?;
        draft.sign(&key, MessageDigest::sha256())?;
        Ok(Self { certificate: draft.build(), key })
    }

    /// Its certificate, as PEM text: who is given it trusts the authority.
    pub fn pem(&self) -> String {
        expect(self.certificate.to_pem().map(|pem| text(&pem)))
    }

    /// A server that goes by this name.
    pub fn vouch_for(&self, name: &str) -> Identity {
        expect(self.sign(name))
    }

    fn sign(&self, name: &str) -> Result<Identity, ErrorStack> {
        let key = new_key()?;
        let mut draft = draft(name, &key)?;
        draft.set_issuer_name(self.certificate.subject_name())?;
        let context = draft.x509v3_context(Some(&self.certificate), None);
        let names = SubjectAlternativeName::new().dns(name).build(&context)?;
        draft.append_extension(names)?;
        draft.sign(&self.key, MessageDigest::sha256())?;
        let certificate = text(&draft.build().to_pem()?);
        Ok(Identity { certificate, key: text(&key.private_key_to_pem_pkcs8()?) })
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Identity {
    /// A server that nobody vouches for but itself, as small database plans have it.
    pub fn self_signed(name: &str) -> Self {
        expect((|| {
            let key = new_key()?;
            let mut draft = draft(name, &key)?;
            draft.sign(&key, MessageDigest::sha256())?;
            let certificate = text(&draft.build().to_pem()?);
            Ok(Self { certificate, key: text(&key.private_key_to_pem_pkcs8()?) })
        })())
    }
}

fn new_key() -> Result<PKey<Private>, ErrorStack> {
    PKey::from_ec_key(EcKey::generate(&*EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?)?)
}

/// A certificate of this name that isn't signed, issued by itself.
fn draft(name: &str, key: &PKey<Private>) -> Result<X509Builder, ErrorStack> {
    let mut draft = X509::builder()?;
    draft.set_version(2)?;
    let mut serial = BigNum::new()?;
    serial.rand(120, MsbOption::MAYBE_ZERO, false)?;
    draft.set_serial_number(&*serial.to_asn1_integer()?)?;
    draft.set_pubkey(key)?;
    draft.set_not_before(&*Asn1Time::days_from_now(0)?)?;
    draft.set_not_after(&*Asn1Time::days_from_now(1)?)?;
    let mut subject = X509Name::builder()?;
    subject.append_entry_by_nid(Nid::COMMONNAME, name)?;
    let subject = subject.build();
    draft.set_subject_name(&subject)?;
    draft.set_issuer_name(&subject)?;
    Ok(draft)
}

fn text(pem: &[u8]) -> String {
    String::from_utf8_lossy(pem).into_owned()
}

fn expect<T>(result: Result<T, ErrorStack>) -> T {
    result.unwrap_or_else(|error| panic!("test certificate: {error}"))
}
