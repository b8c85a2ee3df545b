//! Log lines: readable ones, and JSON.

use std::fmt;

use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::span::Record;
use tracing::{Event, Span, Subscriber};
use tracing_subscriber::Registry;
use tracing_subscriber::field::{RecordFields, VisitOutput};
use tracing_subscriber::fmt::format::{DefaultVisitor, Format, Json, Writer};
use tracing_subscriber::fmt::time::SystemTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use super::traces;
use crate::observe::Ids;

/// Has every line within this span tell whose work it is.
pub(crate) fn identify(span: &Span, ids: Ids) {
    span.with_subscriber(|(id, subscriber)| {
        let registry = subscriber.downcast_ref::<Registry>();
        if let Some(span) = registry.and_then(|registry| registry.span(id)) {
            span.extensions_mut().replace(ids);
        }
    });
}

/// JSON, with the ids of the request, the trace and the span on top.
pub(super) struct Identified(pub(super) Format<Json, SystemTime>);

#[derive(Serialize)]
struct Shown<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    trace_id: &'a str,
    span_id: &'a str,
}

impl<S, N> FormatEvent<S, N> for Identified
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.0.format_event(ctx, Writer::new(&mut line), event)?;
        let around = ctx.event_scope().into_iter().flatten();
        let ids = around.into_iter().find_map(|span| span.extensions().get::<Ids>().cloned());
        let current = traces::current().or_else(|| {
            let ids = ids.as_ref()?;
            Some((ids.trace_id.clone()?, ids.span_id.clone()?))
        });
        let Some((trace_id, span_id)) = &current else { return writer.write_str(&line) };
        let request_id = ids.as_ref().and_then(|ids| ids.request_id.as_deref());
        let shown = serde_json::to_string(&Shown { request_id, trace_id, span_id });
        let shown = shown.map_err(|_| fmt::Error)?;
        // Both are objects, and neither is empty.
        let (shown, rest) = (shown.trim_end_matches('}'), line.trim_start_matches('{'));
        write!(writer, "{shown},{rest}")
    }
}

/// Fields as they are read by people: without those of OpenTelemetry's conventions, whose names have a
/// dot, and which say in spans what lines say in words.
pub(super) struct Readable;

impl<'writer> FormatFields<'writer> for Readable {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut shown = Plain(DefaultVisitor::new(writer, true));
        fields.record(&mut shown);
        shown.0.finish()
    }

    fn add_fields(
        &self,
        current: &'writer mut FormattedFields<Self>,
        fields: &Record<'_>,
    ) -> fmt::Result {
        let is_empty = current.fields.is_empty();
        let mut shown = Plain(DefaultVisitor::new(current.as_writer(), is_empty));
        fields.record(&mut shown);
        shown.0.finish()
    }
}

struct Plain<'writer>(DefaultVisitor<'writer>);

fn is_convention(field: &Field) -> bool {
    field.name().contains('.')
}

impl Visit for Plain<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if !is_convention(field) {
            self.0.record_debug(field, value);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if !is_convention(field) {
            self.0.record_str(field, value);
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        if !is_convention(field) {
            self.0.record_error(field, value);
        }
    }
}
