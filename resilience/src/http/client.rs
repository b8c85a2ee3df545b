use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, HeaderName, HeaderValue, Method};
use tracing::Span;
use url::Url;

use super::classify::ByKind;
use super::error::{CallError, Effect, ErrorKind};
use super::meaning::Codes;
use super::request::{Request, not_made};
use super::transport::Transport;
use crate::breaker::Breaker;
use crate::bulkhead::Bulkhead;
use crate::classify::Classify;
use crate::clock::{Clock, SystemClock};
use crate::pipeline::Pipeline;
use crate::retry::Retry;

/// A client bound to one dependency. Clones are cheap and share everything.
///
/// ```
/// use resilience::http::{Client, Context, Transport, TransportConfig};
/// use url::Url;
///
/// # #[derive(serde::Deserialize)] struct Item { model: String }
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let transport = Transport::new(TransportConfig::default())?;
/// let billing = Client::builder("billing", Url::parse("http://127.0.0.1:8280")?)
///     .final_codes(&["not_found"])
///     .build(&transport);
///
/// let reply = billing.get("/api/v1/items/42").fetch::<Item>(&Context::new()).await?;
/// println!("{}", reply.body.model);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Client {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) name: Arc<str>,
    pub(super) base: Url,
    pub(super) breaker: Breaker,
    pub(super) pipeline: Pipeline,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) classify: Box<dyn Classify<ErrorKind> + Send + Sync>,
    pub(super) timeout: Duration,
    pub(super) codes: Codes,
    pub(super) max_body: usize,
    pub(super) secret: Option<(HeaderName, HeaderValue)>,
    pub(super) on_attempt: Option<OnAttempt>,
    pub(super) transport: Transport,
}

/// Told of each attempt: its span, and the headers that it sends.
pub(super) type OnAttempt = fn(&Span, &mut HeaderMap);

impl Client {
    /// Starts building a client. The name is the dependency's, as users may read it. Paths are
    /// appended to the base address; a query in it is dropped.
    pub fn builder(name: impl Into<String>, base: Url) -> ClientBuilder {
        ClientBuilder {
            name: name.into(),
            base,
            breaker: None,
            bulkhead: None,
            retry: None,
            clock: Arc::new(SystemClock),
            classify: Box::new(ByKind),
            timeout: Duration::from_millis(500),
            codes: Codes::default(),
            max_body: 4 << 20,
            secret: None,
            on_attempt: None,
        }
    }

    /// The dependency's name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The breaker that all its calls go through.
    pub fn breaker(&self) -> &Breaker {
        &self.inner.breaker
    }

    /// Whether a call would be let through now, see [`Breaker::check`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Rejected`], as the call itself would fail.
    pub fn check(&self) -> Result<(), CallError> {
        self.inner.breaker.check().map_err(|no| {
            let (name, kind) = (&self.inner.name, ErrorKind::Rejected(no));
            not_made(name, &kind);
            CallError::new(name, kind, Effect::None)
        })
    }

    /// A GET of this path, which starts with a slash. Anything in it that comes from outside must
    /// be a well-formed segment already; queries go through [`Request::query`].
    pub fn get(&self, path: impl Into<String>) -> Request {
        self.request(Method::GET, path)
    }

    /// A POST to this path, see [`Client::get`].
    pub fn post(&self, path: impl Into<String>) -> Request {
        self.request(Method::POST, path)
    }

    /// A DELETE of this path, see [`Client::get`].
    pub fn delete(&self, path: impl Into<String>) -> Request {
        self.request(Method::DELETE, path)
    }

    /// A request with any method to this path, see [`Client::get`].
    pub fn request(&self, method: Method, path: impl Into<String>) -> Request {
        Request::new(self.clone(), method, &path.into())
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("name", &self.inner.name)
            .field("breaker", &self.inner.breaker)
            .finish_non_exhaustive()
    }
}

/// Settings of a [`Client`]; made by [`Client::builder`].
#[must_use]
pub struct ClientBuilder {
    name: String,
    base: Url,
    breaker: Option<Breaker>,
    bulkhead: Option<Bulkhead>,
    retry: Option<Retry>,
    clock: Arc<dyn Clock>,
    classify: Box<dyn Classify<ErrorKind> + Send + Sync>,
    timeout: Duration,
    codes: Codes,
    max_body: usize,
    secret: Option<(HeaderName, HeaderValue)>,
    on_attempt: Option<OnAttempt>,
}

impl ClientBuilder {
    /// How long an attempt may take, from connecting to the last byte. The default is 500 ms.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The breaker to go through. The default is one with its own defaults, under the client's
    /// name.
    pub fn breaker(mut self, breaker: Breaker) -> Self {
        self.breaker = Some(breaker);
        self
    }

    /// Bounds the calls in flight. The default is no bound.
    pub fn bulkhead(mut self, bulkhead: Bulkhead) -> Self {
        self.bulkhead = Some(bulkhead);
        self
    }

    /// Makes calls again that failed: those whose answer, or its absence, may be another one next
    /// time, and of them only those that are [idempotent](Request::idempotent), or certainly had no
    /// effect. A `Retry-After` is honoured, and an answer that names a system further down is never
    /// repeated. The default is to repeat nothing.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = Some(retry);
        self
    }

    /// Where the time comes from. The default is the [`SystemClock`].
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// What a failed call says about the dependency; one that brought what was asked for is always
    /// a success. The default is [`ByKind`].
    pub fn classify(mut self, classify: impl Classify<ErrorKind> + Send + Sync + 'static) -> Self {
        self.classify = Box::new(classify);
        self
    }

    /// The codes of a 4xx that are answers of the business, final ones. Any other 4xx is taken for
    /// somebody else's. The default is none.
    pub fn final_codes(mut self, codes: &'static [&'static str]) -> Self {
        self.codes.refused = codes;
        self
    }

    /// The codes of a 5xx that promise that nothing has happened. The default is none.
    pub fn no_effect_codes(mut self, codes: &'static [&'static str]) -> Self {
        self.codes.no_effect = codes;
        self
    }

    /// The codes of a 503 with which the service itself works: what it was asked for failed all the
    /// same, for want of time perhaps, and is being taken back. They count as one that names a
    /// system further down does: [`Downstream`](ErrorKind::Downstream). The default is none.
    pub fn working_codes(mut self, codes: &'static [&'static str]) -> Self {
        self.codes.working = codes;
        self
    }

    /// How many bytes of an answer are read; a longer one is unreadable. The default is 4 MiB.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.max_body = bytes;
        self
    }

    /// A header that every request carries, such as `Authorization`, in place of whatever a request
    /// or its context has of that name. It is marked as sensitive: its value is in no log and in no
    /// [`Debug`](fmt::Debug). It is added when a request goes out, so that nothing that is kept of a
    /// call, to make it later, has it. The default is none.
    pub fn secret_header(mut self, name: HeaderName, mut value: HeaderValue) -> Self {
        value.set_sensitive(true);
        self.secret = Some((name, value));
        self
    }

    /// Is told of each attempt before it goes out: its span, `call`, and the headers that it sends, but
    /// for the [secret one](Self::secret_header). So a tracer can have the other side go on with the
    /// trace of that span. The default is to send the headers as they are.
    pub fn on_attempt(mut self, told: fn(&Span, &mut HeaderMap)) -> Self {
        self.on_attempt = Some(told);
        self
    }

    /// The client, on the connections of this transport.
    pub fn build(self, transport: &Transport) -> Client {
        let breaker = self.breaker.unwrap_or_else(|| {
            Breaker::builder(self.name.clone()).clock(Arc::clone(&self.clock)).build()
        });
        let mut pipeline = Pipeline::builder(self.name.clone())
            .breaker(breaker.clone())
            .timeout(self.timeout)
            .clock(Arc::clone(&self.clock));
        if let Some(bulkhead) = self.bulkhead {
            pipeline = pipeline.bulkhead(bulkhead);
        }
        if let Some(retry) = self.retry {
            pipeline = pipeline.retry(retry);
        }
        Client {
            inner: Arc::new(Inner {
                name: self.name.into(),
                base: self.base,
                breaker,
                pipeline: pipeline.build(),
                clock: self.clock,
                classify: self.classify,
                timeout: self.timeout,
                codes: self.codes,
                max_body: self.max_body,
                secret: self.secret,
                on_attempt: self.on_attempt,
                transport: transport.clone(),
            }),
        }
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder").field("name", &self.name).finish_non_exhaustive()
    }
}
