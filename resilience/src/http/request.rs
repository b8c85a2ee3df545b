use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::http::header::{ACCEPT, CONTENT_TYPE};
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;

use super::client::{Client, Inner};
use super::context::Context;
use super::error::{CallError, ErrorKind};
use super::meaning;
use super::transport::{Outgoing, unreadable};
use crate::classify::Verdict;
use crate::deadline::Deadline;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const COMPENSATE: HeaderName = HeaderName::from_static("x-compensate");
const REQUEST_TIMEOUT: HeaderName = HeaderName::from_static(Deadline::HEADER);

/// With less than this left, nothing is sent.
const LEAST_TIME: Duration = Duration::from_millis(1);

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

    /// Sends this `Idempotency-Key`. One that is no header value fails the call with
    /// [`ErrorKind::Invalid`].
    pub fn idempotency_key(mut self, key: &str) -> Self {
        match HeaderValue::from_str(key) {
            Ok(value) => {
                self.headers.insert(IDEMPOTENCY_KEY, value);
            }
            Err(_) => self.invalid = Some("its idempotency key is no header value".to_owned()),
        }
        self
    }

    /// Marks this as the undo of a call whose outcome is unknown: `X-Compensate: true`. The service
    /// then answers as for an undone call also when it has never seen the id, and refuses the call
    /// itself should it arrive later.
    pub fn compensate(self) -> Self {
        self.header(COMPENSATE, HeaderValue::from_static("true"))
    }

    /// How long this call may take, in place of the client's timeout.
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
        decode: impl FnOnce(Raw) -> Result<R, ErrorKind>,
    ) -> Result<R, CallError> {
        let expected = self.expected.unwrap_or(default_status);
        let remaining = cx.deadline().map_or(Duration::MAX, Deadline::remaining);
        let limit = self.timeout.min(remaining);
        let inherited = remaining < self.timeout;
        let (client, outgoing) = self.prepare(cx, limit);
        let client = &*client.inner;
        let accepted = AtomicBool::new(false);
        let fail = |kind: ErrorKind| {
            let effect = kind.effect(accepted.load(Ordering::Relaxed), client.no_effect_codes);
            CallError::new(&client.name, kind, effect)
        };

        let outgoing = outgoing.map_err(fail)?;
        if limit < LEAST_TIME {
            return Err(fail(ErrorKind::DeadlineExceeded));
        }
        let permit = client.breaker.acquire().map_err(|no| fail(ErrorKind::Rejected(no)))?;
        #[cfg(feature = "metrics")]
        let begun = tokio::time::Instant::now();
        // The timeout is inside the permit, so that the breaker hears of it.
        let exchange =
            async { decode(exchange(client, outgoing, expected, wanted, &accepted).await?) };
        let result = match tokio::time::timeout(limit, exchange).await {
            Ok(result) => result,
            Err(_) => Err(ErrorKind::TimedOut { limit, inherited }),
        };
        let verdict = match &result {
            Ok(_) => Verdict::Success,
            Err(kind) => client.classify.classify(kind),
        };
        #[cfg(feature = "metrics")]
        crate::metrics::attempt(&client.name, &verdict, begun.elapsed());
        permit.settle(verdict);
        result.map_err(fail)
    }

    fn prepare(self, cx: &Context, limit: Duration) -> (Client, Result<Outgoing, ErrorKind>) {
        let Self { client, method, url, headers: own, body, invalid, .. } = self;
        if let Some(reason) = invalid {
            return (client, Err(ErrorKind::Invalid(reason)));
        }
        let mut headers = cx.headers().clone();
        headers.insert(ACCEPT, JSON);
        // With `insert`, not `extend`: that one would add to what the context has.
        for (name, value) in &own {
            headers.insert(name, value.clone());
        }
        if let Ok(value) = HeaderValue::try_from(Deadline::format(limit)) {
            headers.insert(REQUEST_TIMEOUT, value);
        }
        (client, Ok(Outgoing { method, url, headers, body }))
    }
}

/// What of an answer with the expected status is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Status,
    Json,
}

/// An answer with the expected status, and of the wanted type.
struct Raw {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// One attempt. `accepted` is set once the answer has begun as it should: then the request has had
/// its effect, whatever becomes of the rest.
async fn exchange(
    client: &Inner,
    outgoing: Outgoing,
    expected: StatusCode,
    wanted: Wanted,
    accepted: &AtomicBool,
) -> Result<Raw, ErrorKind> {
    let mut answer = client.transport.send(outgoing).await?;
    let status = answer.status();
    if status != expected {
        return Err(meaning::refusal(answer, client.final_codes, client.max_body).await);
    }
    let headers = answer.headers().clone();
    if wanted == Wanted::Json && !meaning::is_json(&headers) {
        // Something in between may have answered: that says nothing of the effect.
        tracing::debug!(%status, "an answer isn't JSON");
        return Err(unreadable());
    }
    accepted.store(true, Ordering::Relaxed);
    let body = match wanted {
        Wanted::Status => Bytes::new(),
        Wanted::Json => answer.read(client.max_body).await?,
    };
    Ok(Raw { status, headers, body })
}
