//! What operators see and do.

use std::time::Duration;

use diesel::connection::SimpleConnection as _;
use diesel::{PgConnection, QueryResult};
use resilience::deferred::{
    Attempt, Broker, Deferral, Filter, Handler, HandlerError, OperatorError, Stage, hold,
};
use serde_json::{Value, json};
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

/// Notes that it was discarded.
struct Noting;

impl Handler for Noting {
    const KIND: &'static str = "noting";
    type Payload = Value;
    type Output = ();

    async fn run(&self, _: Attempt<Value>) -> Result<(), HandlerError> {
        Err(HandlerError::permanent("no such item"))
    }

    fn discarded(&self, conn: &mut PgConnection, id: Uuid) -> QueryResult<()> {
        conn.batch_execute(&format!("INSERT INTO notes VALUES ('{id}', 'discarded')"))
    }
}

#[tokio::test]
async fn the_handler_hears_of_a_call_that_is_discarded_once() {
    let ledger = Ledger::new();
    let running = ledger.start(Noting, quick());
    let call = || Deferral::new::<Noting>(Uuid::new_v4(), &json!(1)).unwrap();
    let (parked, waiting) = (call(), call().after(Duration::from_hours(1)));
    ledger.defer_all([&parked, &waiting]);
    assert_eq!(running.ended(parked.id()).await.stage, Stage::Parked);
    for call in [parked, waiting] {
        for _ in 0..2 {
            running.deferred.discard(call.id()).await.unwrap();
        }
        assert_eq!(ledger.notes(call.id()), ["discarded"]);
        // Nobody needs it: whoever wants to hold it begins anew, though it was given up before.
        ledger.execute("UPDATE deferred SET strikes = 20");
        let held = hold(&mut ledger.conn(), &call, Duration::from_mins(1)).unwrap().unwrap();
        let entry = running.entry(call.id()).await;
        assert_eq!((entry.stage, entry.strikes, entry.discarded_at), (Stage::Running, 0, None));
        assert!(held.forget(&mut ledger.conn()).unwrap());
    }
    running.stop().await;
}

#[tokio::test]
async fn what_has_no_handler_any_more_is_discarded_or_waits_for_one() {
    let ledger = Ledger::new();
    let running = ledger.start(Job::done(), quick());
    let call = || Deferral::new::<Noting>(Uuid::new_v4(), &json!(1)).unwrap();
    let (discarded, waiting) = (call(), call());
    ledger.defer_all([&discarded, &waiting]);
    running.deferred.discard(discarded.id()).await.unwrap();
    let entry = running.entry(discarded.id()).await;
    assert_eq!((entry.stage, entry.discarded_at.is_some()), (Stage::Parked, true));
    assert_eq!(entry.last_error.unwrap(), "discarded by an operator");
    ledger
        .execute("UPDATE deferred SET state = 'parked', ended_at = now() WHERE state = 'pending'");
    running.deferred.retry(waiting.id()).await.unwrap();
    assert_eq!(running.entry(waiting.id()).await.stage, Stage::Pending);
    assert!(ledger.notes(discarded.id()).is_empty());
    let with = ledger.start(Noting, quick());
    assert_eq!(with.ended(waiting.id()).await.last_error.unwrap(), "no such item");
    running.stop().await;
    with.stop().await;
}

#[tokio::test]
async fn what_is_discarded_is_not_counted_and_is_deleted_as_what_is_done_is() {
    let ledger = Ledger::new();
    ledger.execute(
        "INSERT INTO deferred (id, kind, payload, state, not_before, ended_at, discarded_at)
         SELECT gen_random_uuid(), 'job', '{}', 'parked', now(), now() - interval '40 days',
                now() - age * interval '1 day'
         FROM unnest(ARRAY[29, 31, NULL]) AS age, generate_series(1, 1500)",
    );
    let running = ledger.start(Job::done(), quick());
    ledger.until("discarded_at IS NOT NULL", 1500).await;
    assert_eq!(ledger.count("discarded_at IS NULL"), 1500);
    assert_eq!(running.deferred.snapshot().await.unwrap().kinds[0].parked, 1500);
    running.stop().await;
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
