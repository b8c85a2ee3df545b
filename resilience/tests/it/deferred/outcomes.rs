//! How calls end, and what is written with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use diesel::{Connection as _, QueryResult};
use resilience::deferred::{Attempt, Deferral, Deferred, Handler, HandlerError, Stage, defer};
use serde_json::{Value, json};
use tokio::sync::watch;
use uuid::Uuid;

use super::bed::{Job, Ledger, Running, Tally, job, quick};

#[tokio::test]
async fn what_was_deferred_is_done_once_and_its_end_is_one_commit_with_its_hook() {
    let ledger = Ledger::new();
    let running = ledger.start(
        Job::new(async |attempt| {
            let Attempt { number, payload, context, .. } = attempt;
            Ok(json!([number, payload, context]))
        }),
        quick(),
    );
    let call = job(&json!({"n": 1, "text": "\u{0}"})).with_context("traceparent", "00-1");
    ledger.defer(&call);
    running.deferred.nudge();
    let entry = running.ended(call.id()).await;
    assert_eq!((entry.stage, entry.attempts, entry.kind.as_str()), (Stage::Done, 1, "job"));
    let expected = r#"done [1,{"n":1,"text":"\u0000"},{"traceparent":"00-1"}]"#;
    assert_eq!(ledger.notes(call.id()), [expected]);
    running.stop().await;
}

#[tokio::test]
async fn a_thousand_calls_deferred_at_once_are_all_done_once() {
    let ledger = Ledger::new();
    let tally = Tally::default();
    let seen = tally.clone();
    let running = ledger.start(
        Job::new(move |attempt| {
            seen.add(attempt.id);
            async { Ok(Value::Null) }
        }),
        quick(),
    );
    let ids: Vec<Uuid> = (0..1000).map(|_| Uuid::new_v4()).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for &id in &ids {
        let (pool, deferred) = (ledger.pool.clone(), running.deferred.clone());
        tasks.spawn_blocking(move || {
            let call = Deferral::new::<Job>(id, &Value::Null).unwrap();
            assert!(defer(&mut pool.get_timeout(Duration::from_mins(1)).unwrap(), &call).unwrap());
            deferred.nudge();
        });
    }
    while let Some(deferred) = tasks.join_next().await {
        deferred.unwrap();
    }
    ledger.until("state = 'done'", 1000).await;
    assert!(ids.iter().all(|&id| tally.of(id) == 1));
    running.stop().await;
}

#[tokio::test]
async fn a_rollback_of_the_callers_transaction_defers_nothing() {
    let ledger = Ledger::new();
    let call = job(&Value::Null);
    let undone: QueryResult<()> = ledger.conn().transaction(|conn| {
        assert!(defer(conn, &call)?);
        Err(diesel::result::Error::RollbackTransaction)
    });
    assert!(undone.is_err());
    assert_eq!(ledger.count("true"), 0);
    let running = ledger.start(Job::done(), quick());
    assert_eq!(running.deferred.ended(call.id(), Duration::ZERO).await.unwrap(), None);
    running.stop().await;
}

#[tokio::test]
async fn deferring_an_id_twice_is_deferring_it_once() {
    let ledger = Ledger::new();
    let call = job(&json!("first"));
    ledger.defer(&call);
    let again = Deferral::new::<Job>(call.id(), &json!("second")).unwrap();
    assert!(!defer(&mut ledger.conn(), &again).unwrap());
    let running = ledger.start(Job::new(async |attempt| Ok(attempt.payload)), quick());
    running.ended(call.id()).await;
    assert!(!defer(&mut ledger.conn(), &again).unwrap(), "it has ended");
    assert_eq!(ledger.notes(call.id()), [r#"done "first""#]);
    running.stop().await;
}

#[tokio::test]
async fn a_failure_is_repeated_until_the_limit_and_parked_with_its_reason() {
    let ledger = Ledger::new();
    let running = ledger.start(
        Job::new(async |attempt: Attempt<Value>| {
            Err(HandlerError::failed(format!("broken, for the {}th time", attempt.number)))
        }),
        quick(),
    );
    let call = job(&Value::Null);
    ledger.defer(&call);
    let entry = running.ended(call.id()).await;
    assert_eq!((entry.stage, entry.attempts, entry.strikes), (Stage::Parked, 3, 3));
    assert_eq!(entry.first_error.unwrap(), "broken, for the 1th time");
    let reason = "given up after 3 attempts: broken, for the 3th time";
    assert_eq!(entry.last_error.unwrap(), reason);
    assert_eq!(ledger.notes(call.id()), [format!("parked {reason}")]);
    running.stop().await;
}

#[tokio::test]
async fn a_refusal_for_good_is_parked_at_once() {
    let ledger = Ledger::new();
    let running = ledger
        .start(Job::new(async |_| Err(HandlerError::permanent("there is no such item"))), quick());
    let call = job(&Value::Null);
    ledger.defer(&call);
    let entry = running.ended(call.id()).await;
    assert_eq!((entry.stage, entry.attempts), (Stage::Parked, 1));
    assert_eq!(ledger.notes(call.id()), ["parked there is no such item"]);
    assert_eq!(running.deferred.breaker::<Job>().snapshot().successes, 1, "it has answered");
    running.stop().await;
}

#[tokio::test]
async fn what_is_away_or_too_early_is_repeated_beyond_any_limit() {
    let ledger = Ledger::new();
    let running = ledger.start(
        Job::new(async |attempt: Attempt<Value>| match attempt.number {
            20.. => Ok(Value::Null),
            n if n % 2 == 0 => Err(HandlerError::unavailable("away")),
            _ => Err(HandlerError::not_yet("in progress")),
        }),
        quick(),
    );
    let call = job(&Value::Null);
    ledger.defer(&call);
    let entry = running.ended(call.id()).await;
    assert_eq!((entry.stage, entry.attempts, entry.strikes), (Stage::Done, 20, 1));
    running.stop().await;
}

#[tokio::test]
async fn a_pause_that_was_asked_for_is_made_up_to_the_limit() {
    let ledger = Ledger::new();
    let running = ledger.start(
        Job::new(async |attempt: Attempt<Value>| match attempt.number {
            1 => {
                let retry_after = Some(Duration::from_hours(1));
                Err(HandlerError::NotYet { reason: "later".to_owned(), retry_after })
            }
            _ => Ok(Value::Null),
        }),
        quick().longest_retry_after(Duration::from_millis(700)),
    );
    let call = job(&Value::Null);
    ledger.defer(&call);
    let entry = running.ended(call.id()).await;
    let paused = entry.started_at.unwrap() - entry.last_error_at.unwrap();
    assert!((690..5000).contains(&paused.num_milliseconds()), "{paused}");
    running.stop().await;
}

/// Takes a number, and panics at one of them.
struct Strict;
impl Handler for Strict {
    const KIND: &'static str = "strict";
    type Payload = u32;
    type Output = ();

    async fn run(&self, attempt: Attempt<u32>) -> Result<(), HandlerError> {
        assert_ne!(attempt.payload, 13, "on purpose");
        Ok(())
    }
}

#[tokio::test]
async fn poison_is_parked_and_blocks_nothing_behind_it() {
    let ledger = Ledger::new();
    let unreadable = Uuid::new_v4();
    ledger.execute(&format!(
        "INSERT INTO deferred (id, kind, payload, state, not_before)
         VALUES ('{unreadable}', 'strict', '\"no number\"', 'pending', clock_timestamp())"
    ));
    let call = |payload: u32| Deferral::new::<Strict>(Uuid::new_v4(), &payload).unwrap();
    let panics = call(13);
    ledger.defer(&panics);
    let behind: Vec<_> = (20..40).map(call).collect();
    ledger.defer_all(&behind);
    let running = ledger.start(Strict, quick().concurrency(1));
    for call in &behind {
        assert_eq!(running.ended(call.id()).await.stage, Stage::Done);
    }
    let entry = running.ended(unreadable).await;
    assert_eq!((entry.stage, entry.attempts), (Stage::Parked, 1));
    assert!(entry.last_error.unwrap().starts_with("the payload can't be read: invalid type"));
    let entry = running.ended(panics.id()).await;
    assert_eq!((entry.stage, entry.attempts), (Stage::Parked, 3));
    assert_eq!(entry.last_error.unwrap(), "given up after 3 attempts: the handler panicked");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_handler_that_hangs_past_its_time_lets_go() {
    let ledger = Ledger::new();
    let settings = quick().concurrency(1).attempts(2).timeout(Duration::from_millis(150));
    let running = ledger.start(
        Job::new(async |attempt: Attempt<Value>| {
            match attempt.payload.as_str() {
                Some("waits") => std::future::pending().await,
                // Holds its thread, longer than its lease.
                Some("blocks") => std::thread::sleep(Duration::from_millis(1500)),
                _ => {}
            }
            Ok(Value::Null)
        }),
        settings,
    );
    let [waits, blocks, fine] = ["waits", "blocks", "fine"].map(|what| job(&json!(what)));
    ledger.defer_all([&waits, &blocks, &fine]);
    assert_eq!(running.ended(fine.id()).await.stage, Stage::Done);
    for call in [waits, blocks] {
        let entry = running.ended(call.id()).await;
        assert_eq!((entry.stage, entry.attempts), (Stage::Parked, 2));
        assert!(entry.last_error.unwrap().contains("no result within"));
    }
    running.stop().await;
}

/// A handler whose hook fails for as long as it is told to.
struct Hooked {
    fails: Arc<AtomicBool>,
    how: fn(&mut diesel::PgConnection) -> QueryResult<()>,
    runs: Tally,
}

impl Handler for Hooked {
    const KIND: &'static str = "hooked";
    type Payload = Value;
    type Output = ();

    async fn run(&self, attempt: Attempt<Value>) -> Result<(), HandlerError> {
        self.runs.add(attempt.id);
        Ok(())
    }

    fn done(&self, conn: &mut diesel::PgConnection, id: Uuid, (): &()) -> QueryResult<()> {
        use diesel::connection::SimpleConnection as _;
        conn.batch_execute(&format!("INSERT INTO notes VALUES ('{id}', 'done')"))?;
        if self.fails.load(Ordering::SeqCst) { (self.how)(conn) } else { Ok(()) }
    }
}

#[tokio::test]
async fn a_hook_that_fails_takes_the_end_back_and_the_call_is_made_again() {
    use diesel::connection::SimpleConnection as _;
    hook_fails(|conn| conn.batch_execute("SELECT 1 / 0"), "division by zero").await;
    // PostgreSQL has nothing to do with this one, and nobody but PostgreSQL with the last.
    hook_fails(|_| Err(diesel::result::Error::NotFound), "Record not found").await;
    let swallowed = |conn: &mut diesel::PgConnection| {
        let _ = conn.batch_execute("SELECT 1 / 0");
        Ok(())
    };
    hook_fails(swallowed, "current transaction is aborted").await;
}

async fn hook_fails(how: fn(&mut diesel::PgConnection) -> QueryResult<()>, error: &str) {
    let ledger = Ledger::new();
    let (fails, runs) = (Arc::new(AtomicBool::new(true)), Tally::default());
    let hooked = Hooked { fails: Arc::clone(&fails), how, runs: runs.clone() };
    let running = ledger.start(hooked, quick().attempts(1000));
    let call = Deferral::new::<Hooked>(Uuid::new_v4(), &Value::Null).unwrap();
    ledger.defer(&call);
    ledger.until("attempts >= 2", 1).await;
    assert!(ledger.notes(call.id()).is_empty());
    fails.store(false, Ordering::SeqCst);
    let entry = running.ended(call.id()).await;
    assert_eq!(entry.stage, Stage::Done);
    assert!(entry.last_error.unwrap().contains(error));
    assert_eq!(ledger.notes(call.id()), ["done"]);
    assert_eq!(runs.of(call.id()), entry.attempts);
    running.stop().await;
}

#[tokio::test]
async fn what_nobody_handles_here_stays_for_whoever_does() {
    let ledger = Ledger::new();
    let call = job(&Value::Null);
    ledger.defer(&call);
    let others = Hooked { fails: Arc::default(), how: |_| Ok(()), runs: Tally::default() };
    let running = ledger.start(others, quick());
    let other = Deferral::new::<Hooked>(Uuid::new_v4(), &Value::Null).unwrap();
    ledger.defer(&other);
    running.ended(other.id()).await;
    assert_eq!(running.entry(call.id()).await.stage, Stage::Pending);
    running.stop().await;
}

#[tokio::test]
async fn a_shutdown_waits_for_what_runs_and_gives_the_rest_back() {
    let ledger = Ledger::new();
    let (open, waits) = watch::channel(false);
    let handler = || {
        let waits = waits.clone();
        Job::new(move |attempt: Attempt<Value>| {
            let mut waits = waits.clone();
            async move {
                if attempt.payload == json!("endless") && attempt.number == 1 {
                    std::future::pending::<()>().await;
                }
                waits.wait_for(|open| *open).await.unwrap();
                Ok(Value::Null)
            }
        })
    };
    let builder = Deferred::builder(ledger.pool.clone()).drain(Duration::from_secs(3));
    let running = Running::start(builder.handler(handler(), quick()).build().unwrap());
    let [short, endless] = ["short", "endless"].map(|what| job(&json!(what)));
    ledger.defer_all([&short, &endless]);
    ledger.until("state = 'running'", 2).await;
    let deferred = running.deferred.clone();
    let ends = async {
        // By then the shutdown is under way.
        tokio::time::sleep(Duration::from_millis(300)).await;
        open.send_replace(true);
    };
    tokio::join!(running.stop(), ends);
    assert_eq!(deferred.get(short.id()).await.unwrap().unwrap().stage, Stage::Done);
    let given_back = deferred.get(endless.id()).await.unwrap().unwrap();
    assert_eq!((given_back.stage, given_back.strikes), (Stage::Pending, 0));
    let running = ledger.start(handler(), quick());
    assert_eq!(running.ended(endless.id()).await.attempts, 2);
    running.stop().await;
}

#[tokio::test]
async fn what_was_done_long_ago_is_deleted_and_what_is_parked_stays() {
    let ledger = Ledger::new();
    ledger.execute(
        "INSERT INTO deferred (id, kind, payload, state, not_before, ended_at)
         SELECT gen_random_uuid(), 'job', '{}', state, now(), now() - age * interval '1 day'
         FROM unnest(ARRAY['done', 'parked']) AS state,
              unnest(ARRAY[29, 31]) AS age, generate_series(1, 1500)",
    );
    let running = ledger.start(Job::done(), quick());
    ledger.until("state = 'done'", 1500).await;
    assert_eq!(ledger.count("state = 'parked'"), 3000);
    running.stop().await;
}
