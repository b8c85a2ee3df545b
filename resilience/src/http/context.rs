use ::http::{HeaderMap, HeaderName, HeaderValue};

use crate::deadline::Deadline;

/// What an incoming request passes on to every call made for it: its deadline, and headers such
/// as the request's id and `traceparent`.
#[derive(Clone, Debug, Default)]
pub struct Context {
    deadline: Option<Deadline>,
    headers: HeaderMap,
}

impl Context {
    /// No deadline and no headers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Calls end at this moment at the latest.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Deadline) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Calls carry this header, in place of an earlier one of the same name.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// The moment at which calls end at the latest.
    pub fn deadline(&self) -> Option<Deadline> {
        self.deadline
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }
}
