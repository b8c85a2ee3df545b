//! Takes spans over OTLP, as a collector does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use axum::{Router, serve};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message as _;
use service::testing::until;
use tokio::net::TcpListener;

use crate::world::Plan;

/// How long spans may take that are sent every 100 ms, on a crowded machine.
const SENT: Duration = Duration::from_secs(20);

#[derive(Clone, Debug)]
pub(super) struct Span {
    pub(super) service: String,
    pub(super) trace: String,
    pub(super) id: String,
    /// Empty, where there is none.
    pub(super) parent: String,
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) failed: bool,
    pub(super) attributes: BTreeMap<String, String>,
    pub(super) events: Vec<String>,
}

impl Span {
    pub(super) fn is(&self, attribute: &str, value: &str) -> bool {
        self.attributes.get(attribute).is_some_and(|found| found == value)
    }
}

/// All that was sent: span by span, and as it came.
#[derive(Default)]
struct Taken {
    spans: Vec<Span>,
    raw: String,
}

/// Listens until the test ends.
pub(crate) struct Collector {
    pub(super) url: String,
    taken: Arc<Mutex<Taken>>,
}

impl Collector {
    pub(crate) async fn start() -> Self {
        let taken = Arc::<Mutex<Taken>>::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&taken));
        tokio::spawn(async move { serve(listener, app).await });
        Self { url, taken }
    }

    /// All services of the plan send their spans here, soon.
    pub(crate) fn takes_from(&self, plan: Plan) -> Plan {
        traced(plan, &self.url)
    }

    /// All spans of a trace so far.
    pub(super) fn trace(&self, trace: &str) -> Trace {
        let taken = self.taken.lock().unwrap();
        Trace(taken.spans.iter().filter(|span| span.trace == trace).cloned().collect())
    }

    /// All spans so far.
    pub(super) fn all(&self) -> Vec<Span> {
        self.taken.lock().unwrap().spans.clone()
    }

    /// The same with everything in it, such as what events say.
    pub(crate) fn raw(&self) -> String {
        self.taken.lock().unwrap().raw.clone()
    }

    /// Waits until a trace has what is asked for.
    pub(super) async fn until<T>(
        &self,
        trace: &str,
        what: &str,
        ask: impl Fn(&Trace) -> Option<T>,
    ) -> T {
        let found = async || ask(&self.trace(trace));
        let asked = tokio::time::timeout(SENT, until(SENT * 2, what, found)).await;
        asked.unwrap_or_else(|_| panic!("{what}: not in {:#?}", self.trace(trace).paths()))
    }
}

/// With each trace sent there, soon.
pub(super) fn traced(plan: Plan, url: &str) -> Plan {
    plan.variable("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        .variable("OTEL_TRACES_SAMPLER", "parentbased_always_on")
        .variable("OTEL_BSP_SCHEDULE_DELAY", "100")
}

async fn take(State(taken): State<Arc<Mutex<Taken>>>, body: Bytes) -> Vec<u8> {
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    let mut taken = taken.lock().unwrap();
    taken.raw.extend([format!("{request:?}\n")]);
    for of_service in request.resource_spans {
        let resource = attributes(of_service.resource.unwrap_or_default().attributes);
        for span in of_service.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            let kinds = ["unspecified", "internal", "server", "client", "producer", "consumer"];
            taken.spans.push(Span {
                service: resource["service.name"].clone(),
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                name: span.name,
                kind: kinds[usize::try_from(span.kind).unwrap()],
                failed: span.status.is_some_and(|status| status.code() == StatusCode::Error),
                attributes: attributes(span.attributes),
                events: span.events.into_iter().map(|event| event.name).collect(),
            });
        }
    }
    // An empty answer: all of it was taken.
    Vec::new()
}

fn hex(id: &[u8]) -> String {
    id.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn attributes(all: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<AnyValue>| match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    all.into_iter().map(|one| (one.key, text(one.value))).collect()
}

/// The spans of one trace.
pub(super) struct Trace(pub(super) Vec<Span>);

impl Trace {
    pub(super) fn find(&self, service: &str, kind: &str, name: &str) -> Option<&Span> {
        let mut all = self.0.iter();
        all.find(|span| span.service == service && span.kind == kind && span.name.starts_with(name))
    }

    /// How one came about: from the first one on, without those between that only structure it.
    pub(super) fn path(&self, span: &Span) -> Vec<String> {
        let mut path = Vec::new();
        let mut at = Some(span);
        while let Some(span) = at {
            path.push(format!("{} {} {}", span.service, span.kind, span.name));
            at = self.0.iter().find(|other| other.id == span.parent);
        }
        path.reverse();
        path
    }

    pub(super) fn paths(&self) -> Vec<Vec<String>> {
        self.0.iter().map(|span| self.path(span)).collect()
    }

    /// Those that nobody in it has begun.
    pub(super) fn roots(&self) -> Vec<&Span> {
        let is_known = |id: &str| self.0.iter().any(|span| span.id == id);
        self.0.iter().filter(|span| !is_known(&span.parent)).collect()
    }
}
