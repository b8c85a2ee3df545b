//! A bad network between services, and what else may answer in a service's place.

use std::borrow::Cow;

pub use resilience::testkit::{Act, HttpProxy, Proxy, Rule, Seen};

/// 500, as a defect would be answered.
pub const DEFECT: Act = answer(
    "500 Internal Server Error\r\nContent-Type: application/json",
    r#"{"message": "something went wrong", "code": "internal", "requestId": "x"}"#,
);

/// A success that says nothing of what was asked.
pub const RUBBISH: Act = answer("200 OK\r\nContent-Type: text/html", "<html>It works!</html>");

/// A success whose body ends too early.
pub const HALF: Act = answer("200 OK\r\nContent-Type: application/json", r#"[{"order"#);

/// A 404 of something else, which listens where the service should.
pub const NOT_FOUND: Act =
    answer("404 Not Found\r\nContent-Type: text/html", "<h1>Not found.</h1>\r\n");

/// An answer that promises that nothing was done.
pub const ENDING: Act = answer(
    "503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1",
    r#"{"message": "about to end", "code": "shutting_down", "requestId": "x"}"#,
);

/// What was begun is being taken back, and no system is to blame for that.
pub const TAKEN_BACK: Act = answer(
    "503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1",
    r#"{"message": "there was no time left", "code": "rollback_pending", "requestId": "x"}"#,
);

/// A refusal that is final: whoever is asked would say the same again.
pub const REFUSAL: Act = answer(
    "400 Bad Request\r\nContent-Type: application/json",
    r#"{"message": "never", "code": "invalid_request", "requestId": "x"}"#,
);

const fn answer(head: &'static str, body: &'static str) -> Act {
    Act::Answer { head: Cow::Borrowed(head), body: Cow::Borrowed(body) }
}
