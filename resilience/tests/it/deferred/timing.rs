//! How late calls are.

use std::time::Duration;

use resilience::deferred::Filter;
use serde_json::Value;

use super::bed::{Job, Ledger, eventually, job, quick};

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
