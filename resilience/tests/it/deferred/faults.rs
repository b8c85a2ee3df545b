//! Answers of the database that are late, and words that it can't hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use diesel::RunQueryDsl as _;
use diesel::dsl::sql;
use diesel::sql_types::BigInt;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use resilience::deferred::{
    Attempt, Database, DatabaseError, Deferred, Handler, HandlerError, Stage, Work,
};
use serde_json::{Value, json};
use tokio::time::sleep;
use uuid::Uuid;

use super::bed::{Connections, Job, Ledger, Running, job, quick};

/// Answers late, the next time that a call is begun: by then it is committed.
struct Late(Connections, Arc<AtomicBool>);

impl Database for Late {
    fn run(&self, work: Work) -> BoxFuture<'static, Result<(), DatabaseError>> {
        let (pool, late) = (self.0.clone(), Arc::clone(&self.1));
        async move {
            let answer = pool.run(work).await;
            if late.load(Ordering::SeqCst) && begun(&pool) > 0 {
                late.store(false, Ordering::SeqCst);
                sleep(Duration::from_millis(700)).await;
            }
            answer
        }
        .boxed()
    }
}

fn begun(pool: &Connections) -> i64 {
    let begun = "SELECT count(*) FROM deferred WHERE state = 'running'";
    diesel::select(sql::<BigInt>(&format!("({begun})")))
        .get_result(&mut pool.get().unwrap())
        .unwrap()
}

#[tokio::test]
async fn a_call_whose_claim_is_under_way_at_the_shutdown_is_carried_out_or_given_back() {
    let ledger = Ledger::new();
    let late = Arc::new(AtomicBool::new(false));
    let database = Late(ledger.pool.clone(), Arc::clone(&late));
    let runtime = Deferred::builder(database).handler(Job::done(), quick()).build().unwrap();
    let running = Running::start(runtime);
    late.store(true, Ordering::SeqCst);
    ledger.defer(&job(&Value::Null));
    running.deferred.nudge();
    ledger.until("state = 'running'", 1).await;
    running.stop().await;
    assert_eq!(ledger.count("state = 'running'"), 0, "it waits for the end of a lease");
    assert_eq!(ledger.count("state = 'done' OR (state = 'pending' AND strikes = 0)"), 1);
}

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
