//! How late calls are.

use std::time::Duration;

use resilience::Backoff;
use resilience::deferred::{Attempt, Deferred, Filter, HandlerError, Stage, hold};
use serde_json::{Value, json};

use super::bed::{Job, Ledger, Running, eventually, job, quick};

#[tokio::test]
async fn a_delayed_call_is_begun_when_it_is_due_and_not_before() {
    let ledger = Ledger::new();
    let running = ledger.start(Job::done(), quick());
    for n in 0..40 {
        ledger.defer(&job(&Value::Null).after(Duration::from_millis(1000 + n * 20)));
        running.deferred.nudge();
    }
    ledger.until("state = 'done'", 40).await;
    assert_eq!(ledger.count("started_at < not_before"), 0);
    // A tenth of it on a machine that has nothing else to do.
    assert_eq!(ledger.count("started_at > not_before + interval '450 milliseconds'"), 0);
    let late = "SELECT (extract(epoch FROM percentile_disc(0.5) WITHIN GROUP
                        (ORDER BY started_at - not_before)) * 1000)::bigint AS number FROM deferred";
    let late = ledger.number(late);
    assert!(late < 100, "half of them {late} ms late");
    running.stop().await;
}

#[tokio::test]
async fn what_nobody_was_told_of_is_found_within_half_a_second() {
    let ledger = Ledger::new();
    let running = ledger.start(Job::done(), quick());
    let first = job(&Value::Null);
    ledger.defer(&first);
    running.ended(first.id()).await;
    let call = job(&Value::Null);
    ledger.defer(&call);
    let entry = running.ended(call.id()).await;
    let late = entry.started_at.unwrap() - entry.not_before;
    assert!(late.num_milliseconds() < 950, "{late}");
    running.stop().await;
}

#[tokio::test]
async fn times_that_are_for_ever_overflow_nothing() {
    let ledger = Ledger::new();
    let ever = Duration::MAX;
    let settings = quick()
        .attempts(u32::MAX)
        .longest_retry_after(ever)
        .timeout(Duration::from_hours(24 * 365 * 900))
        .lease(Duration::from_hours(24 * 365 * 900))
        .backoff(Backoff::new().initial(ever).max_interval(ever));
    let handler = Job::new(async |attempt: Attempt<Value>| match attempt.payload.as_str() {
        Some("failed") => Err(HandlerError::failed("no")),
        Some("asks") => {
            let reason = "later".to_owned();
            Err(HandlerError::NotYet { reason, retry_after: Some(Duration::MAX) })
        }
        _ => Ok(Value::Null),
    });
    let builder = Deferred::builder(ledger.pool.clone()).retention(ever).drain(ever);
    let running = Running::start(builder.handler(handler, settings).build().unwrap());
    ledger.defer(&job(&Value::Null).after(ever));
    let done = job(&Value::Null);
    ledger.defer_all(&[job(&json!("failed")), job(&json!("asks")), done.clone()]);
    let held = job(&Value::Null);
    assert!(hold(&mut ledger.conn(), &held, ever).unwrap().is_some());
    running.deferred.nudge();
    assert_eq!(running.deferred.ended(done.id(), ever).await.unwrap(), Some(Stage::Done));
    ledger.until("state = 'pending' AND attempts = 1 AND not_before > now()", 2).await;
    assert_eq!(ledger.count("state = 'pending' AND not_before > now() + interval '900 years'"), 3);
    assert_eq!(ledger.count("held AND lease_until > now() + interval '900 years'"), 1);
    // What was done is looked through, and none of it is old.
    ledger.until("state = 'done'", 1).await;
    running.stop().await;
}

#[tokio::test]
async fn what_is_due_later_and_what_has_ended_is_not_walked_through() {
    let ledger = Ledger::new();
    ledger.execute(
        "INSERT INTO deferred (id, kind, payload, state, not_before)
         SELECT gen_random_uuid(), 'job', '{}', 'pending', now() + interval '1 hour'
         FROM generate_series(1, 50000);
         INSERT INTO deferred (id, kind, payload, state, not_before, ended_at)
         SELECT gen_random_uuid(), 'job', '{}', 'done', now(), now()
         FROM generate_series(1, 50000);
         ANALYZE deferred",
    );
    let read = "SELECT (sum(idx_tup_read))::bigint AS number FROM pg_stat_user_indexes
                WHERE relname = 'deferred'";
    let scanned =
        "SELECT seq_tup_read AS number FROM pg_stat_user_tables WHERE relname = 'deferred'";
    // What was counted before is told with a delay, at the latest when its connection ends.
    let counted = |query| {
        ledger.execute("SELECT pg_stat_force_next_flush()");
        ledger.number(query)
    };
    let before = (counted(read), counted(scanned));
    let running = ledger.start(Job::done(), quick());
    for _ in 0..20 {
        let call = job(&Value::Null);
        ledger.defer(&call);
        running.deferred.nudge();
        running.ended(call.id()).await;
    }
    for _ in 0..3 {
        let listed = running.deferred.list(Filter::new().kind("other")).await.unwrap();
        assert!(listed.is_empty());
    }
    running.stop().await;
    let updates = "SELECT n_tup_upd AS number FROM pg_stat_user_tables WHERE relname = 'deferred'";
    eventually("its work is counted", || counted(updates) >= 40).await;
    let after = (counted(read), counted(scanned));
    // Walked through by each call it would be a million; the depth is counted now and then.
    assert!(after.0 - before.0 < 300_000, "{before:?} {after:?}");
    assert!(after.1 - before.1 < 20_000, "{before:?} {after:?}");
}
