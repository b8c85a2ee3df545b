//! What is sent, and what the answers of a healthy service mean.

use std::time::Duration;

use resilience::http::{
    ByKind, Client, Context, Effect, ErrorKind, HeaderName, HeaderValue, StatusCode,
};
use resilience::{Classify, Deadline, Retry, RetryBudget, State, Verdict};
use serde_json::{Value, json};

use crate::server::{self, Reaction, Server, answer, header};
use crate::{client, transport};

fn cx() -> Context {
    Context::new()
}

fn error_body(code: &str) -> String {
    json!({ "code": code, "message": format!("says {code}"), "requestId": "r" }).to_string()
}

fn error_answer(status: u16, headers: &[(&str, &str)], code: &str) -> Reaction {
    let mut headers = headers.to_vec();
    headers.push(("content-type", "application/json"));
    Reaction::Send(answer(status, &headers, &error_body(code)))
}

#[tokio::test]
async fn a_secret_header_goes_out_with_every_request_and_is_shown_nowhere() {
    let mut server = Server::always(server::json(200, "{}")).await;
    let name = HeaderName::from_static("authorization");
    let client = Client::builder("peer", server.url.clone())
        .secret_header(name.clone(), HeaderValue::from_static("Bearer geheim"))
        .build(&transport());
    // Not even whoever has a say in the rest of a request has one in this.
    let forged = HeaderValue::from_static("Bearer forged");
    let cx = cx().with_header(name.clone(), forged.clone());
    let request = client.get("/things").header(name, forged);
    let shown = format!("{client:?} {request:?}");
    assert!(!shown.contains("geheim"), "{shown}");
    request.fetch::<Value>(&cx).await.expect("a reply");

    let request = server.request().await;
    assert_eq!(header(&request, "authorization"), Some("Bearer geheim"));
    assert_eq!(request.matches("authorization").count(), 1);
}

#[tokio::test]
async fn whoever_is_told_of_an_attempt_has_a_say_in_what_goes_out_but_not_in_the_secret() {
    let replies = [Reaction::Send(answer(503, &[], "")), server::json(200, "{}")];
    let mut server = Server::start(move |n| std::future::ready(replies[n].clone())).await;
    let retry = Retry::new(RetryBudget::unlimited("peer")).attempts(2);
    let secret = HeaderName::from_static("authorization");
    let client = Client::builder("peer", server.url.clone())
        .retry(retry)
        .secret_header(secret, HeaderValue::from_static("Bearer geheim"))
        .on_attempt(|_, headers| {
            assert!(!headers.contains_key("authorization"));
            let trace = headers["traceparent"].to_str().expect("text").to_owned();
            headers.insert("traceparent", HeaderValue::try_from(trace + "-own").expect("a value"));
        })
        .build(&transport());
    let name = HeaderName::from_static("traceparent");
    let cx = cx().with_header(name, HeaderValue::from_static("caller"));
    client.get("/").fetch::<Value>(&cx).await.expect("a reply");
    for _ in 0..2 {
        let request = server.request().await;
        assert_eq!(header(&request, "traceparent"), Some("caller-own"), "each from the beginning");
    }
}

#[tokio::test]
async fn a_request_carries_what_it_was_given() {
    let mut server = Server::always(server::json(201, "{\"id\": 7}")).await;
    let mut base = server.url.clone();
    base.set_path("/prefix/");
    let cx = cx()
        .with_deadline(Deadline::after(Duration::from_mins(1)))
        .with_header(HeaderName::from_static("x-request-id"), HeaderValue::from_static("abc"))
        .with_header(HeaderName::from_static("x-own"), HeaderValue::from_static("context"));
    let reply = client(&base)
        .post("/things")
        .query("q", "a b&c")
        .query("q", "d")
        .header(HeaderName::from_static("x-own"), HeaderValue::from_static("request"))
        .idempotency_key("key-1")
        .json(&json!({ "size": "M" }))
        .timeout(Duration::from_secs(5))
        .expect(StatusCode::CREATED)
        .fetch::<Value>(&cx)
        .await
        .expect("a reply");
    assert_eq!(reply.status, StatusCode::CREATED);
    assert_eq!(reply.body["id"], 7);
    assert!(reply.headers.contains_key("content-type"));

    let request = server.request().await;
    assert!(request.starts_with("POST /prefix/things?q=a+b%26c&q=d HTTP/1.1\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\n{\"size\":\"M\"}"), "{request}");
    assert_eq!(header(&request, "x-request-id"), Some("abc"));
    assert_eq!(header(&request, "x-own"), Some("request"));
    assert_eq!(request.matches("x-own").count(), 1);
    assert_eq!(header(&request, "idempotency-key"), Some("key-1"));
    assert_eq!(header(&request, "content-type"), Some("application/json"));
    assert_eq!(header(&request, "accept"), Some("application/json"));
    assert_eq!(header(&request, Deadline::HEADER), Some("5000"));
}

#[tokio::test]
async fn the_deadline_narrows_the_timeout_that_is_passed_on() {
    let mut server = Server::always(Reaction::Send(answer(204, &[], ""))).await;
    let cx = cx().with_deadline(Deadline::after(Duration::from_secs(4)));
    let client = client(&server.url);
    let narrowed = client.delete("/thing").timeout(Duration::from_secs(30));
    narrowed.execute(&cx).await.expect("done");
    let request = server.request().await;
    assert!(request.starts_with("DELETE /thing "), "{request}");
    let passed_on = header(&request, Deadline::HEADER).expect("a timeout");
    let millis: u64 = passed_on.parse().expect("a number");
    assert!((1..4000).contains(&millis), "{millis}");
}

#[tokio::test]
async fn executing_looks_at_the_status_only() {
    let server = Server::always(Reaction::Send(answer(200, &[], "whatever"))).await;
    let client = client(&server.url);
    let done = client.post("/").expect(StatusCode::OK).execute(&cx()).await;
    assert!(done.is_ok());
    let error = client.post("/").execute(&cx()).await.expect_err("not 204");
    assert!(matches!(error.kind(), ErrorKind::Unreadable(_)), "{error:?}");
}

#[tokio::test]
async fn a_final_code_is_a_refusal_and_no_failure() {
    let server = Server::always(error_answer(404, &[], "not_found")).await;
    let client = client(&server.url);
    for _ in 0..5 {
        let error = client.get("/").fetch::<Value>(&cx()).await.expect_err("404");
        assert!(matches!(error.kind(), ErrorKind::Refused(_)), "{error:?}");
        assert_eq!(error.effect(), Effect::None);
        assert_eq!(error.code(), Some("not_found"));
        assert_eq!(error.to_string(), "says not_found");
        assert_eq!(error.refusal().expect("one").status, StatusCode::NOT_FOUND);
    }
    assert_eq!(client.breaker().state(), State::Closed);
}

#[tokio::test]
async fn a_classification_of_ones_own_decides_what_counts() {
    let server = Server::always(error_answer(404, &[], "not_found")).await;
    let strict = |error: &ErrorKind| match error {
        ErrorKind::Refused(_) => Verdict::Failure("knows nothing".into()),
        other => ByKind.classify(other),
    };
    let client = Client::builder("billing", server.url.clone())
        .final_codes(&["not_found"])
        .classify(strict)
        .build(&transport());
    for _ in 0..3 {
        client.get("/").fetch::<Value>(&cx()).await.expect_err("404");
    }
    let snapshot = client.breaker().snapshot();
    assert_eq!((snapshot.state, snapshot.reason.as_deref()), (State::Open, Some("knows nothing")));
}

#[tokio::test]
async fn a_4xx_that_is_not_final_is_a_failure() {
    let unknown = error_answer(400, &[], "invalid_request");
    let array = server::json(404, "[\"not_found\", \"says not_found\"]");
    let no_message = server::json(404, "{\"code\": \"not_found\"}");
    let untyped = Reaction::Send(answer(404, &[], &error_body("not_found")));
    for reaction in [unknown, array, no_message, untyped] {
        let server = Server::always(reaction).await;
        let client = client(&server.url);
        for _ in 0..3 {
            let error = client.get("/").fetch::<Value>(&cx()).await.expect_err("4xx");
            assert!(matches!(error.kind(), ErrorKind::Unreadable(_)), "{error:?}");
            assert_eq!(error.effect(), Effect::Unknown);
        }
        assert_eq!(client.breaker().state(), State::Open);
    }
}

#[tokio::test]
async fn busy_answers_are_retryable() {
    let cases = [
        (error_answer(409, &[], "idempotency_in_progress"), Effect::Unknown, State::Closed),
        (error_answer(401, &[], "unauthorized"), Effect::None, State::Closed),
        (Reaction::Send(answer(401, &[], "")), Effect::Unknown, State::Closed),
        (
            error_answer(429, &[("retry-after", "7")], "too_many_requests"),
            Effect::None,
            State::Open,
        ),
    ];
    for (reaction, effect, state) in cases {
        let server = Server::always(reaction).await;
        let client = client(&server.url);
        for _ in 0..3 {
            let error = client.get("/").fetch::<Value>(&cx()).await.expect_err("busy");
            assert!(matches!(error.kind(), ErrorKind::Busy(_)), "{error:?}");
            assert_eq!(error.effect(), effect);
            if state == State::Open {
                assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
            }
        }
        assert_eq!(client.breaker().state(), state);
    }
}

#[tokio::test]
async fn a_failed_dependency_further_down_is_not_the_fault_of_the_hop() {
    let headers = [("x-failed-dependency", "warranty"), ("retry-after", "3")];
    let server = Server::always(error_answer(503, &headers, "dependency_unavailable")).await;
    let client = client(&server.url);
    for _ in 0..5 {
        let error = client.get("/").fetch::<Value>(&cx()).await.expect_err("503");
        assert!(matches!(error.kind(), ErrorKind::Downstream(_)), "{error:?}");
        assert_eq!(error.dependency(), "warranty");
        assert_eq!(error.effect(), Effect::Unknown);
        assert_eq!(error.retry_after(), Some(Duration::from_secs(3)));
        assert_eq!(error.to_string(), "says dependency_unavailable");
    }
    assert_eq!(client.breaker().state(), State::Closed);
}

#[tokio::test]
async fn a_name_that_is_none_is_not_passed_on() {
    let headers = [("x-failed-dependency", "<script>")];
    let server = Server::always(error_answer(503, &headers, "x")).await;
    let error = client(&server.url).get("/").fetch::<Value>(&cx()).await.expect_err("503");
    assert!(matches!(error.kind(), ErrorKind::Unavailable(_)), "{error:?}");
    assert_eq!(error.dependency(), "billing");
}

#[tokio::test]
async fn a_no_effect_code_says_that_nothing_happened() {
    let named = [("x-failed-dependency", "warranty")];
    for (headers, code, effect) in [
        (&named[..], "rolled_back", Effect::None),
        (&named[..], "rollback_pending", Effect::Unknown),
        (&[], "rolled_back", Effect::None),
        (&[], "database_unavailable", Effect::Unknown),
    ] {
        let server = Server::always(error_answer(503, headers, code)).await;
        let error = client(&server.url).post("/").execute(&cx()).await.expect_err("503");
        assert_eq!(error.effect(), effect, "{error:?}");
        assert_eq!(error.code(), Some(code));
    }
}

#[tokio::test]
async fn a_503_with_a_working_code_is_not_the_fault_of_the_hop() {
    let cases = [(503, "rolled_back", State::Closed), (500, "rolled_back", State::Open)];
    for (status, code, state) in cases {
        let server = Server::always(error_answer(status, &[], code)).await;
        let client = client(&server.url);
        for _ in 0..5 {
            let error = client.get("/").fetch::<Value>(&cx()).await.expect_err("it failed");
            if state == State::Closed {
                assert!(matches!(error.kind(), ErrorKind::Downstream(_)), "{error:?}");
                assert_eq!(error.dependency(), "billing");
                assert_eq!(error.to_string(), "says rolled_back");
            }
        }
        assert_eq!(client.breaker().state(), state);
    }
}

#[tokio::test]
async fn deadline_exceeded_is_ignored() {
    let server = Server::always(error_answer(503, &[], "deadline_exceeded")).await;
    let client = client(&server.url);
    for _ in 0..5 {
        let error = client.get("/").fetch::<Value>(&cx()).await.expect_err("503");
        assert!(matches!(error.kind(), ErrorKind::Unavailable(_)), "{error:?}");
        assert_eq!(error.to_string(), "billing was given too little time");
    }
    assert_eq!(client.breaker().state(), State::Closed);
}

#[tokio::test]
async fn a_timeout_under_a_shorter_deadline_is_ignored() {
    let server = Server::always(Reaction::Hang).await;
    let client = Client::builder("billing", server.url.clone())
        .timeout(Duration::from_mins(1))
        .build(&transport());
    for _ in 0..5 {
        let cx = cx().with_deadline(Deadline::after(Duration::from_millis(20)));
        let error = client.get("/").fetch::<Value>(&cx).await.expect_err("hung");
        assert!(matches!(error.kind(), ErrorKind::TimedOut { inherited: true, .. }), "{error:?}");
        assert_eq!(error.effect(), Effect::Unknown);
    }
    let snapshot = client.breaker().snapshot();
    assert_eq!((snapshot.state, snapshot.reason), (State::Closed, None));
}

#[tokio::test]
async fn without_time_nothing_is_sent() {
    let server = Server::always(Reaction::Hang).await;
    let client = client(&server.url);
    let cx = cx().with_deadline(Deadline::after(Duration::from_micros(900)));
    let error = client.get("/").fetch::<Value>(&cx).await.expect_err("late");
    assert!(matches!(error.kind(), ErrorKind::DeadlineExceeded), "{error:?}");
    assert_eq!(error.effect(), Effect::None);
    assert_eq!(server.hits(), 0);
}
