//! What an answer tells a browser not to do with it.

use http::HeaderName;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};

/// A page takes everything from where it is itself from, runs no script that is written into it, sends
/// nothing elsewhere, and is shown in no frame. Swagger UI writes styles into its elements, and has
/// images in its style sheet.
const PAGE: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; font-src 'self' data:; connect-src 'self'; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'";

/// Adds it to the headers of an answer to a request for `path`.
pub(crate) fn secure(path: &str, headers: &mut HeaderMap) {
    let mut set = |name: HeaderName, value: &'static str| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    set(X_CONTENT_TYPE_OPTIONS, "nosniff");
    if !is_public(path) {
        // It is of one user, or of one moment.
        set(CACHE_CONTROL, "no-store");
    }
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    if kind.is_some_and(|kind| kind.starts_with(b"text/html")) {
        // One that allows itself less has said so.
        headers.entry(CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(PAGE));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    }
}

/// The same for everybody, until the next version.
fn is_public(path: &str) -> bool {
    path == "/docs" || path.starts_with("/docs/") || path == "/api-docs/openapi.json"
}
