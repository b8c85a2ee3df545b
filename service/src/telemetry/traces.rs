//! Spans, sent over OTLP where an endpoint is configured. The only module that knows `opentelemetry`.
//!
//! A request's span goes on with the trace that its caller sends, and each attempt at a call has a span
//! of its own, whose ids go out with it: so a trace goes from service to service. What is done later is
//! in the trace of the request that deferred it, as that request's child, however late: there is one
//! call to a row, so that the conventions for messages allow it, and whoever has the id of a trace finds
//! the end of the story in it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use http::{HeaderMap, HeaderValue};
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::subscriber::Interest;
use tracing::{Level, Metadata, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{DynFilterFn, FilterExt as _, Targets, filter_fn};
use tracing_subscriber::layer;
use tracing_subscriber::registry::LookupSpan;
use uuid::Uuid;

use super::ANSWERED;
use crate::observe::{TRACEPARENT, traceparent};

/// Longest that an end waits for what is still to be sent.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Of the traces that no caller has decided on, one in so many, unless the environment says otherwise: as
/// many as Spring Boot sends (<https://docs.spring.io/spring-boot/reference/actuator/tracing.html>).
const ONE_IN: u128 = 10;

/// Whether there are any: else nothing of this costs more than a look at it.
static ON: AtomicBool = AtomicBool::new(false);

/// Whether it is decided here which requests are in one, and not by the sampler of the environment. What
/// a span costs is spent before a sampler is asked: one that nobody wants is better not there.
static SAMPLING: AtomicBool = AtomicBool::new(false);

/// The spans of this process, where they are sent anywhere.
#[derive(Debug)]
pub struct Traces(Option<SdkTracerProvider>);

impl Traces {
    /// Nobody wants them.
    pub(super) const NONE: Self = Self(None);

    /// To where the environment says, if it does. Spans are sent from a thread of their own: where
    /// nobody takes them, 2048 wait (`OTEL_BSP_MAX_QUEUE_SIZE`), and any more are dropped.
    pub(super) fn start(service: &'static str) -> anyhow::Result<Self> {
        if !is_wanted() {
            return Ok(Self::NONE);
        }
        let exporter = SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary);
        let exporter = exporter.build().context("OTEL_EXPORTER_OTLP_ENDPOINT")?;
        let instance = KeyValue::new("service.instance.id", Uuid::new_v4().to_string());
        let mut resource = Resource::builder().with_attribute(instance);
        if !is_named() {
            resource = resource.with_service_name(service);
        }
        let provider = SdkTracerProvider::builder()
            .with_resource(resource.build())
            .with_batch_exporter(exporter)
            .build();
        SAMPLING.store(given("OTEL_TRACES_SAMPLER").is_empty(), Ordering::Relaxed);
        ON.store(true, Ordering::Relaxed);
        Ok(Self(Some(provider)))
    }

    /// What turns spans of `tracing` into those that are sent, where any are.
    pub(super) fn layer<S>(&self, service: &'static str) -> Option<impl Layer<S> + use<S>>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        let tracer = self.0.as_ref()?.tracer(service);
        // Ours in detail; of others what they warn of. What is said while spans are sent is in none.
        let wanted = Targets::new()
            .with_default(Level::WARN)
            .with_targets([service, "service", "resilience"].map(|ours| (ours, Level::DEBUG)))
            .with_target("opentelemetry", tracing::level_filters::LevelFilter::OFF);
        let spans = tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            // Nobody asks for OpenTelemetry's own idea of where a thread is, and each poll would tell it.
            .with_context_activation(false)
            // Where a span has failed, it says so itself.
            .with_error_events_to_status(false)
            .with_error_events_to_exceptions(false)
            .with_error_records_to_exceptions(false)
            .with_error_fields_to_exceptions(false);
        // That a request was answered, its span says as well as the line.
        let told = filter_fn(|what| what.is_span() || what.target() != ANSWERED);
        // What is done for something that is in no trace begins none: health asks the database every few
        // seconds, and so does whoever looks for deferred calls.
        let within = DynFilterFn::new(|what, around: &layer::Context<'_, S>| {
            !is_part(what) || around.lookup_current().is_some()
        });
        let within = within.with_callsite_filter(|what| {
            if is_part(what) { Interest::sometimes() } else { Interest::always() }
        });
        Some(spans.with_filter(wanted.and(told).and(within)))
    }

    /// Sends what is left, for two seconds at most. Blocks.
    pub fn end(self) {
        if let Some(provider) = self.0
            && let Err(error) = provider.shutdown_with_timeout(LAST_WORDS)
        {
            tracing::warn!(%error, "not all spans could be sent");
        }
    }
}

/// Whether it is a span that begins no trace. Those that do are requests, and attempts at deferred calls.
fn is_part(what: &Metadata<'_>) -> bool {
    let begins = *what.level() <= Level::INFO && what.fields().field("otel.kind").is_some();
    what.is_span() && !begins
}

fn given(variable: &str) -> String {
    std::env::var(variable).unwrap_or_default()
}

/// By OpenTelemetry's variables.
fn is_wanted() -> bool {
    let endpoints = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];
    endpoints.iter().any(|name| !given(name).is_empty())
        && !given("OTEL_SDK_DISABLED").eq_ignore_ascii_case("true")
        && given("OTEL_TRACES_EXPORTER") != "none"
}

/// Whether the environment names the service.
fn is_named() -> bool {
    !given("OTEL_SERVICE_NAME").is_empty()
        || given("OTEL_RESOURCE_ATTRIBUTES").contains("service.name=")
}

/// Whether a request is in a trace, as far as that is decided here: by its caller, or else by chance.
pub(crate) fn samples(headers: &HeaderMap) -> bool {
    if !SAMPLING.load(Ordering::Relaxed) {
        return true;
    }
    match traceparent(headers).and_then(|named| read(named.to_str().ok()?)) {
        Some(parent) => parent.is_sampled(),
        None => Uuid::new_v4().as_u128().is_multiple_of(ONE_IN),
    }
}

/// A request's span goes on with the trace that its caller names. The `traceparent` of the span, which
/// is not to be entered yet; nothing where it is in no trace.
pub(crate) fn join(span: &Span, headers: &HeaderMap) -> Option<HeaderValue> {
    if !ON.load(Ordering::Relaxed) {
        return None;
    }
    go_on(span, traceparent(headers).and_then(|named| named.to_str().ok()));
    own(span)
}

/// What is done later goes on with the trace of what travels with it.
pub(crate) fn resume(span: &Span, travelling: &BTreeMap<String, String>) {
    if ON.load(Ordering::Relaxed) {
        go_on(span, travelling.get(TRACEPARENT.as_str()).map(String::as_str));
    }
}

/// Has whoever is called go on with the trace of this span.
pub(crate) fn inject(span: &Span, headers: &mut HeaderMap) {
    if ON.load(Ordering::Relaxed)
        && let Some(own) = own(span)
    {
        headers.insert(TRACEPARENT, own);
    }
}

/// `tracestate` is left behind: its sender would have it in each span, and in the head of each call that
/// is made for him, which then may be longer than whoever is called takes.
fn go_on(span: &Span, traceparent: Option<&str>) {
    if let Some(parent) = traceparent.and_then(read) {
        // It has not begun yet; or nobody looks at it.
        drop(span.set_parent(Context::new().with_remote_span_context(parent)));
    }
}

fn read(traceparent: &str) -> Option<SpanContext> {
    let mut parts = traceparent.split('-').skip(1);
    let trace = TraceId::from_hex(parts.next()?).ok()?;
    let span = SpanId::from_hex(parts.next()?).ok()?;
    let flags = TraceFlags::new(u8::from_str_radix(parts.next()?, 16).ok()?) & TraceFlags::SAMPLED;
    let parent = SpanContext::new(trace, span, flags, true, TraceState::NONE);
    parent.is_valid().then_some(parent)
}

fn own(span: &Span) -> Option<HeaderValue> {
    let context = span.context();
    let span = context.span();
    let ids = span.span_context();
    let flags = ids.trace_flags() & TraceFlags::SAMPLED;
    let text = || format!("00-{}-{}-{flags:02x}", ids.trace_id(), ids.span_id());
    ids.is_valid().then(|| HeaderValue::try_from(text()).ok()).flatten()
}

/// The ids of the trace and of the span that this thread is in.
pub(super) fn current() -> Option<(String, String)> {
    if !ON.load(Ordering::Relaxed) {
        return None;
    }
    let context = Span::current().context();
    let span = context.span();
    let ids = span.span_context();
    ids.is_valid().then(|| (ids.trace_id().to_string(), ids.span_id().to_string()))
}
