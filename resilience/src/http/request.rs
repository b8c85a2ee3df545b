use std::sync::Arc;
use std::time::Duration;

use ::http::header::{ACCEPT, CONTENT_TYPE};
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;

use super::client::Client;
use super::context::Context;
use super::error::{CallError, Effect, ErrorKind};
use super::exchange::{Effects, Exchange, Fault, Raw, Wanted};
use super::transport::unreadable;
use crate::call::{Call, Idempotency};
use crate::retry::by_error;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const COMPENSATE: HeaderName = HeaderName::from_static("x-compensate");

/// One call, not made yet; from [`Client::get`] and its like.
#[derive(Debug)]
#[must_use = "a request does nothing until it is fetched or executed"]
pub struct Request {
    client: Client,
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Option<Bytes>,
    timeout: Duration,
    expected: Option<StatusCode>,
    idempotent: bool,
    /// Why it can't be sent, found while it was built.
    invalid: Option<String>,
}

/// An answer as it was asked for.
#[derive(Clone, Debug)]
pub struct Reply<T> {
    /// The expected status.
    pub status: StatusCode,
    /// All headers.
    pub headers: HeaderMap,
    /// The body, read from JSON.
    pub body: T,
}

impl Request {
    pub(super) fn new(client: Client, method: Method, path: &str) -> Self {
        let mut url = client.inner.base.clone();
        let whole =
            format!("{}/{}", url.path().trim_end_matches('/'), path.trim_start_matches('/'));
        url.set_path(&whole);
        url.set_query(None);
        url.set_fragment(None);
        let timeout = client.inner.timeout;
        Self {
            client,
            method,
            url,
            headers: HeaderMap::new(),
            body: None,
            timeout,
            expected: None,
            idempotent: false,
            invalid: None,
        }
    }

    /// Adds a parameter to the query, encoded as it has to be.
    pub fn query(mut self, name: &str, value: &str) -> Self {
        self.url.query_pairs_mut().append_pair(name, value);
        self
    }

    /// Sends this as JSON. What can't be written as JSON fails the call with
    /// [`ErrorKind::Invalid`].
    pub fn json(mut self, body: &impl Serialize) -> Self {
        match serde_json::to_vec(body) {
            Ok(bytes) => {
                self.body = Some(bytes.into());
                self.headers.insert(CONTENT_TYPE, JSON);
            }
            Err(error) => self.invalid = Some(format!("the body can't be written: {error}")),
        }
        self
    }

    /// Sends this header, in place of one of the same name, the context's included.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Declares that sending it twice comes to the same as sending it once, because it carries an
    /// id that its caller minted, or whatever else the service knows it again by. Without this, a
    /// request is taken to be idempotent by its method (GET, HEAD, PUT, DELETE, …), and with an
    /// [`idempotency_key`](Self::idempotency_key). It matters to a client that
    /// [retries](super::ClientBuilder::retry).
    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    /// Sends this `Idempotency-Key`, by which the service knows a request again. One that is no
    /// header value, or blank, fails the call with [`ErrorKind::Invalid`].
    pub fn idempotency_key(mut self, key: &str) -> Self {
        match HeaderValue::from_str(key) {
            // A blank one is none to the service, which would act on every repetition.
            Ok(value) if !key.trim().is_empty() => {
                self.headers.insert(IDEMPOTENCY_KEY, value);
            }
            _ => self.invalid = Some("its idempotency key is no header value".to_owned()),
        }
        self
    }

    /// Marks this as the undo of a call whose outcome is unknown: `X-Compensate: true`. The service
    /// then answers as for an undone call also when it has never seen the id, and refuses the call
    /// itself should it arrive later.
    pub fn compensate(self) -> Self {
        self.header(COMPENSATE, HeaderValue::from_static("true"))
    }

    /// How long each attempt at this call may take, in place of the client's timeout.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The one status that is a success: without this, 200 for [`fetch`](Self::fetch) and 204 for
    /// [`execute`](Self::execute).
    pub fn expect(mut self, status: StatusCode) -> Self {
        self.expected = Some(status);
        self
    }

    /// Makes the call, and reads the answer's JSON. An answer without the expected status, of
    /// another type or that can't be read is a failure of the dependency.
    ///
    /// Dropping the future abandons the call.
    pub async fn fetch<T: DeserializeOwned>(self, cx: &Context) -> Result<Reply<T>, CallError> {
        self.call(cx, StatusCode::OK, Wanted::Json, |Raw { status, headers, body }| {
            let body = serde_json::from_slice(&body).map_err(|error| {
                tracing::debug!(%status, %error, "an answer can't be read");
                unreadable()
            })?;
            Ok(Reply { status, headers, body })
        })
        .await
    }

    /// Makes the call; only the answer's status counts, and its body isn't waited for.
    ///
    /// Dropping the future abandons the call.
    pub async fn execute(self, cx: &Context) -> Result<(), CallError> {
        self.call(cx, StatusCode::NO_CONTENT, Wanted::Status, |_| Ok(())).await
    }

    async fn call<R>(
        self,
        cx: &Context,
        default_status: StatusCode,
        wanted: Wanted,
        decode: impl Fn(Raw) -> Result<R, ErrorKind>,
    ) -> Result<R, CallError> {
        let call = Call::new(self.idempotency()).deadline(cx.deadline()).timeout(self.timeout);
        let headers = self.all_headers(cx);
        let Self { client, method, url, body, timeout, expected, invalid, .. } = self;
        let client = &*client.inner;
        if let Some(reason) = invalid {
            return Err(CallError::new(&client.name, ErrorKind::Invalid(reason), Effect::None));
        }
        let expected = expected.unwrap_or(default_status);
        let exchange = Exchange { method, url, headers, body, expected, wanted, timeout };
        let effects = Effects::none();
        let attempt = |attempt| exchange.attempt(client, attempt, &effects, &decode);
        let verdict = |result: &Result<R, Fault>| client.verdict(result);
        let result = client.pipeline.call_with(&verdict, &by_error, call, attempt).await;
        result.map_err(|error| {
            let kind = ErrorKind::from(error);
            not_made(&client.name, &kind);
            CallError::new(&client.name, kind, effects.greatest())
        })
    }

    /// The context's headers, and in place of those of the same name its own.
    fn all_headers(&self, cx: &Context) -> HeaderMap {
        let mut headers = cx.headers().clone();
        headers.insert(ACCEPT, JSON);
        // With `insert`, not `extend`: that one would add to what the context has.
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
        headers
    }

    fn idempotency(&self) -> Idempotency {
        // By RFC 9110 (9.2.2).
        let by_method = self.method.is_idempotent();
        if by_method || self.idempotent || self.headers.contains_key(IDEMPOTENCY_KEY) {
            Idempotency::Idempotent
        } else {
            Idempotency::NotIdempotent
        }
    }
}

/// Nothing went out: there is no attempt, and so no span, that would show it.
#[cfg_attr(not(feature = "metrics"), expect(unused_variables))]
pub(super) fn not_made(dependency: &Arc<str>, kind: &ErrorKind) {
    let why = match kind {
        ErrorKind::Rejected(no) => {
            let (breaker, state) = (no.breaker(), no.state().as_str());
            tracing::debug!(breaker, state, reason = no.reason(), "not let through");
            state
        }
        ErrorKind::BulkheadFull(_) => "full",
        ErrorKind::DeadlineExceeded => "time",
        _ => return,
    };
    #[cfg(feature = "metrics")]
    crate::metrics::not_made(dependency, why);
}
