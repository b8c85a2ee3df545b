//! The database goes away in the middle, and comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use backing::postgres::testing::TestCluster;
use resilience::deferred::{Deferral, SubmitError, defer};
use serde_json::Value;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::bed::{Job, Ledger, Tally, eventually, quick};

#[tokio::test]
async fn a_database_that_is_killed_in_the_middle_loses_nothing() {
    let cluster = TestCluster::dedicated();
    let ledger = Ledger::within(&cluster);
    let (runs, at_work) = (Tally::default(), Arc::new(AtomicUsize::new(0)));
    let (seen, busy) = (runs.clone(), Arc::clone(&at_work));
    let running = ledger.start(
        Job::new(move |attempt| {
            seen.add(attempt.id);
            let busy = Arc::clone(&busy);
            async move {
                busy.fetch_add(1, Ordering::SeqCst);
                sleep(Duration::from_millis(20)).await;
                Ok(Value::Null)
            }
        }),
        quick().attempts(10),
    );
    let mut accepted = Vec::new();
    for round in 1..=3 {
        accepted.extend(ledger.defer_many(150, &Value::Null));
        running.deferred.nudge();
        let begun = at_work.load(Ordering::SeqCst);
        eventually("it works", || at_work.load(Ordering::SeqCst) > begun + 30 * round).await;
        cluster.kill();
        // What is asked for now is refused, and not promised.
        let refused = running.deferred.submit::<Job, String>(
            Deferral::new::<Job>(Uuid::new_v4(), &Value::Null).unwrap(),
            None,
            |_| Ok(()),
            |_, _| Ok(()),
        );
        assert!(matches!(crate::soon(refused).await, Err(SubmitError::Database(_))));
        cluster.start();
    }
    ledger.until("state = 'done'", accepted.len()).await;
    assert_eq!(ledger.count("true"), 450);
    // Each was run, and its end was written once.
    assert!(accepted.iter().all(|&id| runs.of(id) >= 1 && ledger.notes(id) == ["done null"]));
    running.stop().await;
}

#[tokio::test]
async fn an_outcome_is_written_when_the_database_is_back_within_the_lease() {
    let cluster = TestCluster::dedicated();
    let ledger = Ledger::within(&cluster);
    let runs = Tally::default();
    let seen = runs.clone();
    let settings = quick().lease(Duration::from_secs(30));
    let running = ledger.start(
        Job::new(move |attempt| {
            seen.add(attempt.id);
            async {
                sleep(Duration::from_millis(300)).await;
                Ok(Value::Null)
            }
        }),
        settings,
    );
    let ids = ledger.defer_many(5, &Value::Null);
    running.deferred.nudge();
    eventually("they run", || runs.all() == 5).await;
    cluster.kill();
    sleep(Duration::from_millis(500)).await;
    cluster.start();
    let back = Instant::now();
    ledger.until("state = 'done' AND attempts = 1", 5).await;
    assert!(back.elapsed() < Duration::from_secs(5), "{:?}", back.elapsed());
    assert!(ids.iter().all(|&id| runs.of(id) == 1));
    running.stop().await;
}

#[tokio::test]
async fn a_runtime_begins_without_its_database() {
    let cluster = TestCluster::dedicated();
    let ledger = Ledger::within(&cluster);
    let ids = ledger.defer_many(3, &Value::Null);
    cluster.stop();
    let running = ledger.start(Job::done(), quick());
    let call = Deferral::new::<Job>(Uuid::new_v4(), &Value::Null).unwrap();
    let away = tokio::task::spawn_blocking({
        let pool = ledger.pool.clone();
        move || pool.get().map(|mut conn| defer(&mut conn, &call)).is_err()
    });
    assert!(away.await.unwrap());
    cluster.start();
    ledger.until("state = 'done'", ids.len()).await;
    running.stop().await;
}

#[tokio::test]
async fn what_a_broker_was_given_is_made_without_it_when_there_is_none_any_more() {
    let ledger = Ledger::new();
    ledger.execute(
        "INSERT INTO deferred (id, kind, payload, state, not_before, token, sent_at)
         SELECT gen_random_uuid(), 'job', '{}', 'sent', now(), gen_random_uuid(), now()
         FROM generate_series(1, 40)",
    );
    let running = ledger.start(Job::done(), quick());
    ledger.until("state = 'done' AND attempts = 1", 40).await;
    running.stop().await;
}
