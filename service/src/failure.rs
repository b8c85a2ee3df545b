//! One error type, one envelope.
//!
//! A handler returns a [`Failure`]; [`crate::pipeline`] turns it into the body that every client of
//! every service knows, adds the request's id, and logs it, once.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What handlers and operations return.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// Names the system further down that an answer is blamed on.
pub const FAILED_DEPENDENCY: HeaderName = HeaderName::from_static("x-failed-dependency");

/// The codes that any service may answer with. A service's own codes are constants of its `api`.
pub mod code {
    /// Input was refused.
    pub const INVALID_REQUEST: &str = "invalid_request";
    /// No valid token.
    pub const UNAUTHORIZED: &str = "unauthorized";
    /// Not from there, or not by them.
    pub const FORBIDDEN: &str = "forbidden";
    /// No such route.
    pub const NOT_FOUND: &str = "not_found";
    /// The route exists, for other methods.
    pub const METHOD_NOT_ALLOWED: &str = "method_not_allowed";
    /// The id was undone before: a tombstone refuses it.
    pub const ALREADY_UNDONE: &str = "already_undone";
    /// It is not where that can be done with it.
    pub const WRONG_STATE: &str = "wrong_state";
    /// The same key is being worked on right now.
    pub const IDEMPOTENCY_IN_PROGRESS: &str = "idempotency_in_progress";
    /// The same key or id came with other content.
    pub const IDEMPOTENCY_KEY_REUSED: &str = "idempotency_key_reused";
    /// The request's body is larger than 64 KiB.
    pub const BODY_TOO_LARGE: &str = "body_too_large";
    /// The request's body is not `application/json`.
    pub const UNSUPPORTED_MEDIA_TYPE: &str = "unsupported_media_type";
    /// A defect of ours.
    pub const INTERNAL: &str = "internal";
    /// Another system could not answer.
    pub const DEPENDENCY_UNAVAILABLE: &str = "dependency_unavailable";
    /// Another system failed, and everything is as it was before.
    pub const ROLLED_BACK: &str = "rolled_back";
    /// Another system failed, and what could not be undone yet is being undone.
    pub const ROLLBACK_PENDING: &str = "rollback_pending";
    /// The time that the caller gave has run out, or is too short to begin.
    pub const DEADLINE_EXCEEDED: &str = "deadline_exceeded";
    /// This service's own database can't be reached.
    pub const DATABASE_UNAVAILABLE: &str = "database_unavailable";
    /// Too much at once.
    pub const OVERLOADED: &str = "overloaded";
    /// More from one user than there may be.
    pub const TOO_MANY_REQUESTS: &str = "too_many_requests";
    /// This process is about to end.
    pub const SHUTTING_DOWN: &str = "shutting_down";
    /// Nobody knows whether it happened; repeating is safe.
    pub const OUTCOME_UNKNOWN: &str = "outcome_unknown";
}

/// One thing that is wrong with the input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Detail {
    /// The field of the body, the parameter of the path or query, or the header.
    pub field: String,
    /// What is wrong with it, for a person.
    pub message: String,
}

/// The body of every answer that isn't 2xx.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ErrorBody {
    /// For a person.
    pub message: String,
    /// For a program.
    pub code: String,
    /// The `X-Request-Id` of the request that was answered.
    pub request_id: String,
    /// The other system that is the cause, if one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dependency: Option<String>,
    /// What is wrong with the input, when that was refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<Detail>,
}

/// An answer that isn't 2xx, before it is written down as an [`ErrorBody`].
#[derive(Clone, Debug)]
pub struct Failure(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    status: StatusCode,
    code: Cow<'static, str>,
    message: String,
    dependency: Option<String>,
    details: Vec<Detail>,
    retry_after: Option<Duration>,
    /// What a 401 asks for.
    challenge: Option<HeaderValue>,
    /// One of many: whoever made it says so in the log.
    shed: bool,
    /// What was behind it, for the log alone: it may hold SQL and addresses.
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl Failure {
    /// Any answer: `message` is for a person and must hold no SQL, trace or address.
    pub fn new(
        status: StatusCode,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        Self(Box::new(Inner {
            status,
            code: code.into(),
            message: message.into(),
            dependency: None,
            details: Vec::new(),
            retry_after: None,
            challenge: None,
            shed: false,
            source: None,
        }))
    }

    /// 400 `invalid_request`, about one field.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        let (field, message) = (field.into(), message.into());
        Self::new(StatusCode::BAD_REQUEST, code::INVALID_REQUEST, format!("{field}: {message}"))
            .with_details(vec![Detail { field, message }])
    }

    /// 400 `invalid_request`, about the request as a whole.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code::INVALID_REQUEST, message)
    }

    /// 404 with one of the service's own codes.
    pub fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    /// 409 with one of the service's own codes.
    pub fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    /// 409 `already_undone`: a tombstone stands on the id.
    pub fn already_undone(id: impl fmt::Display) -> Self {
        Self::conflict(code::ALREADY_UNDONE, format!("{id} was undone and can't be used again"))
    }

    /// 422 `idempotency_key_reused`.
    pub fn key_reused(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code::IDEMPOTENCY_KEY_REUSED, message)
    }

    /// 401 `unauthorized`, with what it takes (RFC 6750, 3): a token of that realm. `sent` says that
    /// there was one, and that it is the reason.
    pub fn unauthorized(realm: &'static str, sent: bool, message: impl Into<String>) -> Self {
        let mut failure = Self::new(StatusCode::UNAUTHORIZED, code::UNAUTHORIZED, message);
        let error = if sent { ", error=\"invalid_token\"" } else { "" };
        let challenge = format!("Bearer realm=\"{realm}\"{error}");
        failure.0.challenge = HeaderValue::from_str(&challenge).ok();
        failure
    }

    /// 503 with any code.
    pub fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
    }

    /// 503 `overloaded`, before anything was begun. There may be thousands in a second: each is logged
    /// for debugging only, and whoever sheds says in the log how many there were.
    pub fn shed(message: impl Into<String>) -> Self {
        let mut failure = Self::unavailable(code::OVERLOADED, message);
        failure.0.shed = true;
        failure
    }

    /// 429 `too_many_requests`, logged as little as [`Failure::shed`].
    pub fn too_many(message: impl Into<String>, wait: Duration) -> Self {
        let status = StatusCode::TOO_MANY_REQUESTS;
        let mut failure = Self::new(status, code::TOO_MANY_REQUESTS, message);
        failure.0.shed = true;
        failure.with_retry_after(Some(wait))
    }

    /// 503 `deadline_exceeded`.
    pub fn deadline_exceeded() -> Self {
        Self::unavailable(
            code::DEADLINE_EXCEEDED,
            "the time left for this request is not enough to carry it out",
        )
    }

    /// 500 `internal`; `source` is logged and never shown.
    pub fn internal(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let mut failure = Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            code::INTERNAL,
            "something went wrong on our side",
        );
        failure.0.source = Some(Arc::from(source.into()));
        failure
    }

    /// What was written down as its [`Display`](fmt::Display), read back: a status that isn't 2xx,
    /// a code and a message. Nothing where it is something else.
    pub fn read(text: &str) -> Option<Self> {
        let (head, message) = text.split_once(": ")?;
        let (status, code) = head.split_once(' ')?;
        let status = status
            .parse()
            .ok()
            .filter(|status: &StatusCode| status.is_client_error() || status.is_server_error())?;
        let is_code = |b: u8| b.is_ascii_lowercase() || b == b'_';
        let well_formed = !code.is_empty() && code.bytes().all(is_code);
        well_formed.then(|| Self::new(status, code.to_owned(), message))
    }

    /// Says which other system is the cause. On a 503 that becomes `X-Failed-Dependency`, which
    /// tells the caller's breaker that this hop is healthy.
    #[must_use]
    pub fn with_dependency(mut self, name: impl Into<String>) -> Self {
        self.0.dependency = Some(name.into());
        self
    }

    /// Says what is wrong with the input.
    #[must_use]
    pub fn with_details(mut self, details: Vec<Detail>) -> Self {
        self.0.details = details;
        self
    }

    /// When to try again. Written in whole seconds, rounded up, at least one.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Option<Duration>) -> Self {
        self.0.retry_after = wait;
        self
    }

    /// What was behind it, for the log.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.0.source = Some(Arc::from(source.into()));
        self
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The code for programs.
    pub fn code(&self) -> &str {
        &self.0.code
    }

    /// The message for people.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The system that is the cause, if another one is.
    pub fn dependency(&self) -> Option<&str> {
        self.0.dependency.as_deref()
    }

    /// What is wrong with the input.
    pub fn details(&self) -> &[Detail] {
        &self.0.details
    }

    /// How long the caller should wait, if that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The same cause under another code: what a service makes of a failure further down.
    #[must_use]
    pub fn recoded(mut self, code: &'static str, message: impl Into<String>) -> Self {
        self.0.code = code.into();
        self.0.message = message.into();
        self
    }

    /// True for a business answer that will be the same however often the request is repeated: what
    /// an idempotency key remembers.
    pub fn is_final(&self) -> bool {
        self.0.status.is_client_error()
            && self.0.status != StatusCode::TOO_MANY_REQUESTS
            && self.0.status != StatusCode::UNAUTHORIZED
            && self.0.code != code::IDEMPOTENCY_IN_PROGRESS
            // About another request with the same key; the key may yet be right for its own.
            && self.0.code != code::IDEMPOTENCY_KEY_REUSED
    }

    /// Whether it is one of many.
    pub(crate) fn is_shed(&self) -> bool {
        self.0.shed
    }

    /// The cause with everything that it was caused by, for the log.
    pub(crate) fn causes(&self) -> Option<String> {
        let mut text = String::new();
        let mut next: Option<&dyn Error> = self.0.source.as_deref().map(|e| e as &dyn Error);
        while let Some(error) = next {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&error.to_string());
            next = error.source();
        }
        (!text.is_empty()).then_some(text)
    }

    /// The envelope, for the request that has this id.
    pub(crate) fn body(&self, request_id: &str) -> ErrorBody {
        ErrorBody {
            message: self.0.message.clone(),
            code: self.0.code.clone().into_owned(),
            request_id: request_id.to_owned(),
            dependency: self.0.dependency.clone(),
            details: self.0.details.clone(),
        }
    }

    /// The headers that belong to it.
    pub(crate) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if self.0.status == StatusCode::SERVICE_UNAVAILABLE
            || self.0.status == StatusCode::TOO_MANY_REQUESTS
        {
            let wait = self.0.retry_after.unwrap_or(Duration::from_secs(1));
            headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
        }
        if self.0.status == StatusCode::SERVICE_UNAVAILABLE
            && let Some(name) = &self.0.dependency
            && let Ok(name) = HeaderValue::from_str(name)
        {
            headers.insert(FAILED_DEPENDENCY, name);
        }
        if self.0.status == StatusCode::UNAUTHORIZED {
            let challenge = self.0.challenge.clone();
            let any = HeaderValue::from_static("Bearer");
            headers.insert(WWW_AUTHENTICATE, challenge.unwrap_or(any));
        }
        headers
    }
}

/// Rounded up, at least 1: `Retry-After: 0` would invite a busy loop.
fn whole_seconds(wait: Duration) -> u64 {
    let up = u64::from(wait.subsec_nanos() > 0);
    (wait.as_secs() + up).max(1)
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.0.status.as_u16(), self.0.code, self.0.message)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_deref().map(|e| e as &(dyn Error + 'static))
    }
}

/// The body is written by [`crate::pipeline`], which knows the request's id.
impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = self.0.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_constructor_has_the_status_of_the_contract() {
        let cases = [
            (Failure::bad_request("x"), 400, "invalid_request"),
            (Failure::invalid("a", "x"), 400, "invalid_request"),
            (Failure::already_undone("x"), 409, "already_undone"),
            (Failure::key_reused("x"), 422, "idempotency_key_reused"),
            (Failure::unauthorized("x", false, "x"), 401, "unauthorized"),
            (Failure::deadline_exceeded(), 503, "deadline_exceeded"),
            (Failure::internal("x"), 500, "internal"),
        ];
        for (failure, status, code) in cases {
            assert_eq!((failure.status().as_u16(), failure.code()), (status, code));
        }
    }

    #[test]
    fn a_503_always_says_when_to_come_back() {
        let plain = Failure::deadline_exceeded();
        assert_eq!(plain.headers()[RETRY_AFTER], "1");
        let known = plain.with_retry_after(Some(Duration::from_millis(4_001)));
        assert_eq!(known.headers()[RETRY_AFTER], "5");
    }

    #[test]
    fn a_401_says_what_it_takes_and_whether_a_token_was_the_reason() {
        let none = Failure::unauthorized("service", false, "x");
        assert_eq!(none.headers()[WWW_AUTHENTICATE], r#"Bearer realm="service""#);
        let wrong = Failure::unauthorized("user", true, "x");
        let challenge = r#"Bearer realm="user", error="invalid_token""#;
        assert_eq!(wrong.headers()[WWW_AUTHENTICATE], challenge);
    }

    #[test]
    fn a_refusal_that_was_written_down_is_read_back() {
        let refusal = Failure::not_found(code::NOT_FOUND, "no: nothing of 'that'");
        let read = Failure::read(&refusal.to_string()).unwrap();
        assert_eq!((read.status(), read.code()), (refusal.status(), refusal.code()));
        assert_eq!(read.message(), refusal.message());
        for text in ["", "404", "404 x", "404 X: y", "200 ok: y", "gave up: y", "x not_found: y"] {
            assert!(Failure::read(text).is_none(), "{text}");
        }
    }

    #[test]
    fn only_a_503_blames_a_dependency_in_its_header() {
        let blamed = Failure::unavailable(code::ROLLED_BACK, "x").with_dependency("db2");
        assert_eq!(blamed.headers()[FAILED_DEPENDENCY], "db2");
        let refused = Failure::bad_request("x").with_dependency("db2");
        assert!(refused.headers().get(FAILED_DEPENDENCY).is_none());
    }

    #[test]
    fn the_cause_is_for_the_log_only() {
        let failure = Failure::internal("SELECT secret FROM 10.0.0.1");
        let body = serde_json::to_string(&failure.body("r")).unwrap();
        assert!(!body.contains("SELECT"), "{body}");
        assert!(failure.causes().unwrap().contains("SELECT"));
    }

    #[test]
    fn what_may_change_by_itself_is_not_final() {
        let running = Failure::conflict(code::IDEMPOTENCY_IN_PROGRESS, "x");
        assert!(!running.is_final());
        assert!(!Failure::deadline_exceeded().is_final());
        assert!(Failure::already_undone("x").is_final());
    }
}
