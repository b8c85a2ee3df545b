//! What is found at addresses that answer in this way and that.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use http::header::AUTHORIZATION;
use serde_json::json;
use tokio::net::TcpListener;

use super::waiting::LATE;
use super::*;
use crate::doctor::Level;

fn thing(probe: Probe) -> Visit {
    let credential = Credential::new("geheim", "somewhere");
    Visit {
        name: "thing",
        callers: Callers::Services,
        probe,
        remedy: "do something".to_owned(),
        service: Some(credential.clone()),
        management: Some(credential),
        operator: true,
    }
}

fn health(name: &str, epoch: i64) -> Value {
    json!({"status": "Work", "components": {
        "db": {"status": "Work", "name": name}, "time": {"epoch": epoch}, "dependencies": []}})
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

/// What is found where this is the answer to everything, and the targets that were asked with a token.
async fn found(status: u16, answer: Value) -> (Vec<Finding>, Vec<String>) {
    let shown = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&shown);
    let app = Router::new().fallback(async move |request: Request| {
        if request.headers().contains_key(AUTHORIZATION) {
            seen.lock().unwrap().push(request.uri().to_string());
        }
        (StatusCode::from_u16(status).unwrap(), axum::Json(answer.clone()))
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let findings = thing(Probe::to(address)).make().await;
    server.abort();
    let shown = shown.lock().unwrap().clone();
    (findings, shown)
}

#[test]
fn of_a_variable_s_tokens_the_first_is_shown_and_what_is_none_is_a_mistake() {
    let token = "geheim".repeat(6);
    let read = |text: &str| {
        let variable = ("SERVICE_TOKENS".to_owned(), text.to_owned());
        let mut reader = Reader::from_variables([variable]).unwrap();
        let credential = Credential::read(&mut reader, "SERVICE_TOKENS");
        reader.finish(Some(credential)).map_err(|error| error.to_string())
    };
    let both = read(&format!(" {token},{token}2")).unwrap().unwrap();
    assert_eq!(both.authorization, format!("Bearer {token}"));
    assert_eq!(format!("{both:?}"), r#"Credential("SERVICE_TOKENS")"#);
    assert!(read("").unwrap().is_none());
    for wrong in ["geheim", &format!("{token},{token}2,{token}3"), &format!("{token} {token}")] {
        let error = read(wrong).unwrap_err();
        assert!(error.starts_with("SERVICE_TOKENS should be one or two tokens"), "{error}");
        assert!(!error.contains("geheim"), "{error}");
    }
}

#[tokio::test]
async fn nobody_but_the_service_itself_is_shown_a_token() {
    let (findings, shown) = found(200, health("thing", now())).await;
    assert!(!shown.is_empty(), "{findings:?}");
    for (status, answer, said) in [
        (200, health("other", now()), "is other, not thing"),
        (200, json!({"hello": "world"}), "not as a service does"),
        (404, json!("not found"), "answers 404"),
    ] {
        let (findings, shown) = found(status, answer).await;
        assert_eq!(shown, Vec::<String>::new(), "{findings:?}");
        assert!(findings.len() == 1 && findings[0].level == Level::Error, "{findings:?}");
        assert!(findings[0].said.contains(said), "{findings:?}");
    }
}

#[tokio::test]
async fn a_clock_that_is_wrong_is_named() {
    for (off, said) in [(0, None), (60, Some("s ahead of")), (-60, Some("s behind"))] {
        let (findings, _) = found(200, health("thing", now() + off)).await;
        let clock = findings.iter().find(|finding| finding.said.contains("clock"));
        assert_eq!(clock.is_some(), said.is_some(), "{findings:?}");
        let named = clock
            .zip(said)
            .is_none_or(|(clock, said)| clock.said.contains(said) && clock.level == Level::Warning);
        assert!(named, "{findings:?}");
    }
}

#[test]
fn what_waits_is_late_after_a_minute_and_what_was_given_up_is_an_error() {
    let visit = thing(Probe::to(([127, 0, 0, 1], 1).into()));
    let found = |pending: u64, parked: u64, oldest: u64| {
        let kinds = json!({"kinds": [{"kind": "k", "pending": pending, "sent": 0, "running": 0,
            "parked": parked, "oldestMs": oldest}]});
        let findings = DEFERRED.look(&visit, &kinds);
        assert_eq!(findings.len(), 1, "{findings:?}");
        findings[0].level
    };
    assert_eq!(found(0, 0, 0), Level::Ok);
    assert_eq!(found(7, 0, LATE), Level::Ok);
    assert_eq!(found(1, 0, LATE + 1), Level::Warning);
    assert_eq!(found(1, 1, LATE + 1), Level::Error);
}

#[test]
fn a_token_shows_only_where_it_is_from() {
    let shown = format!("{:?}", thing(Probe::to(([127, 0, 0, 1], 1).into())));
    assert!(shown.contains("somewhere") && !shown.contains("geheim"), "{shown}");
}
