//! What a failed call has changed: nothing, something, or nobody knows.

use std::time::Duration;

use resilience::http::{CallError, Client, Context, Effect, ErrorKind};
use serde_json::Value;

use crate::server::{Reaction, Server, answer};
use crate::transport;

const TYPED: &[(&str, &str)] = &[("content-type", "application/json")];

/// A success, cut this many bytes before its end.
fn cut(bytes: usize) -> Vec<u8> {
    let mut whole = answer(200, TYPED, "{\"id\": 7}");
    whole.truncate(whole.len() - bytes);
    whole
}

fn client(server: &Server) -> Client {
    Client::builder("billing", server.url.clone())
        .timeout(Duration::from_millis(50))
        .max_body(100)
        .build(&transport())
}

async fn post(reaction: Reaction) -> CallError {
    let server = Server::always(reaction).await;
    let result = client(&server).post("/").fetch::<Value>(&Context::new()).await;
    result.expect_err("it can't work")
}

#[tokio::test]
async fn a_success_whose_body_is_lost_has_had_its_effect() {
    let error = post(Reaction::SendAndClose(cut(3))).await;
    assert!(matches!(error.kind(), ErrorKind::Lost(_)), "{error:?}");
    assert_eq!(error.effect(), Effect::Done);
}

#[tokio::test]
async fn a_success_whose_body_is_late_has_had_its_effect() {
    let error = post(Reaction::Send(cut(3))).await;
    assert!(matches!(error.kind(), ErrorKind::TimedOut { .. }), "{error:?}");
    assert_eq!(error.effect(), Effect::Done);
}

#[tokio::test]
async fn a_success_whose_body_is_too_long_has_had_its_effect() {
    let body = format!("\"{}\"", "x".repeat(100));
    let error = post(Reaction::Send(answer(200, TYPED, &body))).await;
    assert!(matches!(error.kind(), ErrorKind::Unreadable(_)), "{error:?}");
    assert_eq!(error.effect(), Effect::Done);
}

#[tokio::test]
async fn a_success_that_is_cut_in_its_head_may_have_had_its_effect() {
    let head = cut(0).iter().take(14).copied().collect();
    let error = post(Reaction::SendAndClose(head)).await;
    assert!(matches!(error.kind(), ErrorKind::Lost(_)), "{error:?}");
    assert_eq!(error.effect(), Effect::Unknown);
}

#[tokio::test]
async fn a_failure_whose_body_is_lost_or_late_may_have_had_its_effect() {
    let mut bytes = answer(500, TYPED, "{\"code\": \"internal\"}");
    bytes.truncate(bytes.len() - 3);
    for reaction in [Reaction::SendAndClose(bytes.clone()), Reaction::Send(bytes)] {
        let error = post(reaction).await;
        assert_eq!(error.effect(), Effect::Unknown, "{error:?}");
    }
}

#[tokio::test]
async fn whoever_asks_for_the_status_alone_does_not_wait_for_a_body() {
    for reaction in [Reaction::Send(cut(3)), Reaction::SendAndClose(cut(3))] {
        let server = Server::always(reaction).await;
        let request = client(&server).post("/").expect(resilience::http::StatusCode::OK);
        request.execute(&Context::new()).await.expect("the status that was expected");
    }
}

#[test]
fn of_several_effects_the_one_with_most_to_undo_counts() {
    assert!(Effect::None < Effect::Unknown && Effect::Unknown < Effect::Done);
}
