//! The table of bad input: what every route must refuse with a 4xx in the envelope, whatever it
//! does otherwise.
//!
//! A service lists its routes; [`check`] derives some hundred requests from them, sends them all,
//! and reports every answer that isn't the one of the contract. That nothing was written is for the
//! caller to see, before and after.

mod route;
mod values;

use serde_json::Value;

use super::{Call, Client, Response, wrong_ids};
use route::Body;
pub use route::Route;
pub use values::{no_integer, no_text, no_uuid};

/// One request, and what must come back.
struct Case {
    name: String,
    call: Call,
    status: u16,
    code: &'static str,
}

impl Case {
    fn new(name: impl Into<String>, call: Call, status: u16, code: &'static str) -> Self {
        Self { name: name.into(), call, status, code }
    }

    fn bad(name: impl Into<String>, call: Call) -> Self {
        Self::new(name, call, 400, "invalid_request")
    }
}

/// Sends everything that is wrong to every route, and to addresses that are none.
///
/// # Panics
/// With a list of all answers that aren't the ones of the contract.
pub async fn check(url: &str, routes: &[Route]) {
    let client = Client::new(url);
    let mut cases = Vec::new();
    for route in routes {
        ids(&client, route, &mut cases);
        headers(&client, route, &mut cases);
        types(&client, route, &mut cases);
        sizes(&client, route, &mut cases);
        if route.body != Body::None {
            bodies(&client, route, &mut cases);
            fields(&client, route, &mut cases);
        }
    }
    elsewhere(&client, routes, &mut cases);
    assert!(!cases.is_empty(), "no routes");

    let mut wrong = Vec::new();
    let total = cases.len();
    for Case { name, call, status, code } in cases {
        let said = match call.try_send().await {
            Ok(answer) => inspect(&answer, status, code),
            Err(error) => Err(format!("no answer: {error}")),
        };
        if let Err(said) = said {
            wrong.push(format!("{name}: {said}"));
        }
    }
    let count = wrong.len();
    assert!(wrong.is_empty(), "{count} of {total} answers are wrong:\n{}", wrong.join("\n"));
}

fn inspect(answer: &Response, status: u16, code: &str) -> Result<(), String> {
    answer.envelope(status, code).map_err(|wrong| format!("{wrong}, not {answer:?}"))?;
    if status == 405 && answer.header("allow").is_none_or(str::is_empty) {
        return Err(format!("Allow is due: {answer:?}"));
    }
    Ok(())
}

fn label(route: &Route, what: &str) -> String {
    format!("{} {} {what}", route.method, route.target)
}

fn ids(client: &Client, route: &Route, cases: &mut Vec<Case>) {
    for (position, _) in route.ids.iter().enumerate() {
        for wrong in wrong_ids() {
            let mut ids = route.ids.clone();
            ids[position].clone_from(&wrong);
            let target = route.target_with(&ids);
            let name = label(route, &format!("with id {wrong:.60?}"));
            // The slash at the end must make no difference here either.
            if let Some((path, query)) = target.split_once('?') {
                let slashed = format!("{path}/?{query}");
                cases.push(Case::bad(
                    format!("{name} and a slash"),
                    route.valid_at(client, slashed),
                ));
            } else {
                let slashed = format!("{target}/");
                cases.push(Case::bad(
                    format!("{name} and a slash"),
                    route.valid_at(client, slashed),
                ));
            }
            cases.push(Case::bad(name, route.valid_at(client, target)));
        }
    }
    // Not even UTF-8.
    if let Some(path) = route.target.split('?').next().filter(|path| path.contains("{}")) {
        let target = path.replace("{}", "%ff%fe");
        cases.push(Case::bad(
            label(route, "with an id of no encoding"),
            route.valid_at(client, target),
        ));
    }
    for query in &route.bad_queries {
        let name = label(route, &format!("with the query {query:.60}"));
        let target = format!("{}?{query}", route.path());
        cases.push(Case::bad(name, route.valid_at(client, target)));
    }
}

fn headers(client: &Client, route: &Route, cases: &mut Vec<Case>) {
    for value in ["", "x", "-1", "+5", "1.5", "5 ms", "1e3", "0x10", "\u{e9}"] {
        let name = label(route, &format!("with X-Request-Timeout {value:?}"));
        cases.push(Case::bad(name, route.valid_call(client).header("X-Request-Timeout", value)));
    }
    for (header, value) in &route.bad_headers {
        let shown = String::from_utf8_lossy(value);
        let name = label(route, &format!("with {header} {shown:.60?}"));
        cases.push(Case::bad(name, route.valid_call(client).header(header, value)));
    }
    if route.method != "GET" {
        let name = label(route, "with two keys");
        cases.push(Case::bad(name, route.valid_call(client).key("a").key("b")));
    }
    let late = route.valid_call(client).header("X-Request-Timeout", "0");
    cases.push(Case::new(label(route, "without time"), late, 503, "deadline_exceeded"));
}

fn types(client: &Client, route: &Route, cases: &mut Vec<Case>) {
    const UNSUPPORTED: &str = "unsupported_media_type";

    let body = route.valid.to_string();
    let call = || client.call(route.method, route.target());
    for kind in [
        "text/plain",
        "text/json",
        "application/x-www-form-urlencoded",
        "application/jsonp",
        "application/json-patch+json",
        "multipart/form-data; boundary=x",
        "application",
        "",
        "\u{e9}",
    ] {
        let name = label(route, &format!("with a body of type {kind:?}"));
        let call = call().body(Some(kind), body.clone());
        cases.push(Case::new(name, call, 415, UNSUPPORTED));
    }
    let name = label(route, "with a body of no type");
    cases.push(Case::new(name, call().body(None, body.clone()), 415, UNSUPPORTED));
    let name = label(route, "with a body of no type and no length");
    cases.push(Case::new(name, call().body(None, body).chunked(), 415, UNSUPPORTED));
}

fn sizes(client: &Client, route: &Route, cases: &mut Vec<Case>) {
    for (size, shown) in [(64 * 1024 + 1, "64 KiB and 1"), (1 << 20, "1 MiB"), (8 << 20, "8 MiB")] {
        // Valid JSON, were it not for its length.
        let mut body = route.valid.to_string().into_bytes();
        body.resize(size, b' ');
        for (kind, typed) in [(Some("application/json"), "JSON"), (None, "no type")] {
            let call = client.call(route.method, route.target()).body(kind, body.clone());
            let name = label(route, &format!("with {shown} of {typed}"));
            cases.push(Case::new(name.clone(), call.clone(), 413, "body_too_large"));
            let name = format!("{name}, length unknown");
            cases.push(Case::new(name, call.chunked(), 413, "body_too_large"));
        }
    }
}

fn bodies(client: &Client, route: &Route, cases: &mut Vec<Case>) {
    let valid = route.valid.to_string();
    let mut bodies: Vec<(String, Vec<u8>)> = [
        "[]",
        "[{}]",
        "3",
        "1e999",
        "\"x\"",
        "true",
        "null",
        "{",
        "}",
        "{]",
        "nonsense",
        " ",
        "{\"a\"}",
        "{\"a\":}",
        "{'a':1}",
        "{\"a\":1,}",
        "{\"a\":NaN}",
        "{\"a\":1e999}",
        "\u{feff}{}",
    ]
    .map(|body| (format!("{body:?}"), body.as_bytes().to_vec()))
    .into();
    bodies.push(("the array of a body".to_owned(), format!("[{valid}]").into_bytes()));
    bodies.push(("two bodies".to_owned(), format!("{valid}{valid}").into_bytes()));
    bodies.push(("half a body".to_owned(), valid.as_bytes()[..valid.len() - 1].to_vec()));
    bodies.push(("a deep body".to_owned(), [b"{\"a\":".repeat(5_000), b"1".to_vec()].concat()));
    for (shown, text) in [
        ("a lone high surrogate", &b"{\"a\":\"\\ud800\"}"[..]),
        ("a lone low surrogate", b"{\"a\":\"\\udc00\"}"),
        ("surrogates the wrong way round", b"{\"a\":\"\\udc00\\ud800\"}"),
        ("a surrogate in UTF-8", b"{\"a\":\"\xed\xa0\x80\"}"),
        ("Latin-1", b"{\"a\":\"\xe9\"}"),
        ("UTF-16", b"{\0}\0"),
        ("a raw NUL", b"{\"a\":\"\0\"}"),
        ("a raw line break", b"{\"a\":\"\n\"}"),
    ] {
        bodies.push((shown.to_owned(), text.to_vec()));
    }
    if let Some(field) = route.fields.first() {
        let body = format!("{{\"{}\":\"\\ud83d\"}}", field.name).into_bytes();
        bodies.push(("half a pair of surrogates in a field".to_owned(), body));
    }
    if route.body == Body::Required {
        bodies.push(("an empty body of type JSON".to_owned(), Vec::new()));
        let bare = client.call(route.method, route.target());
        cases.push(Case::bad(label(route, "without a body"), bare));
    }
    for (shown, body) in bodies {
        let call = client.call(route.method, route.target());
        let name = label(route, &format!("with {shown}"));
        cases.push(Case::bad(name, call.body(Some("application/json"), body)));
    }
}

fn fields(client: &Client, route: &Route, cases: &mut Vec<Case>) {
    let call = |body: &Value| client.call(route.method, route.target()).json(body);
    for field in &route.fields {
        for bad in &field.bad {
            let name = label(route, &format!("with {} {:.60}", field.name, bad.to_string()));
            cases.push(Case::bad(name, call(&route.with_field(field.name, Some(bad)))));
        }
        if field.required {
            let without = route.with_field(field.name, None);
            cases.push(Case::bad(label(route, &format!("without {}", field.name)), call(&without)));
            let null = route.with_field(field.name, Some(&Value::Null));
            cases.push(Case::bad(label(route, &format!("with {} null", field.name)), call(&null)));
        }
    }
}

/// Addresses that no route has, and methods that no route knows.
fn elsewhere(client: &Client, routes: &[Route], cases: &mut Vec<Case>) {
    const METHOD: &str = "method_not_allowed";

    for target in [
        "/",
        "/nowhere",
        "/nowhere/",
        "/api",
        "/api/v1",
        "/api/v1/nowhere",
        "/api/v2",
        "//",
        "/manage",
        "/manage/health/nowhere",
        "/metrics/nowhere",
        "/api-docs",
        "/docs/nowhere",
        "/%00",
        "/%ff",
    ] {
        for method in ["GET", "POST", "DELETE", "PUT"] {
            let docs = target.starts_with("/docs");
            let (status, code) =
                if docs && method != "GET" { (405, METHOD) } else { (404, "not_found") };
            let name = format!("{method} {target}");
            cases.push(Case::new(name, client.call(method, target), status, code));
        }
    }
    let mut paths: Vec<_> = routes.iter().map(Route::path).collect();
    paths.extend(["/manage/health", "/manage/health/ready", "/metrics"].map(str::to_owned));
    paths.sort();
    paths.dedup();
    for path in paths {
        for method in ["PATCH", "PUT", "OPTIONS", "TRACE", "INVENTED"] {
            for target in [path.clone(), format!("{path}/")] {
                let name = format!("{method} {target}");
                cases.push(Case::new(name, client.call(method, target), 405, METHOD));
            }
        }
    }
}
