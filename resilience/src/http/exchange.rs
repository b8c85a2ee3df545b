//! One attempt at a request: what goes out, what comes back, and what is known of its effect.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use bytes::Bytes;
use tracing::field::Empty;
use tracing::{Instrument as _, Span};
use url::Url;

use super::client::Inner;
use super::error::{Effect, ErrorKind};
use super::meaning;
use super::transport::{Outgoing, unreadable};
use crate::call::Attempt;
use crate::classify::Verdict;
use crate::deadline::Deadline;
use crate::retry::{Advice, Retryable};

const REQUEST_TIMEOUT: HeaderName = HeaderName::from_static(Deadline::HEADER);

/// What of an answer with the expected status is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Status,
    Json,
}

/// A request that can be sent any number of times.
pub(super) struct Exchange {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Bytes>,
    pub(super) expected: StatusCode,
    pub(super) wanted: Wanted,
    /// The longest that an attempt may take, unless its deadline is sooner.
    pub(super) timeout: Duration,
}

/// An answer with the expected status, and of the wanted type.
pub(super) struct Raw {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// How an attempt failed.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) kind: ErrorKind,
    effect: Effect,
}

impl Exchange {
    /// Dropping the future abandons the attempt, and leaves its effect unknown.
    pub(super) async fn attempt<R>(
        &self,
        client: &Inner,
        attempt: Attempt,
        effects: &Effects,
        decode: impl FnOnce(Raw) -> Result<R, ErrorKind>,
    ) -> Result<R, Fault> {
        let span = self.span(client, attempt.number);
        let given = (attempt.limit, self.timeout);
        let mut running = Running::begin(client, effects, given, span.clone());
        #[cfg(feature = "testkit")]
        let point = |when| {
            let (method, name) = (&self.method, &client.name);
            crate::testkit::crash::point(|| format!("{when} {method} {name}"));
        };
        #[cfg(feature = "testkit")]
        point("before");
        let outgoing = self.outgoing(client, attempt.limit, &span);
        let receiving = self.receive(client, outgoing, &mut running.accepted);
        let received = receiving.instrument(span.clone()).await;
        if let Ok(raw) = &received {
            span.record("http.response.status_code", raw.status.as_u16());
        }
        #[cfg(feature = "testkit")]
        point("after");
        let result = received.and_then(decode);
        running.end(result)
    }

    /// `accepted` is set once the answer has begun as it should: then the request has had its
    /// effect, whatever becomes of the rest.
    async fn receive(
        &self,
        client: &Inner,
        outgoing: Outgoing,
        accepted: &mut bool,
    ) -> Result<Raw, ErrorKind> {
        let mut answer = client.transport.send(outgoing).await?;
        let status = answer.status();
        if status != self.expected {
            return Err(meaning::refusal(answer, client.codes, client.max_body).await);
        }
        let headers = answer.headers().clone();
        if self.wanted == Wanted::Json && !meaning::is_json(&headers) {
            // Something in between may have answered: that says nothing of the effect.
            tracing::debug!(%status, "an answer isn't JSON");
            return Err(unreadable());
        }
        *accepted = true;
        let body = match self.wanted {
            Wanted::Status => Bytes::new(),
            Wanted::Json => answer.read(client.max_body).await?,
        };
        Ok(Raw { status, headers, body })
    }

    /// By OpenTelemetry's conventions for HTTP clients.
    fn span(&self, client: &Inner, number: u32) -> Span {
        tracing::debug_span!(
            "call",
            otel.name = self.method.as_str(),
            otel.kind = "client",
            otel.status_code = Empty,
            error.type = Empty,
            http.request.method = self.method.as_str(),
            http.request.resend_count = number.checked_sub(1).filter(|again| *again > 0),
            http.response.status_code = Empty,
            peer.service = &*client.name,
            server.address = self.url.host_str(),
            server.port = self.url.port_or_known_default(),
            url.full = %Shown(&self.url),
        )
    }

    fn outgoing(&self, client: &Inner, limit: Option<Duration>, span: &Span) -> Outgoing {
        let mut headers = self.headers.clone();
        let limit = limit.map(|limit| HeaderValue::try_from(Deadline::format(limit)));
        if let Some(Ok(limit)) = limit {
            headers.insert(REQUEST_TIMEOUT, limit);
        }
        if let Some(told) = client.on_attempt {
            told(span, &mut headers);
        }
        if let Some((name, value)) = &client.secret {
            headers.insert(name, value.clone());
        }
        let (method, url, body) = (self.method.clone(), self.url.clone(), self.body.clone());
        Outgoing { method, url, headers, body }
    }
}

/// Without what may be a secret, or long: a user, a password, a query.
struct Shown<'a>(&'a Url);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(url) = self;
        write!(f, "{}://{}", url.scheme(), url.host_str().unwrap_or_default())?;
        if let Some(port) = url.port() {
            write!(f, ":{port}")?;
        }
        f.write_str(url.path())
    }
}

/// What all attempts at one call have changed, taken together: an attempt that certainly had no
/// effect says nothing about the one before.
pub(super) struct Effects(Mutex<Effect>);

impl Effects {
    pub(super) fn none() -> Self {
        Self(Mutex::new(Effect::None))
    }

    fn add(&self, effect: Effect) {
        let mut greatest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *greatest = effect.max(*greatest);
    }

    pub(super) fn greatest(&self) -> Effect {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An attempt under way. Dropped before its end it timed out, or nobody waits for it any more.
struct Running<'a> {
    client: &'a Inner,
    effects: &'a Effects,
    begun: Instant,
    span: Span,
    limit: Option<Duration>,
    inherited: bool,
    accepted: bool,
    ended: bool,
}

impl<'a> Running<'a> {
    fn begin(
        client: &'a Inner,
        effects: &'a Effects,
        (limit, timeout): (Option<Duration>, Duration),
        span: Span,
    ) -> Self {
        Self {
            client,
            effects,
            begun: client.clock.now(),
            span,
            limit,
            inherited: limit.is_some_and(|limit| limit < timeout),
            accepted: false,
            ended: false,
        }
    }

    fn end<R>(mut self, result: Result<R, ErrorKind>) -> Result<R, Fault> {
        self.ended = true;
        let result = result.map_err(|kind| {
            let effect = kind.effect(self.accepted, self.client.codes.no_effect);
            Fault { kind, effect }
        });
        self.record(match self.client.verdict(&result) {
            Verdict::Success => "success",
            Verdict::Failure(_) => "failure",
            Verdict::Ignored => "ignored",
        });
        if let Err(Fault { kind, effect }) = &result {
            self.effects.add(*effect);
            self.failed(kind.as_str());
            if let Some(refusal) = kind.refusal() {
                self.span.record("http.response.status_code", refusal.status.as_u16());
            }
        }
        result
    }

    /// For whoever looks at its span.
    fn failed(&self, how: &str) {
        self.span.record("error.type", how);
        self.span.record("otel.status_code", "ERROR");
    }

    #[cfg_attr(not(feature = "metrics"), expect(unused_variables, clippy::unused_self))]
    fn record(&self, outcome: &'static str) {
        #[cfg(feature = "metrics")]
        {
            let took = self.client.clock.now().saturating_duration_since(self.begun);
            crate::metrics::attempt(&self.client.name, outcome, took);
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        self.effects.add(if self.accepted { Effect::Done } else { Effect::Unknown });
        let took = self.client.clock.now().saturating_duration_since(self.begun);
        let timed_out = self.limit.is_some_and(|limit| took >= limit);
        self.failed(if timed_out { "timed_out" } else { "abandoned" });
        self.record(match (timed_out, self.inherited) {
            (true, false) => "failure",
            (true, true) => "ignored",
            (false, _) => "abandoned",
        });
    }
}

impl Inner {
    /// What an attempt says about the dependency.
    pub(super) fn verdict<R>(&self, result: &Result<R, Fault>) -> Verdict {
        match result {
            Ok(_) => Verdict::Success,
            Err(Fault { kind, .. }) => self.classify.classify(kind),
        }
    }
}

impl Retryable for Fault {
    fn advice(&self) -> Advice {
        let advice = self.kind.advice();
        if self.effect == Effect::None { advice.without_effect() } else { advice }
    }
}
