//! Words that the database can't hold.

use resilience::deferred::{Attempt, Handler, HandlerError, Stage};
use serde_json::{Value, json};
use uuid::Uuid;

use super::bed::{Job, Ledger, job, quick};

#[tokio::test]
async fn a_reason_that_the_database_can_not_hold_is_kept_all_the_same() {
    let ledger = Ledger::new();
    let running = ledger.start(
        Job::new(async |attempt: Attempt<Value>| match attempt.payload.as_str() {
            Some("refused") => Err(HandlerError::permanent("no \0 item")),
            _ if attempt.number < 6 => Err(HandlerError::unavailable("\0".repeat(100_000))),
            _ => Ok(Value::Null),
        }),
        quick(),
    );
    let [refused, away] = ["refused", "away"].map(|what| job(&json!(what)));
    ledger.defer_all([&refused, &away]);
    let entry = running.ended(refused.id()).await;
    assert_eq!((entry.stage, entry.attempts), (Stage::Parked, 1));
    assert_eq!(entry.last_error.unwrap(), "no \u{fffd} item");
    let entry = running.ended(away.id()).await;
    assert_eq!((entry.stage, entry.attempts), (Stage::Done, 6), "an outage burns nothing");
    assert_eq!(entry.last_error.unwrap(), "\u{fffd}".repeat(4000));
    running.stop().await;
}

/// Takes what is `fine`.
struct Picky;

#[derive(serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
enum Taste {
    Fine,
}

impl Handler for Picky {
    const KIND: &'static str = "picky";
    type Payload = Taste;
    type Output = ();

    async fn run(&self, _: Attempt<Taste>) -> Result<(), HandlerError> {
        Ok(())
    }
}

#[tokio::test]
async fn a_payload_that_can_not_be_read_nor_quoted_is_parked_at_once() {
    let ledger = Ledger::new();
    let running = ledger.start(Picky, quick());
    let id = Uuid::new_v4();
    ledger.execute(&format!(
        r#"INSERT INTO deferred (id, kind, payload, state, not_before)
           VALUES ('{id}', 'picky', '"a\u0000b"', 'pending', clock_timestamp())"#
    ));
    running.deferred.nudge();
    let entry = running.ended(id).await;
    assert_eq!((entry.stage, entry.attempts), (Stage::Parked, 1));
    let reason = entry.last_error.unwrap();
    assert!(reason.contains("unknown variant `a\u{fffd}b`"), "{reason}");
    running.stop().await;
}
