//! Whatever bytes arrive, the answer is one of the contract's, and nothing panics.
//!
//! Each property is tried as often as `PROPTEST_CASES` says, 256 times unless it does.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::routing::{get, post};
use http::{HeaderName, HeaderValue, Method, Request};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value};
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt as _;
use url::form_urlencoded::byte_serialize;

use crate::access::{Access, Callers};
use crate::answer::Answer;
use crate::chance::cases;
use crate::failure::Result;
use crate::idempotency::Key;
use crate::input::{Compensate, Ids, ItemUids, OptionalFields, Page, Pattern};
use crate::lifecycle::Lifecycle;
use crate::observe::Caller;
use crate::pipeline::{Piped, Shell, wrap};
use crate::traffic::Traffic;

static TEXT: Pattern = Pattern::new((r"^[\p{L}\p{N}][\p{L}\p{N} .,:+/()'&_-]*$", 255, "a text"));

const ID: &str = "6d2cb5a0-943c-4b96-9aa6-89eac7bdfd2b";

/// The parts of a request that a service reads, whoever it is sent by.
const HEADERS: &[&str] = &[
    "x-request-id",
    "x-request-timeout",
    "x-compensate",
    "idempotency-key",
    "traceparent",
    "content-type",
    "content-encoding",
    "content-length",
    "authorization",
    "accept",
];

/// Reads all that can be read from a request.
async fn read(
    caller: Caller,
    key: Key,
    Ids([id]): Ids<1>,
    page: Page,
    Compensate(compensate): Compensate,
    OptionalFields(body): OptionalFields,
) -> Result<Answer> {
    caller.context();
    let mut body = body.unwrap_or_default();
    let text = body.text("text", &TEXT);
    let (uid, number) = (body.optional_uuid("uid"), body.integer("number", 0..=1000));
    let text = body.finish(text.zip(number))?;
    let named = key.as_str().map(str::len);
    Answer::ok(&serde_json::json!([id, page.limit, compensate, text, uid, named]))
}

async fn list(ItemUids(ids): ItemUids) -> Result<Answer> {
    Answer::ok(&ids)
}

fn service() -> Piped {
    let shell = Shell {
        name: "hostile",
        lifecycle: Lifecycle::new(),
        budget: Duration::from_mins(1),
        access: Access::open("hostile", Callers::Services),
        body_time: Duration::from_mins(1),
        traffic: Traffic::default(),
    };
    let routes = Router::new()
        .route("/api/v1/things/{uid}", post(read).get(read).delete(read))
        .route("/api/v1/things", get(list));
    wrap(routes, shell)
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..300)
}

/// Values of headers: rubbish, and what is almost right.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let known = select(vec![
        "application/json",
        "application/json; charset=utf-8",
        "identity",
        "gzip",
        "true",
        "FALSE",
        "0",
        "60000",
        "99999999999999999999999999",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "Bearer x",
        ID,
    ]);
    prop_oneof![
        3 => known.prop_map(|text| text.as_bytes().to_vec()),
        1 => bytes(),
        1 => "[ -~]{0,300}".prop_map(String::into_bytes),
    ]
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        Just(Value::from(ID)),
        (0_i64..2000).prop_map(Value::from),
        "[A-Za-z0-9 ]{1,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 20, 5, |inner| {
        let name = prop_oneof![
            3 => select(vec!["text", "uid", "number"]).prop_map(str::to_owned),
            1 => any::<String>(),
        ];
        let fields = vec((name, inner.clone()), 0..5);
        prop_oneof![
            vec(inner, 0..5).prop_map(Value::from),
            fields.prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        2 => json().prop_map(|value| value.to_string().into_bytes()),
        1 => bytes(),
        1 => Just(Vec::new()),
    ]
}

fn path() -> impl Strategy<Value = String> {
    let segment = prop_oneof![
        4 => Just(ID.to_owned()),
        1 => "[!-~&&[^/?#]]{0,40}",
        1 => bytes().prop_map(|bytes| byte_serialize(&bytes).collect()),
    ];
    let query = prop_oneof![
        2 => Just(String::new()),
        1 => "(limit|offset|itemUid)=[0-9a-fA-F,%&=+-]{0,80}",
        1 => "[!-~&&[^#]]{0,80}",
    ];
    let path = prop_oneof![
        4 => segment.prop_map(|segment| format!("/api/v1/things/{segment}")),
        1 => Just("/api/v1/things".to_owned()),
        1 => "(/[!-~&&[^/?#]]{0,10}){1,4}/?",
    ];
    (path, query).prop_map(|(path, query)| format!("{path}?{query}"))
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn any_request_gets_an_answer_of_the_contract(
        method in select(vec!["GET", "POST", "DELETE", "PUT", "HEAD", "OPTIONS", "TRACE", "BREW"]),
        path in path(),
        headers in vec((select(HEADERS), value()), 0..8),
        body in body(),
    ) {
        let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap());
        for (name, value) in headers {
            // What hyper's parser refuses never gets here.
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                request = request.header(HeaderName::from_static(name), value);
            }
        }
        let Ok(request) = request.uri(path).body(Body::from(body)) else { return Ok(()) };
        let (head, body) = runtime().block_on(async {
            let (head, body) = service().oneshot(request).await.unwrap().into_parts();
            (head, to_bytes(body, usize::MAX).await.unwrap())
        });
        prop_assert!(head.headers.contains_key("x-request-id"));
        if head.status.is_success() || method == "HEAD" {
            return Ok(());
        }
        let known = [400, 404, 405, 413, 415, 503];
        prop_assert!(known.contains(&head.status.as_u16()), "{}", head.status);
        prop_assert_eq!(&head.headers["content-type"], "application/json");
        let envelope: Value = serde_json::from_slice(&body).unwrap();
        for field in ["message", "code", "requestId"] {
            prop_assert!(envelope[field].is_string(), "{}: {}", field, envelope);
        }
    }
}
