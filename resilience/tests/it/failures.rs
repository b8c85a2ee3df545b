//! What can be wrong with a dependency, and what is said about it.

use std::time::Duration;

use resilience::http::{CallError, Client, Context, Effect, ErrorKind};
use resilience::{Breaker, State};
use serde_json::Value;
use tokio::net::TcpListener;
use url::Url;

use crate::server::{Reaction, Server, answer};
use crate::{client, transport};

async fn fetch(client: &Client) -> CallError {
    let result = client.get("/thing").fetch::<Value>(&Context::new()).await;
    result.expect_err("it can't work")
}

/// Calls until the breaker opens, and checks that it took three calls and what everybody is told.
async fn opens_with(client: &Client, reason: &str) {
    for n in 0..3 {
        assert_eq!(client.breaker().state(), State::Closed, "after {n} calls");
        let error = fetch(client).await;
        assert_eq!(error.to_string(), format!("billing is unavailable: {reason}"));
        assert_eq!(error.dependency(), "billing");
    }
    let error = fetch(client).await;
    assert!(matches!(error.kind(), ErrorKind::Rejected(_)), "{error:?}");
    assert_eq!(error.effect(), Effect::None);
    assert!(error.retry_after().is_some());
    assert_eq!(
        error.to_string(),
        format!("billing is unavailable: {reason} (circuit breaker open, next attempt in 6 s)")
    );
}

#[tokio::test]
async fn refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let client = client(&Url::parse(&url).expect("a URL"));
    let error = fetch(&client).await;
    assert!(matches!(error.kind(), ErrorKind::Connect(_)), "{error:?}");
    assert_eq!(error.effect(), Effect::None);
    assert_eq!(error.to_string(), "billing is unavailable: connection refused");
}

#[tokio::test]
async fn a_name_that_does_not_resolve() {
    let client = client(&Url::parse("http://nowhere.invalid").expect("a URL"));
    let error = fetch(&client).await;
    assert!(matches!(error.kind(), ErrorKind::Connect(_)), "{error:?}");
    assert!(!error.to_string().contains("invalid"), "{error}");
}

#[tokio::test]
async fn a_peer_that_does_not_speak_tls() {
    let server = Server::always(Reaction::SendAndClose(b"what?\r\n\r\n".to_vec())).await;
    let mut url = server.url.clone();
    url.set_scheme("https").expect("a scheme");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    url.set_port(Some(listener.local_addr().expect("an address").port())).expect("a port");
    let client = client(&url);
    let peer = async {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"220 welcome\r\n")
            .await
            .expect("a connection");
        stream
    };
    let (error, _stream) = tokio::join!(fetch(&client), peer);
    assert!(matches!(error.kind(), ErrorKind::Connect(_)), "{error:?}");
    assert_eq!(error.effect(), Effect::None);
    assert_eq!(error.to_string(), "billing is unavailable: connection failed");
}

#[tokio::test]
async fn black_hole() {
    let server = Server::always(Reaction::Hang).await;
    let client = Client::builder("billing", server.url.clone())
        .timeout(Duration::from_millis(30))
        .build(&transport());
    let error = fetch(&client).await;
    assert!(
        matches!(
            error.kind(),
            ErrorKind::TimedOut { inherited: false, limit } if limit.as_millis() == 30
        ),
        "{error:?}"
    );
    assert_eq!(error.effect(), Effect::Unknown);
    let other = Client::builder("billing", server.url.clone())
        .timeout(Duration::from_millis(30))
        .build(&transport());
    opens_with(&other, "no answer within 30 ms").await;
}

#[tokio::test]
async fn reset_after_accept() {
    let server = Server::always(Reaction::Reset).await;
    let client = client(&server.url);
    let error = fetch(&client).await;
    assert!(matches!(error.kind(), ErrorKind::Lost(_)), "{error:?}");
    assert_eq!(error.effect(), Effect::Unknown);
    opens_with(&crate::client(&server.url), "connection lost").await;
}

#[tokio::test]
async fn closed_without_an_answer() {
    let server = Server::always(Reaction::SendAndClose(Vec::new())).await;
    opens_with(&client(&server.url), "connection lost").await;
}

#[tokio::test]
async fn half_a_head() {
    let server = Server::always(Reaction::SendAndClose(b"HTTP/1.1 200 O".to_vec())).await;
    opens_with(&client(&server.url), "connection lost").await;
}

#[tokio::test]
async fn half_a_body() {
    let mut bytes = answer(200, &[("content-type", "application/json")], "{\"a\": 1}");
    bytes.truncate(bytes.len() - 3);
    let server = Server::always(Reaction::SendAndClose(bytes)).await;
    opens_with(&client(&server.url), "connection lost").await;
}

#[tokio::test]
async fn a_body_that_never_ends_in_time() {
    let mut bytes = answer(200, &[("content-type", "application/json")], "{\"a\": 1}");
    bytes.truncate(bytes.len() - 3);
    // Keeps the connection, and waits for a request that won't come.
    let server = Server::always(Reaction::Send(bytes)).await;
    let client = Client::builder("billing", server.url.clone())
        .timeout(Duration::from_millis(30))
        .build(&transport());
    opens_with(&client, "no answer within 30 ms").await;
}

#[tokio::test]
async fn not_http() {
    let server = Server::always(Reaction::SendAndClose(b"220 smtp ready\r\n\r\n".to_vec())).await;
    let client = client(&server.url);
    let error = fetch(&client).await;
    assert!(matches!(error.kind(), ErrorKind::Unreadable(_)), "{error:?}");
    assert_eq!(error.effect(), Effect::Unknown);
}

#[tokio::test]
async fn rubbish_with_200() {
    let html = [("content-type", "text/html")];
    let typed = [("content-type", "application/json; charset=utf-8")];
    for (effect, bytes) in [
        (Effect::Unknown, answer(200, &html, "<h1>Welcome!</h1>")),
        (Effect::Unknown, answer(200, &html, "{}")),
        (Effect::Unknown, answer(200, &[], "{}")),
        (Effect::Done, answer(200, &typed, "<h1>Welcome!</h1>")),
        (Effect::Done, answer(200, &typed, "")),
        (Effect::Done, answer(200, &typed, "{\"half\": ")),
        (Effect::Unknown, answer(302, &[("location", "/elsewhere")], "")),
        (Effect::Unknown, answer(204, &[], "")),
        (Effect::Unknown, answer(201, &typed, "{}")),
    ] {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let server = Server::always(Reaction::Send(bytes)).await;
        let client = client(&server.url);
        let error = fetch(&client).await;
        assert!(matches!(error.kind(), ErrorKind::Unreadable(_)), "{error:?} of {text}");
        assert_eq!(error.effect(), effect, "{text}");
        opens_with(&crate::client(&server.url), "answered something unreadable").await;
    }
}

#[tokio::test]
async fn html_with_404_is_somebody_in_between() {
    let html = [("content-type", "text/html")];
    let server = Server::always(Reaction::Send(answer(404, &html, "<h1>nginx</h1>"))).await;
    let client = client(&server.url);
    let error = fetch(&client).await;
    assert!(matches!(error.kind(), ErrorKind::Unreadable(_)), "{error:?}");
    assert_eq!(error.refusal(), None);
    opens_with(&crate::client(&server.url), "answered something unreadable").await;
}

#[tokio::test]
async fn a_huge_body_is_cut() {
    let typed = [("content-type", "application/json")];
    let body = format!("\"{}\"", "x".repeat(100_000));
    // With its length declared, and without.
    let chunked = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
         transfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    for bytes in [answer(200, &typed, &body), chunked.into_bytes()] {
        let server = Server::always(Reaction::Send(bytes)).await;
        let bounded =
            |max| Client::builder("billing", server.url.clone()).max_body(max).build(&transport());
        let error = fetch(&bounded(body.len() - 1)).await;
        assert!(matches!(error.kind(), ErrorKind::Unreadable(_)), "{error:?}");
        let reply = bounded(body.len()).get("/").fetch::<String>(&Context::new()).await;
        assert_eq!(reply.expect("it fits").body.len(), 100_000);
    }
}

#[tokio::test]
async fn any_5xx() {
    for status in [500, 502, 503, 504] {
        let html = [("content-type", "text/html")];
        let server = Server::always(Reaction::Send(answer(status, &html, "<h1>no</h1>"))).await;
        let client = client(&server.url);
        let error = fetch(&client).await;
        assert!(matches!(error.kind(), ErrorKind::Unavailable(_)), "{error:?}");
        assert_eq!(error.effect(), Effect::Unknown);
        assert_eq!(error.refusal().expect("an answer").status.as_u16(), status);
        opens_with(&crate::client(&server.url), &format!("answered {status}")).await;
    }
}

#[tokio::test]
async fn messages_and_reasons_name_no_address() {
    for reaction in [
        Reaction::Reset,
        Reaction::Hang,
        Reaction::SendAndClose(b"rubbish\r\n\r\n".to_vec()),
        Reaction::SendAndClose(answer(500, &[], "")),
    ] {
        let server = Server::always(reaction).await;
        let breaker = Breaker::builder("billing").consecutive_failures(1).build();
        let client = Client::builder("billing", server.url.clone())
            .timeout(Duration::from_millis(30))
            .breaker(breaker.clone())
            .build(&transport());
        let (first, second) = (fetch(&client).await, fetch(&client).await);
        let reason = breaker.snapshot().reason.expect("a failure");
        for text in [first.to_string(), second.to_string(), reason.to_string()] {
            assert!(!text.contains("127.0.0.1") && !text.contains("http"), "{text}");
        }
    }
}

#[tokio::test]
async fn what_can_not_be_built_is_not_sent() {
    let server = Server::always(Reaction::Hang).await;
    let client = client(&server.url);
    let requests = [
        client.post("/").idempotency_key("line\nbreak"),
        client.post("/").idempotency_key(" "),
        client.post("/").json(&f64_keys()),
    ];
    for request in requests {
        let error = request.execute(&Context::new()).await.expect_err("invalid");
        assert!(matches!(error.kind(), ErrorKind::Invalid(_)), "{error:?}");
        assert_eq!(error.effect(), Effect::None);
    }
    assert_eq!(server.hits(), 0);
    assert_eq!(client.breaker().snapshot().abandoned, 0);
}

/// A map that JSON has no form for.
fn f64_keys() -> std::collections::HashMap<Vec<u8>, u8> {
    [(vec![1], 1)].into()
}
