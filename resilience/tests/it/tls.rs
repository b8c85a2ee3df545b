//! `https`: who is trusted, and who isn't.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{SslAcceptor, SslMethod};
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509Builder, X509NameBuilder};
use resilience::http::{
    CallError, Client, Context, Effect, ErrorKind, RootCertificate, Transport, TransportConfig,
};
use serde_json::{Value, json};
use url::Url;

/// A certificate and its key.
struct Identity {
    certificate: X509,
    key: PKey<Private>,
}

fn key() -> PKey<Private> {
    let curve = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("a curve");
    PKey::from_ec_key(EcKey::generate(&curve).expect("a key")).expect("a key")
}

/// What every certificate has, for a day.
fn draft(name: &str, serial: u32, key: &PKey<Private>) -> X509Builder {
    let mut subject = X509NameBuilder::new().expect("a name");
    subject.append_entry_by_nid(Nid::COMMONNAME, name).expect("a name");
    let mut draft = X509::builder().expect("a certificate");
    let serial = BigNum::from_u32(serial).and_then(|number| number.to_asn1_integer());
    draft.set_version(2).expect("a version");
    draft.set_serial_number(&serial.expect("a number")).expect("a number");
    draft.set_subject_name(&subject.build()).expect("a name");
    draft.set_pubkey(key).expect("a key");
    draft.set_not_before(&Asn1Time::days_from_now(0).expect("today")).expect("today");
    draft.set_not_after(&Asn1Time::days_from_now(1).expect("tomorrow")).expect("tomorrow");
    draft
}

fn authority(name: &str) -> Identity {
    let key = key();
    let mut draft = draft(name, 1, &key);
    let constraints = BasicConstraints::new().critical().ca().build().expect("an extension");
    draft.append_extension(constraints).expect("an extension");
    let subject = X509NameBuilder::new().and_then(|mut subject| {
        subject.append_entry_by_nid(Nid::COMMONNAME, name)?;
        Ok(subject.build())
    });
    draft.set_issuer_name(&subject.expect("a name")).expect("a name");
    draft.sign(&key, MessageDigest::sha256()).expect("a signature");
    Identity { certificate: draft.build(), key }
}

fn issued(by: &Identity, host: &str) -> Identity {
    let key = key();
    let mut draft = draft("server", 2, &key);
    draft.set_issuer_name(by.certificate.subject_name()).expect("a name");
    let context = draft.x509v3_context(Some(&by.certificate), None);
    let name = SubjectAlternativeName::new().dns(host).build(&context).expect("an extension");
    draft.append_extension(name).expect("an extension");
    draft.sign(&by.key, MessageDigest::sha256()).expect("a signature");
    Identity { certificate: draft.build(), key }
}

/// Answers one request over TLS; ends with the first connection, accepted or not.
fn serve(identity: &Identity) -> (Url, thread::JoinHandle<bool>) {
    let mut acceptor = SslAcceptor::mozilla_modern_v5(SslMethod::tls()).expect("TLS");
    acceptor.set_private_key(&identity.key).expect("a key");
    acceptor.set_certificate(&identity.certificate).expect("a certificate");
    let acceptor = acceptor.build();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let served = thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a connection");
        let Ok(mut stream) = acceptor.accept(stream) else { return false };
        // A client that refuses the certificate says so instead of sending its request.
        let Ok(1..) = stream.read(&mut [0; 4096]) else { return false };
        let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
                      content-length: 7\r\nconnection: close\r\n\r\n[1,2,3]";
        stream.write_all(answer.as_bytes()).is_ok()
    });
    (Url::parse(&format!("https://localhost:{port}")).expect("a URL"), served)
}

/// Calls a server with this identity, and says what came back and whether the server was asked.
async fn call(identity: &Identity, trusted: &[&Identity]) -> (Result<Value, CallError>, bool) {
    let extra_roots = trusted.iter().map(|root| {
        let pem = root.certificate.to_pem().expect("a text");
        RootCertificate::from_pem(&pem).expect("a certificate")
    });
    let config = TransportConfig { extra_roots: extra_roots.collect(), ..Default::default() };
    let transport = Transport::new(config).expect("a transport");
    let (url, served) = serve(identity);
    let client = Client::builder("billing", url).build(&transport);
    let reply = client.get("/").fetch::<Value>(&Context::new()).await;
    let asked = tokio::task::spawn_blocking(|| served.join().expect("no panic"));
    (reply.map(|reply| reply.body), asked.await.expect("no panic"))
}

fn is_refused(outcome: (Result<Value, CallError>, bool)) {
    let (reply, asked) = outcome;
    let error = reply.expect_err("not to be trusted");
    assert!(matches!(error.kind(), ErrorKind::Connect(_)), "{error:?}");
    assert_eq!(error.effect(), Effect::None);
    assert_eq!(error.to_string(), "billing is unavailable: connection failed");
    assert!(!asked, "the request reached a server that isn't trusted");
}

#[tokio::test]
async fn a_server_of_a_trusted_authority_is_called_over_https() {
    let root = authority("ours");
    let (reply, asked) = call(&issued(&root, "localhost"), &[&root]).await;
    assert_eq!(reply.expect("an answer"), json!([1, 2, 3]));
    assert!(asked);
}

#[tokio::test]
async fn a_server_with_another_name_is_refused() {
    let root = authority("ours");
    is_refused(call(&issued(&root, "elsewhere.test"), &[&root]).await);
}

#[tokio::test]
async fn a_server_of_another_authority_is_refused() {
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    is_refused(call(&issued(&theirs, "localhost"), &[&ours]).await);
}

/// The shared connector verifies as one of its own does.
#[tokio::test]
async fn without_roots_of_its_own_a_private_authority_is_refused() {
    is_refused(call(&issued(&authority("ours"), "localhost"), &[]).await);
}

#[test]
fn what_is_no_certificate_is_refused() {
    let error = RootCertificate::from_pem(b"-----BEGIN NONSENSE-----").expect_err("no certificate");
    assert_eq!(error.to_string(), "the HTTP transport can't be set up");
}
