//! Answers of the database that are late or lost, and words that it can't hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use diesel::QueryResult;
use diesel::RunQueryDsl as _;
use diesel::connection::SimpleConnection as _;
use diesel::dsl::sql;
use diesel::sql_types::BigInt;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use resilience::deferred::{
    Attempt, Database, DatabaseError, Deferral, Deferred, Handler, HandlerError, Stage, Submitted,
    Work,
};
use serde_json::{Value, json};
use tokio::time::sleep;
use uuid::Uuid;

use super::bed::{Connections, Job, Ledger, Running, Tally, job, quick};

/// Does what it is asked, and says so as a test wants it.
struct Unreliable {
    pool: Connections,
    /// The next answer is lost: what was asked is committed.
    loses: Arc<AtomicBool>,
    /// So long, nobody who has begun a call gets an answer.
    late: Arc<AtomicBool>,
}

impl Database for Unreliable {
    fn run(&self, work: Work) -> BoxFuture<'static, Result<(), DatabaseError>> {
        let late = Arc::clone(&self.late);
        let loses = self.loses.swap(false, Ordering::SeqCst);
        let (pool, worked) = (self.pool.clone(), self.pool.run(work));
        async move {
            let answer = worked.await;
            if late.load(Ordering::SeqCst) && begun(&pool) > 0 {
                while late.load(Ordering::SeqCst) {
                    sleep(Duration::from_millis(10)).await;
                }
            }
            if loses { Err(DatabaseError::new("the connection is gone")) } else { answer }
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

/// With whether it loses the next answer, and whether those to who has begun a call are late.
fn unreliable(
    ledger: &Ledger,
    handler: Job,
) -> (resilience::deferred::Runtime, [Arc<AtomicBool>; 2]) {
    let [loses, late] = [Arc::default(), Arc::default()];
    let pool = ledger.pool.clone();
    let database = Unreliable { pool, loses: Arc::clone(&loses), late: Arc::clone(&late) };
    let runtime = Deferred::builder(database).handler(handler, quick()).build().unwrap();
    (runtime, [loses, late])
}

#[tokio::test]
async fn a_call_whose_claim_is_under_way_at_the_shutdown_is_carried_out_or_given_back() {
    let ledger = Ledger::new();
    let (runtime, [_, late]) = unreliable(&ledger, Job::done());
    let running = Running::start(runtime);
    late.store(true, Ordering::SeqCst);
    ledger.defer(&job(&Value::Null));
    running.deferred.nudge();
    ledger.until("state = 'running'", 1).await;
    let answered = async {
        // By then the shutdown is under way.
        sleep(Duration::from_millis(500)).await;
        late.store(false, Ordering::SeqCst);
    };
    tokio::join!(running.stop(), answered);
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

#[tokio::test]
async fn a_refusal_whose_commit_has_no_answer_is_no_promise() {
    let ledger = Ledger::new();
    let loses = Arc::new(std::sync::OnceLock::<Arc<AtomicBool>>::new());
    let switch = Arc::clone(&loses);
    let handler = Job::new(move |_| {
        let switch = Arc::clone(&switch);
        async move {
            switch.get().unwrap().store(true, Ordering::SeqCst);
            Err(HandlerError::permanent("no such item"))
        }
    });
    let (runtime, [lose, _]) = unreliable(&ledger, handler);
    loses.set(lose).unwrap();
    let deferred = runtime.handle();
    let call = job(&Value::Null);
    let submitted = deferred.submit::<Job, diesel::result::Error>(
        call.clone(),
        None,
        |_| Ok(()),
        |_, _| Ok(()),
    );
    let submitted = submitted.await.unwrap();
    assert!(deferred.get(call.id()).await.unwrap().is_none(), "it was forgotten");
    assert!(matches!(submitted, Submitted::Refused(_)), "{submitted:?}");
}

#[tokio::test]
async fn what_is_rolled_back_behind_our_back_is_no_promise() {
    let ledger = Ledger::new();
    let handler = Job::new(async |_| Err(HandlerError::unavailable("away")));
    let deferred = ledger.runtime(handler, quick()).handle();
    let call: Deferral = job(&Value::Null);
    // Swallows a failure, upon which PostgreSQL answers COMMIT with a rollback.
    let prepare = |conn: &mut diesel::PgConnection| -> QueryResult<()> {
        let _ = conn.batch_execute("INSERT INTO nowhere VALUES (1)");
        Ok(())
    };
    let submitted = deferred.submit::<Job, _>(call.clone(), None, prepare, |_, _| Ok(())).await;
    let there = deferred.get(call.id()).await.unwrap().is_some();
    assert_eq!(submitted.is_ok(), there, "{submitted:?}");
}

#[tokio::test]
async fn a_row_that_somebody_has_locked_holds_up_the_end_of_no_other_call() {
    let ledger = Ledger::new();
    let open = tokio::sync::watch::Sender::new(false);
    let (waits, tally) = (open.subscribe(), Tally::default());
    let ran = tally.clone();
    let handler = Job::new(move |attempt: Attempt<Value>| {
        ran.add(attempt.id);
        let mut waits = waits.clone();
        async move {
            waits.wait_for(|open| *open).await.unwrap();
            Ok(Value::Null)
        }
    });
    let running = ledger.start(handler, quick().lease(Duration::from_mins(1)));
    let locked = job(&Value::Null);
    ledger.defer(&locked);
    running.deferred.nudge();
    ledger.until("state = 'running'", 1).await;
    let mut operator = ledger.conn();
    let lock = format!("BEGIN; SELECT 1 FROM deferred WHERE id = '{}' FOR UPDATE", locked.id());
    operator.batch_execute(&lock).unwrap();
    open.send_replace(true);
    ledger.defer_many(20, &Value::Null);
    running.deferred.nudge();
    let others = ledger.until("state = 'done'", 20);
    tokio::time::timeout(Duration::from_secs(10), others).await.expect("the others wait for it");
    operator.batch_execute("COMMIT").unwrap();
    ledger.until("state = 'done'", 21).await;
    assert_eq!((tally.all(), tally.of(locked.id())), (21, 1));
    running.stop().await;
}
