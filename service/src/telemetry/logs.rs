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
    #[serde(rename = "request_id", skip_serializing_if = "Option::is_none")]
    request: Option<&'a str>,
    #[serde(rename = "trace_id")]
    trace: &'a str,
    #[serde(rename = "span_id")]
    span: &'a str,
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
            Some((ids.trace.clone()?, ids.span.clone()?))
        });
        let Some((trace, span)) = &current else { return writer.write_str(&line) };
        let request = ids.as_ref().and_then(|ids| ids.request.as_deref());
        let shown = serde_json::to_string(&Shown { request, trace, span });
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

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use serde_json::Value;
    use tracing::field::Empty;
    use tracing_subscriber::fmt::{self, format};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Written {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    /// Something that happens to a request with this id.
    fn happens(id: &str) {
        let span = tracing::info_span!("request", id, otel.kind = "server", http.route = Empty);
        let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        identify(&span, Ids::new(Some(id), Some(traceparent)));
        span.record("http.route", "/x");
        span.in_scope(|| tracing::info_span!("step").in_scope(|| tracing::info!(n = 7, "done")));
    }

    #[test]
    fn lines_for_people_have_no_fields_for_tracers() {
        let written = Written::default();
        let writer = written.clone();
        let lines = fmt::fmt().fmt_fields(Readable).with_ansi(false).with_target(false);
        let lines = lines.with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(lines, || happens("mine"));
        let text = written.text();
        assert!(text.ends_with("INFO request{id=\"mine\"}:step: done n=7\n"), "{text}");
    }

    #[test]
    fn a_line_of_json_says_whose_it_is_whatever_a_client_calls_it() {
        for id in ["mine", r#"m"},{"\ne"#] {
            let written = Written::default();
            let writer = written.clone();
            let json = Identified(format().json().flatten_event(true).with_current_span(false));
            let lines = fmt::fmt().fmt_fields(format::JsonFields::new()).event_format(json);
            let lines = lines.with_writer(move || writer.clone()).finish();
            tracing::subscriber::with_default(lines, || happens(id));
            let text = written.text();
            let line: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"));
            let ids =
                ["request_id", "trace_id", "span_id"].map(|name| line[name].as_str().unwrap());
            assert_eq!(ids, [id, "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"]);
            assert_eq!((&line["message"], &line["n"]), (&"done".into(), &7.into()), "{line}");
        }
    }
}
