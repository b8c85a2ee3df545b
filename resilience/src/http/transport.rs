//! Connections and bytes. The only module that knows `reqwest`.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::time::Duration;

use ::http::{HeaderMap, Method, StatusCode};
use bytes::{Bytes, BytesMut};
use url::Url;

use super::error::ErrorKind;
use super::tls::{self, RootCertificate};

/// Settings of a [`Transport`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportConfig {
    /// How long making a connection may take, name look-up and TLS included. Default 250 ms.
    pub connect_timeout: Duration,
    /// How long a connection without work is kept. Default 30 s.
    pub idle_timeout: Duration,
    /// How many connections without work are kept per host. Default 32.
    pub max_idle_per_host: usize,
    /// Authorities that `https` trusts besides the system's. Default none: transports with none
    /// share one reading of the system's roots, which costs some milliseconds once per process.
    pub extra_roots: Vec<RootCertificate>,
}

impl Default for TransportConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_millis(250),
            idle_timeout: Duration::from_secs(30),
            max_idle_per_host: 32,
            extra_roots: Vec::new(),
        }
    }
}

/// The connections, shared by the clients of a process: HTTP/1.1, no proxy, no redirects. `https`
/// goes through the system's TLS library, which verifies the certificate and the name in it. Clones
/// share everything.
#[derive(Clone, Debug)]
pub struct Transport {
    client: reqwest::Client,
    connect_timeout: Duration,
}

/// A [`Transport`] couldn't be made: the system's TLS library refuses to work.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP transport can't be set up")]
pub struct TransportError(#[source] pub(super) Box<dyn StdError + Send + Sync>);

impl Transport {
    /// A transport without connections yet.
    ///
    /// # Errors
    ///
    /// When TLS can't be set up.
    pub fn new(config: TransportConfig) -> Result<Self, TransportError> {
        let TransportConfig { connect_timeout, idle_timeout, max_idle_per_host, extra_roots } =
            config;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::connector(&extra_roots)?)
            .http1_only()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .tcp_nodelay(true)
            .connect_timeout(connect_timeout)
            .pool_idle_timeout(idle_timeout)
            .pool_max_idle_per_host(max_idle_per_host)
            .build()
            .map_err(|error| TransportError(Box::new(error)))?;
        Ok(Self { client, connect_timeout })
    }

    pub(super) async fn send(&self, outgoing: Outgoing) -> Result<Answer, ErrorKind> {
        let Outgoing { method, url, headers, body } = outgoing;
        let mut request = self.client.request(method, url).headers(headers);
        if let Some(body) = body {
            request = request.body(body);
        }
        match request.send().await {
            Ok(response) => Ok(Answer { response }),
            Err(error) => Err(self.explain(&error)),
        }
    }

    fn explain(&self, error: &reqwest::Error) -> ErrorKind {
        log(error);
        if error.is_builder() {
            return ErrorKind::Invalid("it can't be sent over HTTP".to_owned());
        }
        if !error.is_connect() {
            return broken(error);
        }
        ErrorKind::Connect(if error.is_timeout() {
            format!("no connection within {} ms", self.connect_timeout.as_millis())
        } else if error.is_dns() {
            "name not resolved".to_owned()
        } else if io_kind(error) == Some(io::ErrorKind::ConnectionRefused) {
            "connection refused".to_owned()
        } else {
            "connection failed".to_owned()
        })
    }
}

/// What goes out.
pub(super) struct Outgoing {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Bytes>,
}

/// What comes back: the head, and a body that is still to be read.
pub(super) struct Answer {
    response: reqwest::Response,
}

impl Answer {
    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// Reads the body up to `limit` bytes; one that is longer is unreadable. It is never read
    /// beyond that, whatever length was announced.
    pub(super) async fn read(&mut self, limit: usize) -> Result<Bytes, ErrorKind> {
        let mut body = BytesMut::new();
        loop {
            match self.response.chunk().await {
                Ok(None) => return Ok(body.freeze()),
                Ok(Some(chunk)) if chunk.len() > limit - body.len() => {
                    tracing::debug!(limit, "an answer is longer than it may be");
                    return Err(unreadable());
                }
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Err(error) => {
                    log(&error);
                    return Err(broken(&error));
                }
            }
        }
    }
}

pub(super) fn unreadable() -> ErrorKind {
    ErrorKind::Unreadable("answered something unreadable".to_owned())
}

/// What ended an exchange after it had begun. Both kinds are treated alike; the distinction is for
/// whoever reads the reason.
fn broken(error: &reqwest::Error) -> ErrorKind {
    // hyper keeps its kinds to itself; these are the texts of its parser's errors.
    let not_http = sources(error).any(|source| {
        let text = source.to_string();
        ["invalid HTTP", "message head is too large", "Invalid chunk"]
            .iter()
            .any(|start| text.starts_with(start))
    });
    if not_http { unreadable() } else { ErrorKind::Lost("connection lost".to_owned()) }
}

fn sources<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

fn io_kind(error: &reqwest::Error) -> Option<io::ErrorKind> {
    sources(error).find_map(|source| source.downcast_ref::<io::Error>()).map(io::Error::kind)
}

/// Addresses and details go here and nowhere else.
fn log(error: &reqwest::Error) {
    struct Chain<'a>(&'a reqwest::Error);
    impl fmt::Display for Chain<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            for (depth, source) in sources(self.0).enumerate() {
                write!(f, "{}{source}", if depth == 0 { "" } else { ": " })?;
            }
            Ok(())
        }
    }
    tracing::debug!(error = %Chain(error), "HTTP exchange failed");
}
