//! What operators see and do.

use std::time::Duration;

use resilience::deferred::{Broker, Filter, HandlerError, OperatorError, Stage};
use serde_json::json;
use uuid::Uuid;

use super::bed::{Job, Ledger, job, quick};

fn refusing() -> Job {
    Job::new(async |attempt| match attempt.number {
        1 => Err(HandlerError::permanent("no such item")),
        _ => Ok(json!(attempt.number)),
    })
}

#[tokio::test]
async fn a_parked_call_is_repeated_from_the_beginning_with_its_hook() {
    let ledger = Ledger::new();
    let running = ledger.start(refusing(), quick());
    let call = job(&json!(1));
    ledger.defer(&call);
    assert_eq!(running.ended(call.id()).await.stage, Stage::Parked);
    running.deferred.retry(call.id()).await.unwrap();
    let entry = running.ended(call.id()).await;
    assert_eq!((entry.stage, entry.attempts, entry.strikes), (Stage::Done, 2, 1));
    assert_eq!(ledger.notes(call.id()), ["parked no such item", "resumed", "done 2"]);
    let again = running.deferred.retry(call.id()).await.unwrap_err();
    assert!(matches!(again, OperatorError::Stage(Stage::Done)), "{again}");
    running.stop().await;
}

#[tokio::test]
async fn a_pending_call_can_be_made_due() {
    let ledger = Ledger::new();
    let running = ledger.start(Job::done(), quick());
    let call = job(&json!(1)).after(Duration::from_hours(1));
    ledger.defer(&call);
    running.deferred.retry(call.id()).await.unwrap();
    assert_eq!(running.ended(call.id()).await.stage, Stage::Done);
    running.stop().await;
}

#[tokio::test]
async fn what_is_discarded_is_parked_and_marked_and_can_be_taken_up_again() {
    let ledger = Ledger::new();
    let running = ledger.start(Job::done(), quick());
    let call = job(&json!(1)).after(Duration::from_hours(1));
    ledger.defer(&call);
    running.deferred.discard(call.id()).await.unwrap();
    let entry = running.entry(call.id()).await;
    assert_eq!((entry.stage, entry.discarded_at.is_some()), (Stage::Parked, true));
    assert_eq!(ledger.notes(call.id()), ["parked discarded by an operator"]);
    running.deferred.retry(call.id()).await.unwrap();
    let entry = running.ended(call.id()).await;
    assert_eq!((entry.stage, entry.discarded_at), (Stage::Done, None));
    let again = running.deferred.discard(call.id()).await.unwrap_err();
    assert!(matches!(again, OperatorError::Stage(Stage::Done)), "{again}");
    running.stop().await;
}

#[tokio::test]
async fn a_parked_call_is_discarded_without_a_second_hook() {
    let ledger = Ledger::new();
    let running = ledger.start(refusing(), quick());
    let call = job(&json!(1));
    ledger.defer(&call);
    running.ended(call.id()).await;
    running.deferred.discard(call.id()).await.unwrap();
    let entry = running.entry(call.id()).await;
    assert!(entry.discarded_at.is_some());
    assert_eq!(entry.last_error.unwrap(), "no such item");
    assert_eq!(ledger.notes(call.id()), ["parked no such item"]);
    assert!(running.deferred.list(Filter::new()).await.unwrap().is_empty());
    running.stop().await;
}

#[tokio::test]
async fn what_runs_is_neither_repeated_nor_discarded() {
    let ledger = Ledger::new();
    let running = ledger.start(Job::new(async |_| std::future::pending().await), quick());
    let call = job(&json!(1));
    ledger.defer(&call);
    ledger.until("state = 'running'", 1).await;
    for refused in
        [running.deferred.retry(call.id()).await, running.deferred.discard(call.id()).await]
    {
        let refused = refused.unwrap_err();
        assert_eq!(refused.to_string(), "the call is being made at this moment");
    }
    let unknown = running.deferred.retry(Uuid::new_v4()).await.unwrap_err();
    assert!(matches!(unknown, OperatorError::Unknown), "{unknown}");
    running.drop_it().await;
}

#[tokio::test]
async fn the_list_is_filtered_and_the_newest_come_first() {
    let ledger = Ledger::new();
    let deferred = ledger.runtime(Job::done(), quick()).handle();
    let ids = ledger.defer_many(5, &json!({"n": 1}));
    ledger.execute(
        "INSERT INTO deferred (id, kind, payload, state, not_before, ended_at)
         SELECT gen_random_uuid(), kind, '{}', 'done', now(), now()
         FROM unnest(ARRAY['job', 'other']) AS kind, generate_series(1, 3)",
    );
    let count = async |filter| deferred.list(filter).await.unwrap().len();
    assert_eq!(count(Filter::new()).await, 5);
    assert_eq!(count(Filter::new().limit(2)).await, 2);
    assert_eq!(count(Filter::new().stage(Stage::Done)).await, 6);
    assert_eq!(count(Filter::new().stage(Stage::Done).kind("other")).await, 3);
    assert_eq!(count(Filter::new().kind("other")).await, 0);
    let listed = deferred.list(Filter::new()).await.unwrap();
    let mut newest: Vec<_> = ids.into_iter().rev().collect();
    assert_eq!(listed.iter().map(|entry| entry.id).collect::<Vec<_>>(), newest);
    newest.truncate(1);
    assert_eq!(listed[0].payload.get(), r#"{"n":1}"#);
}

#[tokio::test]
async fn the_snapshot_counts_what_has_not_ended_and_what_is_parked() {
    let ledger = Ledger::new();
    let deferred = ledger.runtime(Job::done(), quick()).handle();
    ledger.defer_many(5, &json!(1));
    ledger.execute(
        "INSERT INTO deferred (id, kind, payload, state, not_before, ended_at)
         SELECT gen_random_uuid(), 'other', '{}', 'parked', now(), now() FROM generate_series(1, 3)",
    );
    let snapshot = deferred.snapshot().await.unwrap();
    assert_eq!(snapshot.broker, Broker::Absent);
    let [jobs, other] = &snapshot.kinds[..] else { panic!("{snapshot:?}") };
    assert_eq!((jobs.kind.as_str(), jobs.pending, jobs.running, jobs.parked), ("job", 5, 0, 0));
    assert!(jobs.oldest.is_some_and(|age| age < Duration::from_mins(1)));
    assert_eq!((other.kind.as_str(), other.parked, other.oldest), ("other", 3, None));
}
