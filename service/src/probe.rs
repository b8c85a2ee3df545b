//! Asking a service something, wherever it is: one request, bounded in time, on a connection of its own.
//! What fails says where on the way: finding the host, reaching it, TLS, or the answer.
//!
//! For whoever looks at services from outside: the launcher, its commands, a container's health check,
//! [`doctor`](crate::doctor). Services call each other through [`peer`](crate::peer).

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use axum::body::Bytes;
use http::header::{AUTHORIZATION, HOST, HeaderMap};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use openssl::asn1::Asn1Time;
use openssl::x509::X509;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use url::{Host, Url};

/// Readiness asks the database, and is answered within 500 ms by contract.
const READY: Duration = Duration::from_secs(1);

/// For each of finding a host, connecting to it, and TLS.
const STAGE: Duration = Duration::from_secs(2);

/// Bytes of an answer that are read: lists of operators are long.
const LONGEST: usize = 16 * 1024 * 1024;

/// Does `GET /manage/health/ready` answer 200 there, within a second? Of a service that listens on all
/// addresses, the loopback interface is asked.
pub async fn ready(address: SocketAddr) -> bool {
    let probe = Probe::to(reachable(address));
    let answer = timeout(READY, probe.get("/manage/health/ready", None)).await;
    matches!(answer, Ok(Ok(heard)) if heard.status == StatusCode::OK)
}

/// Where whoever listens there is asked on this machine.
pub(crate) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// A service that can be asked. It shows its address without what a password could be in.
#[derive(Clone)]
pub struct Probe {
    url: Url,
    /// How long it may take to answer once it is reached.
    limit: Duration,
}

/// An answer.
#[derive(Debug)]
pub struct Heard {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// All of its body.
    pub body: Bytes,
    /// Whole days until the certificate expires that the server has shown, where it has.
    pub certificate_days: Option<i32>,
    /// Whether it was this machine that answered.
    pub loopback: bool,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum Unheard {
    /// The host's name leads nowhere.
    #[error("the name {0} isn't found")]
    Name(String),
    /// Nobody takes connections there.
    #[error("no connection: {}", .0.kind())]
    Connect(io::Error),
    /// Somebody does, and doesn't prove to be who was asked for, or speaks no TLS.
    #[error("TLS fails: {0}")]
    Tls(String),
    /// Somebody takes connections, and says nothing.
    #[error("it takes connections and doesn't answer within {} s", .0.as_secs())]
    Silent(Duration),
    /// What it says is no HTTP, or breaks off.
    #[error("its answer can't be read as HTTP")]
    Garbled,
}

impl Probe {
    /// At an address with `http` or `https`, and a host. What else is in it but a path is left out.
    pub fn new(mut url: Url) -> Self {
        // They fail where there is no host: then there is none of them either.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.set_query(None);
        url.set_fragment(None);
        Self { url, limit: Duration::from_secs(4) }
    }

    /// Without TLS, at this address.
    pub fn to(address: SocketAddr) -> Self {
        Self::new(Url::parse(&format!("http://{address}")).expect("an address is one in a URL"))
    }

    /// With so much time for an answer, instead of 4 s.
    #[must_use]
    pub fn patient(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// Whether what is sent can be read on its way.
    pub(crate) fn is_plain(&self) -> bool {
        self.url.scheme() != "https"
    }

    /// What it answers to `GET`.
    ///
    /// # Errors
    /// When it doesn't.
    pub async fn get(&self, target: &str, authorization: Option<&str>) -> Result<Heard, Unheard> {
        self.ask("GET", target, authorization).await
    }

    /// What it answers to a request without a body. `authorization` is the value of that header.
    ///
    /// # Errors
    /// When it doesn't.
    pub async fn ask(
        &self,
        method: &str,
        target: &str,
        authorization: Option<&str>,
    ) -> Result<Heard, Unheard> {
        let host = self.url.host().map(|host| host.to_owned());
        let host = host.ok_or_else(|| Unheard::Name(String::new()))?;
        let stream = self.connect(&host).await?;
        let loopback = stream.peer_addr().is_ok_and(|peer| peer.ip().to_canonical().is_loopback());
        let target = format!("{}{target}", self.url.path().trim_end_matches('/'));
        let mut request = Request::builder().method(method).uri(target);
        let authority = &self.url[url::Position::BeforeHost..url::Position::AfterPort];
        request = request.header(HOST, authority);
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.body(Empty::new()).map_err(|_| Unheard::Garbled)?;
        let mut heard = if self.is_plain() {
            self.exchange(stream, request).await?
        } else {
            let stream = encrypted(&host, stream).await?;
            let certificate = stream.get_ref().peer_certificate().ok().flatten();
            let days = certificate.and_then(|found| days_left(&found.to_der().ok()?));
            let heard = self.exchange(stream, request).await?;
            Heard { certificate_days: days, ..heard }
        };
        heard.loopback = loopback;
        Ok(heard)
    }

    async fn connect(&self, host: &Host) -> Result<TcpStream, Unheard> {
        let port = self.url.port_or_known_default().unwrap_or(80);
        let unknown = || Unheard::Name(host.to_string());
        let addresses: Vec<SocketAddr> = match host {
            Host::Ipv4(ip) => vec![(*ip, port).into()],
            Host::Ipv6(ip) => vec![(*ip, port).into()],
            Host::Domain(name) => match timeout(STAGE, lookup_host((name.as_str(), port))).await {
                Ok(Ok(found)) => found.collect(),
                Ok(Err(_)) | Err(_) => return Err(unknown()),
            },
        };
        if addresses.is_empty() {
            return Err(unknown());
        }
        let late = |_| Unheard::Connect(io::ErrorKind::TimedOut.into());
        let stream = timeout(STAGE, TcpStream::connect(&addresses[..])).await.map_err(late)?;
        stream.map_err(Unheard::Connect)
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        request: Request<Empty<Bytes>>,
    ) -> Result<Heard, Unheard> {
        let answer = async {
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            let answer = async {
                let (head, body) = sender.send_request(request).await?.into_parts();
                let body = Limited::new(body, LONGEST).collect().await?.to_bytes();
                Ok((head, body))
            };
            tokio::pin!(connection);
            // It may end before its last answer is taken.
            tokio::select! {
                biased;
                answer = answer => answer,
                Err(error) = &mut connection => Err(error.into()),
            }
        };
        let answer: Result<_, Box<dyn std::error::Error + Send + Sync>> =
            timeout(self.limit, answer).await.map_err(|_| Unheard::Silent(self.limit))?;
        let (head, body) = answer.map_err(|_| Unheard::Garbled)?;
        Ok(Heard {
            status: head.status,
            headers: head.headers,
            body,
            certificate_days: None,
            loopback: false,
        })
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.url.as_str().trim_end_matches('/'))
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Probe").field(&self.to_string()).finish()
    }
}

/// By the system's authorities, or those of `SSL_CERT_FILE`, as services hold each other to them.
async fn encrypted(
    host: &Host,
    stream: TcpStream,
) -> Result<tokio_native_tls::TlsStream<TcpStream>, Unheard> {
    let failed = |error: native_tls::Error| Unheard::Tls(short(&error.to_string()));
    let connector = native_tls::TlsConnector::new().map_err(failed)?;
    let connector = tokio_native_tls::TlsConnector::from(connector);
    // A certificate names an IPv6 address without brackets.
    let name = host.to_string();
    let name = name.trim_matches(['[', ']']);
    let connected = timeout(STAGE, connector.connect(name, stream)).await;
    connected.map_err(|_| Unheard::Tls("no answer".to_owned()))?.map_err(failed)
}

/// OpenSSL's errors are a path through its sources: the reason is in the fifth field, and what is
/// wrong with a certificate is at the end in parentheses.
fn short(error: &str) -> String {
    let reason = error.split(':').nth(4).unwrap_or(error).trim();
    let detail = error.rsplit_once(" (").and_then(|(_, tail)| tail.strip_suffix(')'));
    match detail {
        Some(detail) => format!("{reason} ({detail})"),
        None => reason.to_owned(),
    }
}

fn days_left(der: &[u8]) -> Option<i32> {
    let certificate = X509::from_der(der).ok()?;
    let now = Asn1Time::days_from_now(0).ok()?;
    Some(now.diff(certificate.not_after()).ok()?.days)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    async fn answered(answer: &'static str) -> bool {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let read = stream.read(&mut request).await.unwrap();
            assert!(request[..read].starts_with(b"GET /manage/health/ready HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        tokio::join!(ready(address), server).0
    }

    #[tokio::test]
    async fn only_a_200_is_ready() {
        assert!(answered("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await);
        assert!(!answered("HTTP/1.1 503 Service Unavailable\r\n\r\n").await);
        assert!(!answered("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{").await);
        assert!(!answered("").await);
    }

    #[tokio::test]
    async fn nobody_listening_is_not_ready() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert!(!ready(address).await);
    }

    #[test]
    fn who_listens_everywhere_is_asked_on_loopback() {
        for (listens, asked) in [
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("10.0.0.7:80", "10.0.0.7:80"),
        ] {
            assert_eq!(reachable(listens.parse().unwrap()), asked.parse().unwrap());
        }
    }

    #[tokio::test]
    async fn what_fails_says_where_on_the_way() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = async |address: &str, limit: u64| {
            let probe = Probe::new(Url::parse(address).unwrap());
            let probe = probe.patient(Duration::from_millis(limit));
            probe.get("/", None).await.unwrap_err()
        };
        // The kernel takes the connection: nobody is there to answer.
        let silent = asked(&format!("http://127.0.0.1:{port}"), 50).await;
        assert!(matches!(silent, Unheard::Silent(_)), "{silent:?}");
        let unknown = asked("http://nobody.invalid", 50).await;
        assert!(matches!(unknown, Unheard::Name(_)), "{unknown:?}");
        let garbling = async {
            let mut kept = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.write_all(b"SSH-2.0-OpenSSH\r\n\r\n").await;
                kept.push(stream);
            }
        };
        tokio::select! {
            () = garbling => {}
            () = async {
                let garbled = asked(&format!("http://127.0.0.1:{port}"), 5000).await;
                assert!(matches!(garbled, Unheard::Garbled), "{garbled:?}");
                let plain = asked(&format!("https://127.0.0.1:{port}"), 5000).await;
                assert!(matches!(plain, Unheard::Tls(_)), "{plain:?}");
            } => {}
        }
        drop(listener);
        let refused = asked(&format!("http://127.0.0.1:{port}"), 50).await;
        assert_eq!(refused.to_string(), "no connection: connection refused");
    }

    #[test]
    fn an_address_shows_no_password() {
        let probe = Probe::new(Url::parse("https://u:geheim@h/shop/?token=geheim#geheim").unwrap());
        assert_eq!(probe.to_string(), "https://h/shop");
        assert!(!format!("{probe:?}").contains("geheim"));
    }

    #[test]
    fn an_error_of_openssl_is_its_reason() {
        let error = "error:0A000086:SSL routines:tls_post_process_server_certificate:certificate \
                     verify failed:../ssl/statem/statem_clnt.c:1889: (self-signed certificate)";
        assert!(short(error).ends_with("(self-signed certificate)"), "{}", short(error));
        assert_eq!(short("anything else"), "anything else");
    }
}
