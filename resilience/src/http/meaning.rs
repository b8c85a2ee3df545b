//! What an answer means that isn't what was asked for.

use std::time::Duration;

use ::http::header::{CONTENT_TYPE, RETRY_AFTER};
use ::http::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::error::{ErrorKind, Refusal};
use super::transport::{Answer, unreadable};

const FAILED_DEPENDENCY: &str = "x-failed-dependency";
const IDEMPOTENCY_IN_PROGRESS: &str = "idempotency_in_progress";

/// Error bodies are short; what is longer isn't one of ours.
const MAX_ERROR_BODY: usize = 64 << 10;

/// The most characters of somebody else's message that are passed on.
const MAX_MESSAGE: usize = 1024;

/// The codes of error bodies that a client knows.
#[derive(Clone, Copy, Default)]
pub(super) struct Codes {
    /// Of a 4xx: answers of the business.
    pub(super) refused: &'static [&'static str],
    /// Of a 5xx: nothing has happened.
    pub(super) no_effect: &'static [&'static str],
    /// Of a 503: the service itself works.
    pub(super) working: &'static [&'static str],
}

/// What an answer without the expected status means.
pub(super) async fn refusal(mut answer: Answer, known: Codes, max_body: usize) -> ErrorKind {
    let status = answer.status();
    if !status.is_client_error() && !status.is_server_error() {
        tracing::debug!(%status, "an unexpected status");
        return unreadable();
    }
    let body = match answer.read(MAX_ERROR_BODY.min(max_body)).await {
        Ok(body) => Some(body),
        // A 4xx is nothing without its body; a 5xx has said enough already.
        Err(error) if status.is_client_error() && !is_busy(status) => return error,
        Err(_) => None,
    };
    let refusal = read(status, answer.headers(), body.as_deref().unwrap_or_default());
    meaning(refusal, known)
}

fn is_busy(status: StatusCode) -> bool {
    status == StatusCode::UNAUTHORIZED || status == StatusCode::TOO_MANY_REQUESTS
}

fn meaning(refusal: Refusal, known: Codes) -> ErrorKind {
    let Refusal { status, ref code, ref dependency, .. } = refusal;
    let is_in = |codes: &[&str]| code.as_deref().is_some_and(|code| codes.contains(&code));
    if status.is_server_error() {
        let works = dependency.is_some() || is_in(known.working);
        return if works && status == StatusCode::SERVICE_UNAVAILABLE {
            ErrorKind::Downstream(refusal)
        } else {
            ErrorKind::Unavailable(refusal)
        };
    }
    match code.as_deref() {
        _ if is_busy(status) => ErrorKind::Busy(refusal),
        Some(IDEMPOTENCY_IN_PROGRESS) if status == StatusCode::CONFLICT => ErrorKind::Busy(refusal),
        Some(_) if is_in(known.refused) => ErrorKind::Refused(refusal),
        code => {
            // Not one of the service's own answers: something in between, or another service.
            tracing::debug!(%status, code, "a 4xx that isn't a final answer");
            unreadable()
        }
    }
}

/// The error body of the library's convention.
#[derive(Deserialize)]
struct ErrorBody {
    code: String,
    message: String,
}

fn read(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Refusal {
    // Serde would read the fields out of an array as well.
    let object = is_json(headers) && body.trim_ascii_start().starts_with(b"{");
    let body: Option<ErrorBody> = if object { serde_json::from_slice(body).ok() } else { None };
    let (code, message) = match body {
        Some(ErrorBody { code, message }) => {
            (Some(code), Some(message.chars().take(MAX_MESSAGE).collect()))
        }
        None => (None, None),
    };
    Refusal {
        status,
        code,
        message,
        dependency: failed_dependency(headers),
        retry_after: retry_after(headers),
    }
}

/// Whether the content is declared as `application/json`, with whatever parameters.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let declared = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = declared.and_then(|value| value.split(';').next()).unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/json")
}

/// A name is shown to users, so only what looks like one is taken.
fn failed_dependency(headers: &HeaderMap) -> Option<String> {
    let name = headers.get(FAILED_DEPENDENCY)?.to_str().ok()?.trim();
    let well_formed = (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    well_formed.then(|| name.to_owned())
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // Digits alone fail for being too many: a pause too long to count is the longest one, not none.
    let seconds: u32 = value.parse().unwrap_or(u32::MAX);
    Some(Duration::from_secs(seconds.into()))
}

#[cfg(test)]
mod tests {
    use ::http::{HeaderName, HeaderValue};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_answer_means_something_and_passes_nothing_odd_on(
            status in 400_u16..600,
            dependency in vec(any::<u8>(), 0..80),
            after in "[0-9]{0,30}|[ -~]{0,20}",
            body in prop_oneof![
                vec(any::<u8>(), 0..200),
                ".{0,2000}".prop_map(|text| {
                    serde_json::json!({"code": "sold_out", "message": text}).to_string().into_bytes()
                }),
            ],
        ) {
            let values = [("x-failed-dependency", dependency), ("retry-after", after.into_bytes())];
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            for (name, value) in values {
                if let Ok(value) = HeaderValue::from_bytes(&value) {
                    headers.insert(HeaderName::from_static(name), value);
                }
            }
            let status = StatusCode::from_u16(status).expect("it is one");
            let refusal = read(status, &headers, &body);
            let name = refusal.dependency.clone().unwrap_or_default();
            prop_assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)));
            let message = refusal.message.as_deref().unwrap_or_default();
            prop_assert!(message.chars().count() <= MAX_MESSAGE);
            meaning(refusal, Codes { refused: &["sold_out"], ..Codes::default() });
        }
    }
}
