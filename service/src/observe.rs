//! Who asks, and until when: what travels with a request from hop to hop.

use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use resilience::deadline::Deadline;
use resilience::http::Context;
use uuid::Uuid;

use crate::failure::Failure;

/// Names a request in answers and logs of every service that it passes.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// W3C Trace Context.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// With less time than this, nothing is begun that would have to be undone.
const LEAST_TIME: Duration = Duration::from_millis(50);

/// What travels with a request.
#[derive(Clone, Debug)]
pub struct Caller {
    request_id: HeaderValue,
    traceparent: HeaderValue,
    deadline: Option<Deadline>,
}

impl Caller {
    /// Takes over what the caller sent, where that is usable, and mints the rest: a trace that is `sampled`
    /// or isn't.
    pub(crate) fn of(headers: &HeaderMap, sampled: bool) -> Self {
        let request_id = headers
            .get(REQUEST_ID)
            .filter(|id| is_visible(id, 128))
            .cloned()
            .unwrap_or_else(|| minted(&Uuid::new_v4().to_string()));
        let traceparent = traceparent(headers).cloned().unwrap_or_else(|| {
            let span = Uuid::new_v4().simple().to_string();
            let flags = u8::from(sampled);
            minted(&format!("00-{}-{}-{flags:02x}", Uuid::new_v4().simple(), &span[..16]))
        });
        Self { request_id, traceparent, deadline: None }
    }

    /// As one that is in this trace, where it is in any.
    #[must_use]
    pub(crate) fn within(mut self, traceparent: Option<HeaderValue>) -> Self {
        self.traceparent = traceparent.unwrap_or(self.traceparent);
        self
    }

    /// For log lines.
    pub(crate) fn shown(&self) -> Ids {
        Ids::new(self.request_id.to_str().ok(), self.traceparent.to_str().ok())
    }

    /// Until when the caller waits.
    #[must_use]
    pub(crate) fn with_deadline(mut self, deadline: Deadline) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Until when the caller waits, if a deadline applies.
    pub fn deadline(&self) -> Option<Deadline> {
        self.deadline
    }

    /// Refuses what reaches into several systems and can't be finished in time.
    ///
    /// # Errors
    /// 503 `deadline_exceeded` when less than 50 ms are left.
    pub fn check_time(&self) -> Result<(), Failure> {
        match self.deadline {
            Some(deadline) if deadline.remaining() < LEAST_TIME => {
                Err(Failure::deadline_exceeded())
            }
            _ => Ok(()),
        }
    }

    /// The request's id.
    pub fn request_id(&self) -> &HeaderValue {
        &self.request_id
    }

    /// The trace that it belongs to.
    pub(crate) fn traceparent(&self) -> &HeaderValue {
        &self.traceparent
    }

    /// For calls made on behalf of this request, within its time.
    pub fn context(&self) -> Context {
        let ids = self.ids().into_iter();
        let context = ids.fold(Context::new(), |cx, (name, value)| cx.with_header(name, value));
        match self.deadline {
            Some(deadline) => context.with_deadline(deadline),
            None => context,
        }
    }

    /// What tells in every log whose work it is.
    pub(crate) fn ids(&self) -> [(HeaderName, HeaderValue); 2] {
        [(REQUEST_ID, self.request_id.clone()), (TRACEPARENT, self.traceparent.clone())]
    }
}

/// The ids of a request, of its trace, and of the span in that which is known to others.
#[derive(Clone, Debug)]
pub(crate) struct Ids {
    pub(crate) request: Option<String>,
    pub(crate) trace: Option<String>,
    pub(crate) span: Option<String>,
}

impl Ids {
    /// By a `traceparent` that was looked at.
    pub(crate) fn new(request: Option<&str>, traceparent: Option<&str>) -> Self {
        let mut parts = traceparent.unwrap_or_default().split('-').skip(1).map(str::to_owned);
        let (trace, span) = (parts.next(), parts.next());
        Self { request: request.map(str::to_owned), trace, span }
    }
}

fn minted(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

/// 1 to `longest` visible ASCII characters.
pub(crate) fn is_visible(value: &HeaderValue, longest: usize) -> bool {
    let bytes = value.as_bytes();
    (1..=longest).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
}

/// Of the trace that a request is to go on with, where that is usable.
pub(crate) fn traceparent(headers: &HeaderMap) -> Option<&HeaderValue> {
    headers.get(TRACEPARENT).filter(|text| is_traceparent(text))
}

/// `version-trace-parent-flags` in lower-case hex, neither id all zeros
/// (<https://www.w3.org/TR/trace-context/#traceparent-header>).
fn is_traceparent(value: &HeaderValue) -> bool {
    let Ok(text) = value.to_str() else {
        return false;
    };
    let parts: Vec<_> = text.split('-').collect();
    let [version, trace, parent, flags] = parts[..] else {
        return false;
    };
    let hex = |part: &str, length| {
        part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let some = |part: &str| part.bytes().any(|b| b != b'0');
    hex(version, 2)
        && version != "ff"
        && hex(trace, 32)
        && some(trace)
        && hex(parent, 16)
        && some(parent)
        && hex(flags, 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(name: HeaderName, value: &str) -> Caller {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        Caller::of(&headers, true)
    }

    #[test]
    fn a_usable_request_id_is_kept_and_any_other_replaced() {
        assert_eq!(caller(REQUEST_ID, "abc-1").request_id(), "abc-1");
        let long = "x".repeat(129);
        for bad in ["", "a b", "ä", long.as_str()] {
            let minted = caller(REQUEST_ID, bad);
            assert_eq!(minted.request_id().len(), 36, "{bad:?}");
        }
    }

    #[test]
    fn a_valid_trace_is_continued_and_any_other_replaced() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(caller(TRACEPARENT, good).traceparent(), good);
        for bad in ["x", "00-0-0-01", "00-00000000000000000000000000000000-00f067aa0ba902b7-01"] {
            assert_ne!(caller(TRACEPARENT, bad).traceparent(), bad);
        }
    }
}
