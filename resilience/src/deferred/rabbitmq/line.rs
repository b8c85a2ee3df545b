//! One connection to the broker, whose end is bounded whatever the broker does.

use std::fmt;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use lapin::protocol::{AMQPErrorKind, AMQPHardError};
use lapin::tcp::{OwnedTLSConfig, TLSConfig};
use lapin::{AsyncTcpStream, Channel, Connection, ConnectionProperties, ErrorKind, Event};
use tokio::time::timeout;

use super::address::Address;

/// For finding and reaching the host, its TLS included.
const CONNECT: Duration = Duration::from_secs(2);

/// For the whole way to a connection that can be used: a broker that accepts and doesn't answer is
/// as far away as one that doesn't accept.
const OPEN: Duration = Duration::from_secs(5);

/// For any answer: a broker that is frozen is noticed by whoever asks it something.
pub(super) const ANSWER: Duration = Duration::from_secs(5);

/// For a courteous end.
const CLOSE: Duration = Duration::from_millis(500);

/// What went wrong between the broker and us.
#[derive(Debug)]
pub(super) enum Fault {
    /// What the broker or the network said.
    Amqp(lapin::Error),
    /// What we made of it.
    Because(&'static str),
    /// The broker answers, but for the queue of this kind.
    Queue(&'static str),
}

impl Fault {
    /// Whether something has broken inside of the broker: RabbitMQ closes the connection then.
    pub(super) fn is_internal(&self) -> bool {
        let Self::Amqp(error) = self else { return false };
        matches!(error.kind(), ErrorKind::ProtocolError(said)
            if *said.kind() == AMQPErrorKind::Hard(AMQPHardError::INTERNALERROR))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Amqp(error) => error.fmt(f),
            Self::Because(reason) => f.write_str(reason),
            Self::Queue(kind) => write!(f, "the queue of {kind} doesn't answer in time"),
        }
    }
}

impl std::error::Error for Fault {}

impl From<lapin::Error> for Fault {
    fn from(error: lapin::Error) -> Self {
        Self::Amqp(error)
    }
}

/// A second handle of the connection's socket. lapin reads and writes on a thread of its own, which
/// a frozen broker, or one that has blocked us, would keep for ever: dropped, this ends it.
#[derive(Clone, Default)]
struct Socket(Arc<Mutex<Option<TcpStream>>>);

impl Socket {
    fn keep(&self, stream: &impl AsFd) -> std::io::Result<()> {
        let stream = TcpStream::from(stream.as_fd().try_clone_to_owned()?);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
        Ok(())
    }

    fn cut(&self) {
        if let Some(stream) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // It fails when the other side has ended it already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Cuts the socket on the way out, by whichever way that is.
struct Cut(Socket);

impl Drop for Cut {
    fn drop(&mut self) {
        self.0.cut();
    }
}

/// A connection.
pub(super) struct Line {
    connection: Connection,
    socket: Cut,
}

impl Line {
    /// Connects, as the connection of this name in the broker's lists.
    pub(super) async fn open(address: &Address, name: &str) -> Result<Self, Fault> {
        let socket = Cut(Socket::default());
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let runtime = lapin::runtime::default_runtime()?;
        let (keep, target) = (socket.0.clone(), address.clone());
        let connecting = Connection::connector(
            address.uri(),
            runtime,
            async move |_, runtime| {
                let connected = timeout(CONNECT, async {
                    let addresses: Vec<_> = tokio::net::lookup_host(target.host()).await?.collect();
                    let stream = AsyncTcpStream::connect(&runtime, addresses).await?;
                    if let AsyncTcpStream::Plain(stream) = &stream {
                        keep.keep(stream.get_ref())?;
                    }
                    if !target.encrypted() {
                        return Ok(stream);
                    }
                    let tls = OwnedTLSConfig::default();
                    let tls: TLSConfig<'_, '_, '_> = tls.as_ref();
                    let stream = stream.into_tls(target.host().0, tls).await?;
                    // Without a TLS stack compiled in, it would hand the plain stream back.
                    if matches!(stream, AsyncTcpStream::Plain(_)) {
                        return Err(std::io::Error::other("no TLS in this build"));
                    }
                    Ok(stream)
                });
                let timed_out = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
                Ok(connected.await.map_err(timed_out)??)
            },
            properties,
        );
        let connection = timeout(OPEN, connecting)
            .await
            .map_err(|_| Fault::Because("the broker doesn't answer"))??;
        Ok(Self { connection, socket })
    }

    /// A channel, or what keeps us from it.
    pub(super) async fn channel(&self) -> Result<Channel, Fault> {
        within(ANSWER, self.connection.create_channel()).await
    }

    /// What happens to the connection.
    pub(super) fn events(&self) -> BoxStream<'static, Event> {
        self.connection.events_listener().boxed()
    }

    /// Whether it is there still, as far as anybody has noticed.
    pub(super) fn check(&self) -> Result<(), Fault> {
        if self.connection.status().connected() {
            Ok(())
        } else {
            Err(Fault::Because("the connection is closed"))
        }
    }

    /// Says goodbye, where there is somebody to say it to, and ends it.
    pub(super) async fn close(&self) {
        let _ = timeout(CLOSE, self.connection.close(200, "bye".into())).await;
        self.socket.0.cut();
    }
}

/// The answer, unless it takes longer than this.
pub(super) async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = lapin::Result<T>>,
) -> Result<T, Fault> {
    match timeout(limit, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Fault::Because("the broker doesn't answer in time")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::TcpListener;
    use std::thread;
    use std::time::Instant;

    use openssl::asn1::Asn1Time;
    use openssl::ec::{EcGroup, EcKey};
    use openssl::hash::MessageDigest;
    use openssl::nid::Nid;
    use openssl::pkey::PKey;
    use openssl::ssl::{SslAcceptor, SslMethod};
    use openssl::x509::X509;
    use openssl::x509::extension::SubjectAlternativeName;

    use super::*;

    /// lapin's threads in this process.
    fn threads() -> usize {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|name| name.starts_with("lapin")).count()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_broker_that_accepts_and_says_nothing_is_given_up_and_no_thread_stays_with_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let address = Address::parse(&format!("amqp://127.0.0.1:{port}")).unwrap();
        let began = Instant::now();
        assert!(Line::open(&address, "test").await.is_err());
        assert!(began.elapsed() < OPEN + CONNECT, "{:?}", began.elapsed());
        let ended = async {
            while threads() > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(OPEN, ended).await.expect("a thread waits for ever");
    }

    /// A certificate for localhost that it signed itself, and its key.
    fn identity() -> (X509, PKey<openssl::pkey::Private>) {
        let curve = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        let key = PKey::from_ec_key(EcKey::generate(&curve).unwrap()).unwrap();
        let mut draft = X509::builder().unwrap();
        draft.set_version(2).unwrap();
        draft.set_pubkey(&key).unwrap();
        draft.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
        draft.set_not_after(&Asn1Time::days_from_now(1).unwrap()).unwrap();
        let context = draft.x509v3_context(None, None);
        let name = SubjectAlternativeName::new().dns("localhost").build(&context).unwrap();
        draft.append_extension(name).unwrap();
        draft.sign(&key, MessageDigest::sha256()).unwrap();
        (draft.build(), key)
    }

    /// Connects to a TLS server of this identity: what it reads first, if it is trusted.
    async fn greet(certificate: &X509, key: &PKey<openssl::pkey::Private>) -> Option<[u8; 4]> {
        let mut acceptor = SslAcceptor::mozilla_modern_v5(SslMethod::tls()).unwrap();
        acceptor.set_private_key(key).unwrap();
        acceptor.set_certificate(certificate).unwrap();
        let acceptor = acceptor.build();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut greeting = [0; 4];
            acceptor.accept(stream).ok()?.read_exact(&mut greeting).ok()?;
            Some(greeting)
        });
        let address = Address::parse(&format!("amqps://localhost:{port}")).unwrap();
        assert!(Line::open(&address, "test").await.is_err(), "it is no broker");
        server.join().unwrap()
    }

    /// With `SSL_CERT_FILE`, in a process of its own.
    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "run by another test, in a process of its own"]
    async fn process_with_an_authority() {
        let Ok(folder) = std::env::var("RESILIENCE_TEST_TLS") else { return };
        let read = |name| std::fs::read(format!("{folder}/{name}")).unwrap();
        let certificate = X509::from_pem(&read("certificate")).unwrap();
        let key = PKey::private_key_from_pem(&read("key")).unwrap();
        assert_eq!(greet(&certificate, &key).await.as_ref(), Some(b"AMQP"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn amqps_is_encrypted_and_trusts_only_whom_an_authority_vouches_for() {
        let (certificate, key) = identity();
        assert_eq!(greet(&certificate, &key).await, None, "it trusts anybody");
        let folder = std::env::temp_dir().join(format!("amqps-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("certificate"), certificate.to_pem().unwrap()).unwrap();
        std::fs::write(folder.join("key"), key.private_key_to_pem_pkcs8().unwrap()).unwrap();
        let name = "deferred::rabbitmq::line::tests::process_with_an_authority";
        let trusting = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--ignored"])
            .env("RESILIENCE_TEST_TLS", &folder)
            .env("SSL_CERT_FILE", folder.join("certificate"))
            .output()
            .unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        let said = String::from_utf8_lossy(&trusting.stdout);
        assert!(trusting.status.success() && said.contains("1 passed"), "{said}");
    }
}
