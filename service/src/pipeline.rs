//! What every request passes on its way in and out, outermost first:
//!
//! 1. a trailing slash is taken off, so that it makes no difference on any route;
//! 2. **observe**: request id and trace, one log line, metrics, and the error envelope;
//! 3. a panic becomes a 500;
//! 4. **guard**: who has no valid token where one is due is refused;
//! 5. **body**: read whole, at most 64 KiB, before anything else is refused, so that the client sees why;
//! 6. **gate**: no new work while the process ends; the deadline, which begins here;
//! 7. **detach**: a request with an effect runs to its end, also when its client goes away.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use http::header::{CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, StatusCode, Uri};
use http_body_util::BodyExt;
use resilience::deadline::Deadline;
use tower::util::MapRequest;
use tracing::field::Empty;
use tracing::{Instrument, Span};

use crate::access::Access;
use crate::failure::{Failure, code};
use crate::headers;
use crate::input::Compensate;
use crate::lifecycle::Lifecycle;
use crate::observe::{Caller, REQUEST_ID, TRACEPARENT};
use crate::server::{Reserved, Turn};
use crate::telemetry;
use crate::traffic::Traffic;

/// The largest body that is accepted, in bytes.
pub const BODY_LIMIT: usize = 64 * 1024;

/// How much of a body that is too large is read and thrown away, so that a client that writes
/// before it reads sees the answer instead of a reset connection. In bytes.
const SURPLUS_LIMIT: usize = 16 * 1024 * 1024;

/// How long a body may take to arrive that is thrown away.
const DISCARD_TIME: Duration = Duration::from_secs(1);

/// How long one may still take to arrive once the end has begun.
const LAST_BODY_TIME: Duration = Duration::from_secs(1);

/// Bytes of a method or of a path that the log has. The longest of a route are shorter.
const LOGGED: usize = 256;

/// What the pipeline knows of the service that it stands before.
#[derive(Debug)]
pub(crate) struct Shell {
    pub(crate) name: &'static str,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) budget: Duration,
    pub(crate) access: Access,
    pub(crate) body_time: Duration,
    pub(crate) traffic: Traffic,
}

/// A service's routes, with the pipeline round them.
pub(crate) type Piped = MapRequest<Router, fn(Request) -> Request>;

/// Puts the pipeline round a service's routes.
///
/// It is one layer: each layer of a router is on the heap, and for each request it is cloned with all that
/// is below it. A refusal under load should cost little.
pub(crate) fn wrap(routes: Router, shell: Shell) -> Piped {
    let inner = routes
        .fallback(async || Failure::not_found(code::NOT_FOUND, "there is nothing here"))
        .method_not_allowed_fallback(async || {
            Failure::new(
                StatusCode::METHOD_NOT_ALLOWED,
                code::METHOD_NOT_ALLOWED,
                "this resource does not support the method",
            )
        })
        .layer(from_fn_with_state(Arc::new(shell), observe));
    // A layer of a router runs after that router has chosen a route: the slash must go before.
    MapRequest::new(inner, |mut request| {
        trim_trailing_slash(request.uri_mut());
        request
    })
}

/// `/docs/` stays: the page behind it names its parts relative to it.
fn trim_trailing_slash(uri: &mut Uri) {
    let path = uri.path();
    let trimmed = path.trim_end_matches('/');
    if trimmed.len() == path.len() || trimmed.is_empty() || trimmed == "/docs" {
        return;
    }
    let target = match uri.query() {
        Some(query) => format!("{trimmed}?{query}"),
        None => trimmed.to_owned(),
    };
    let mut parts = uri.clone().into_parts();
    if let Ok(target) = target.parse() {
        parts.path_and_query = Some(target);
        if let Ok(new) = Uri::from_parts(parts) {
            *uri = new;
        }
    }
}

async fn observe(State(shell): State<Arc<Shell>>, mut request: Request, next: Next) -> Response {
    let start = Instant::now();
    let _running = shell.lifecycle.request();
    let sampled = telemetry::traces::samples(request.headers());
    let caller = Caller::of(request.headers(), sampled);
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map(MatchedPath::as_str);
    let span = span((shell.name, sampled), &caller, (&method, &path, route));
    let caller = caller.within(telemetry::traces::join(&span, request.headers()));
    telemetry::logs::identify(&span, caller.shown());
    request.extensions_mut().insert(caller.clone());
    let answered = AssertUnwindSafe(answer(&shell, request, next)).catch_unwind();
    let (reached, response) = match answered.instrument(span.clone()).await {
        Ok(answered) => (answered.is_ok(), answered.into_response()),
        Err(panic) => (true, panicked(&*panic).into_response()),
    };

    let (mut parts, body) = response.into_parts();
    let failure = parts.extensions.remove::<Failure>();
    let body = match &failure {
        Some(failure) => {
            parts.headers.extend(failure.headers());
            parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            let id = caller.request_id().to_str().unwrap_or_default();
            serde_json::to_vec(&failure.body(id)).map_or_else(|_| Body::empty(), Body::from)
        }
        None => body,
    };
    parts.headers.insert(REQUEST_ID, caller.request_id().clone());
    parts.headers.insert(TRACEPARENT, caller.traceparent().clone());
    headers::secure(&path, &mut parts.headers);
    if shell.lifecycle.is_leaving() {
        parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let (status, took) = (parts.status, start.elapsed());
    let shed = failure.as_ref().is_some_and(Failure::is_shed);
    // Before its route was reached, nothing has looked at whether that has the method.
    let known = (reached && status != StatusCode::METHOD_NOT_ALLOWED).then_some(&method);
    telemetry::request(shell.name, (known, route.unwrap_or("unmatched")), status, shed, took);
    if !is_plumbing(&path) {
        shell.traffic.count(status, took);
    }
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("error.type", failure.as_ref().map_or(status.as_str(), Failure::code));
        span.record("otel.status_code", "ERROR");
    }
    let (method, path) = (shown(method.as_str()), shown(&path));
    span.in_scope(|| log(method, path, status, took, failure.as_ref()));
    Response::from_parts(parts, body)
}

/// By OpenTelemetry's conventions for HTTP servers. Those of probes, and of what isn't `sampled`, are in the
/// log alone.
fn span(
    (service, sampled): (&'static str, bool),
    caller: &Caller,
    (method, path, route): (&Method, &str, Option<&str>),
) -> Span {
    let id = caller.request_id().to_str().unwrap_or_default();
    if !sampled || is_plumbing(path) {
        return tracing::info_span!("request", service, id);
    }
    let method = telemetry::known(method);
    let gap = if route.is_some() { " " } else { "" };
    tracing::info_span!(
        "request",
        service,
        id,
        otel.name = %format_args!("{}{gap}{}", method.unwrap_or("HTTP"), route.unwrap_or_default()),
        otel.kind = "server",
        otel.status_code = Empty,
        error.type = Empty,
        http.request.method = method.unwrap_or("_OTHER"),
        http.response.status_code = Empty,
        http.route = route,
        url.path = shown(path),
        url.scheme = "http",
    )
}

/// Its beginning, for the log: a client's words may be as long as a head, and thousands in a second.
fn shown(text: &str) -> &str {
    &text[..text.floor_char_boundary(LOGGED)]
}

/// One line per request; probes only when they fail.
fn log(method: &str, path: &str, status: StatusCode, took: Duration, failure: Option<&Failure>) {
    let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let status = status.as_u16();
    let Some(failure) = failure else {
        if is_plumbing(path) {
            tracing::debug!(%method, path, status, millis, "answered");
        } else {
            tracing::info!(%method, path, status, millis, "answered");
        }
        return;
    };
    let (code, message) = (failure.code(), failure.message());
    let causes = failure.causes();
    match status {
        _ if failure.is_shed() => {
            tracing::debug!(%method, path, status, millis, code, message, "shed");
        }
        500 => tracing::error!(%method, path, status, millis, code, message, causes, "defect"),
        501.. => tracing::warn!(%method, path, status, millis, code, message, causes, "failed"),
        _ => tracing::info!(%method, path, status, millis, code, message, "refused"),
    }
}

/// Routes for operators and tools: they answer while the service drains, whatever the deadline.
fn is_plumbing(path: &str) -> bool {
    ["/manage", "/metrics", "/docs", "/api-docs"].iter().any(|top| is_below(path, top))
}

/// Whether it is the path, or one further down. Routes are matched as they are written, so that no
/// other spelling leads below it.
pub(crate) fn is_below(path: &str, top: &str) -> bool {
    path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Failure {
    let text = panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
        .unwrap_or_else(|| "a panic without a message".to_owned());
    Failure::internal(text)
}

/// Everything between what is told of a request and its route.
async fn answer(shell: &Shell, mut request: Request, next: Next) -> Result<Response, Failure> {
    if let Err(failure) = shell.access.admit(&mut request).await {
        // Nothing of it is kept, but read as far as it takes for its client to see why.
        discard(request.into_body()).await;
        return Err(failure);
    }
    let request = gate(shell, body(shell, request).await?)?;
    let effect = !request.method().is_safe();
    let answer = next.run(request);
    Ok(if effect { shell.lifecycle.detach(answer).await } else { answer.await })
}

fn gate(shell: &Shell, mut request: Request) -> Result<Request, Failure> {
    if is_plumbing(request.uri().path()) {
        return Ok(request);
    }
    // An undo is let in to the last: what it takes back would otherwise stay.
    let undo = shell.access.has_undos()
        && request.method() == Method::DELETE
        && Compensate::of(request.headers()).is_ok_and(|Compensate(undo)| undo);
    if request.extensions().get::<Reserved>().is_some() && !undo {
        return Err(Failure::shed("too many connections at once; try again shortly"));
    }
    if shell.lifecycle.is_draining() && !undo {
        return Err(ending());
    }
    let sent: Vec<_> = request.headers().get_all(Deadline::HEADER).iter().collect();
    let asked = match sent[..] {
        [] => Some(shell.budget),
        [value] => value.to_str().ok().and_then(|text| Deadline::parse(text).ok()),
        _ => None,
    };
    let asked = asked.ok_or_else(|| {
        Failure::invalid("X-Request-Timeout", "must be a whole number of milliseconds, once")
    })?;
    if asked.is_zero() {
        return Err(Failure::deadline_exceeded());
    }
    let deadline = Deadline::after(asked.min(shell.budget));
    if let Some(caller) = request.extensions_mut().remove::<Caller>() {
        request.extensions_mut().insert(Arc::new(caller.with_deadline(deadline)));
    }
    Ok(request)
}

fn ending() -> Failure {
    Failure::unavailable(code::SHUTTING_DOWN, "this instance is about to end")
}

/// Whether the body, if there is one, says that it is JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyKind {
    Empty,
    Json,
    Other,
}

async fn body(shell: &Shell, request: Request) -> Result<Request, Failure> {
    let (mut parts, body) = request.into_parts();
    let bytes = if body.is_end_stream() { Bytes::new() } else { arrived(shell, body).await? };
    if let Some(turn) = parts.extensions.remove::<Turn>() {
        turn.complete();
    }
    let kind = if bytes.is_empty() {
        BodyKind::Empty
    } else if is_json(&parts.headers) {
        BodyKind::Json
    } else {
        BodyKind::Other
    };
    parts.extensions.insert(kind);
    Ok(Request::from_parts(parts, Body::from(bytes)))
}

/// All of a body that comes in time.
async fn arrived(shell: &Shell, body: Body) -> Result<Bytes, Failure> {
    let draining = shell.lifecycle.draining();
    let end = async {
        draining.cancelled().await;
        tokio::time::sleep(LAST_BODY_TIME).await;
    };
    tokio::select! {
        biased;
        bytes = tokio::time::timeout(shell.body_time, whole(body)) => {
            bytes.unwrap_or_else(|_| Err(Failure::bad_request("the body came too slowly")))
        }
        () = end => Err(ending()),
    }
}

async fn whole(mut body: Body) -> Result<Bytes, Failure> {
    let mut kept = Vec::new();
    let mut seen = 0_usize;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| {
            Failure::bad_request("the body broke off or is malformed").with_source(e)
        })?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        seen = seen.saturating_add(data.len());
        if seen <= BODY_LIMIT {
            kept.extend_from_slice(&data);
        } else if seen > SURPLUS_LIMIT {
            break;
        } else {
            kept = Vec::new();
        }
    }
    if seen > BODY_LIMIT {
        return Err(Failure::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            code::BODY_TOO_LARGE,
            format!("the body is larger than {BODY_LIMIT} bytes"),
        ));
    }
    Ok(kept.into())
}

/// Throws away what a body has, up to what could have been accepted: a client that writes before it
/// reads then sees the answer. Whoever sends more, or slowly, may see a reset connection instead.
async fn discard(mut body: Body) {
    let all = async {
        let mut seen = 0;
        while let Some(Ok(frame)) = body.frame().await {
            seen += frame.data_ref().map_or(0, Bytes::len);
            if seen > BODY_LIMIT {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(DISCARD_TIME, all).await;
}

/// One content type, JSON by its essence, and nothing that would have to be decoded first.
fn is_json(headers: &HeaderMap) -> bool {
    let sent: Vec<_> = headers.get_all(CONTENT_TYPE).iter().collect();
    let [value] = sent[..] else { return false };
    let Ok(text) = value.to_str() else { return false };
    let essence = text.split(';').next().unwrap_or_default().trim();
    let plain = headers.get_all(CONTENT_ENCODING).iter().all(|coding| coding == "identity");
    plain && essence.eq_ignore_ascii_case("application/json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trailing_slash_goes_and_the_query_stays() {
        for (before, after) in [
            ("/a/", "/a"),
            ("/a//", "/a"),
            ("/a/?x=/", "/a?x=/"),
            ("/", "/"),
            ("/docs/", "/docs/"),
            ("/a", "/a"),
        ] {
            let mut uri: Uri = before.parse().unwrap();
            trim_trailing_slash(&mut uri);
            assert_eq!(uri.to_string(), after);
        }
    }

    #[test]
    fn json_is_told_by_its_essence() {
        for (value, json) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/json-patch+json", false),
            ("text/json", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_str(value).unwrap());
            assert_eq!(is_json(&headers), json, "{value}");
            headers.append(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            assert!(!is_json(&headers), "two types are none");
        }
    }

    #[test]
    fn the_log_has_the_beginning_of_a_long_path() {
        assert_eq!(shown("/a"), "/a");
        let long = format!("/{}", "\u{e4}".repeat(10_000));
        assert!(shown(&long).len() <= LOGGED && long.starts_with(shown(&long)));
    }

    #[test]
    fn only_whole_segments_are_plumbing() {
        assert!(is_plumbing("/manage/health") && is_plumbing("/metrics"));
        assert!(!is_plumbing("/managed") && !is_plumbing("/api/v1/manage"));
    }
}
