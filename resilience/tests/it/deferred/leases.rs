//! Who may carry a row out, when there are several, and when one of them dies.

use std::time::Duration;

use diesel::prelude::*;
use diesel::sql_types::{Text, Uuid as SqlUuid};
use resilience::deferred::Stage;
use serde_json::Value;

use super::bed::{Job, Ledger, eventually, job};
use super::worker::{Chore, Do, Worker, settings};

/// What a worker carries at a time, by default.
const PLACES: usize = 16;

/// Runs of the same row that were under way at the same moment while its lease held. A run that was
/// killed holds it for a second after its last heartbeat at least, and that is later than its
/// beginning.
const OVERLAPS: &str = "
    SELECT count(*) AS number FROM runs AS one JOIN runs AS other
    ON one.id = other.id AND one.number < other.number
    WHERE other.began_at < coalesce(one.ended_at, one.began_at + interval '0.9 seconds')";

#[tokio::test]
async fn a_frozen_worker_is_overtaken_and_its_late_result_writes_nothing() {
    let ledger = Ledger::new();
    let frozen = Worker::start(&ledger, "frozen");
    let call = Chore::call(&Do::WaitForGo);
    ledger.defer(&call);
    eventually("it runs", || ledger.number("SELECT count(*) AS number FROM runs") == 1).await;
    frozen.freeze();
    ledger.execute("INSERT INTO notes (id, what) VALUES (gen_random_uuid(), 'go')");
    let running = ledger.start(Chore::new(&ledger.pool, "other"), settings());
    let entry = running.ended(call.id()).await;
    assert_eq!((entry.stage, entry.attempts), (Stage::Done, 2));
    assert_eq!(entry.last_error.unwrap(), "interrupted");
    frozen.thaw();
    let ended =
        "SELECT count(*) AS number FROM runs WHERE worker = 'frozen' AND ended_at IS NOT NULL";
    let behind = Chore::call(&Do::Take(1));
    running.stop().await;
    ledger.defer(&behind);
    // It goes on: it has noticed that it was overtaken, or has come to its end in vain.
    eventually("it works again", || ledger.notes(behind.id()) == ["done by frozen"]).await;
    assert!(ledger.number(ended) <= 2);
    assert_eq!(ledger.notes(call.id()), ["done by other"]);
    assert_eq!(ledger.count("state = 'done' AND attempts = 2"), 1);
}

#[tokio::test]
async fn a_lost_lease_stops_the_handler_before_its_end() {
    let ledger = Ledger::new();
    let running = ledger.start(Chore::new(&ledger.pool, "this"), settings());
    let call = Chore::call(&Do::WaitForGo);
    ledger.defer(&call);
    eventually("it runs", || ledger.number("SELECT count(*) AS number FROM runs") == 1).await;
    // Somebody else has it now.
    diesel::sql_query(
        "UPDATE deferred SET token = gen_random_uuid(), lease_until = now() + interval '1 hour'
         WHERE id = $1 AND state = $2",
    )
    .bind::<SqlUuid, _>(call.id())
    .bind::<Text, _>("running")
    .execute(&mut ledger.conn())
    .unwrap();
    let breaker = running.deferred.breaker::<Chore>().clone();
    eventually("it lets go", || breaker.snapshot().in_flight == 0).await;
    assert!(breaker.snapshot().ignored > 0);
    ledger.execute("INSERT INTO notes (id, what) VALUES (gen_random_uuid(), 'go')");
    running.stop().await;
    assert_eq!(ledger.number("SELECT count(*) AS number FROM runs WHERE ended_at IS NULL"), 1);
    assert_eq!(ledger.count("state = 'running'"), 1);
}

#[tokio::test]
async fn an_end_that_comes_while_somebody_else_makes_the_call_writes_nothing() {
    let ledger = Ledger::new();
    let pool = ledger.pool.clone();
    let handler = Job::new(move |attempt| {
        let pool = pool.clone();
        async move {
            // Somebody takes it over, and this ends before it can have noticed.
            diesel::sql_query(
                "UPDATE deferred SET token = gen_random_uuid(), lease_until = now() + interval '1 hour'
                 WHERE id = $1",
            )
            .bind::<SqlUuid, _>(attempt.id)
            .execute(&mut pool.get().unwrap())
            .unwrap();
            Ok(Value::Null)
        }
    });
    let running = ledger.start(handler, settings());
    let call = job(&Value::Null);
    ledger.defer(&call);
    running.deferred.nudge();
    ledger.until("lease_until > now() + interval '1 minute'", 1).await;
    running.stop().await;
    assert_eq!(ledger.count("state = 'running'"), 1);
    assert!(ledger.notes(call.id()).is_empty());
}

#[tokio::test]
async fn a_live_lease_is_extended_for_as_long_as_the_call_takes() {
    let ledger = Ledger::new();
    let one = ledger.start(Chore::new(&ledger.pool, "one"), settings());
    let other = ledger.start(Chore::new(&ledger.pool, "other"), settings());
    let call = Chore::call(&Do::Take(3500));
    ledger.defer(&call);
    assert_eq!(one.ended(call.id()).await.attempts, 1);
    one.stop().await;
    other.stop().await;
}

async fn share(workers: usize) {
    let ledger = Ledger::new();
    let mut workers: Vec<_> =
        (0..workers).map(|n| Worker::start(&ledger, &format!("worker {n}"))).collect();
    // More than all but one of them can carry at a time, however slow the others are to begin.
    let held_up = workers.len() * PLACES;
    let waiting: Vec<_> = (0..held_up).map(|_| Chore::call(&Do::WaitForGo)).collect();
    ledger.defer_all(&waiting);
    for n in 0..150 {
        ledger.defer(&Chore::call(&Do::Take(n % 80)));
    }
    eventually("each works", || {
        let seen = ledger.number("SELECT count(DISTINCT worker) AS number FROM runs");
        seen == i64::try_from(workers.len()).unwrap()
    })
    .await;
    let held = "SELECT count(*) AS number FROM runs WHERE worker = 'worker 0' AND ended_at IS NULL";
    eventually("the first one is busy", || ledger.number(held) > 0).await;
    workers[0].kill();
    ledger.execute("INSERT INTO notes (id, what) VALUES (gen_random_uuid(), 'go')");
    ledger.until("state = 'done'", held_up + 150).await;
    assert_eq!(ledger.number(OVERLAPS), 0);
    let twice = "SELECT count(*) AS number FROM (SELECT id FROM notes WHERE what LIKE 'done%'
                 GROUP BY id HAVING count(*) > 1) AS twice";
    assert_eq!(ledger.number(twice), 0);
}

#[tokio::test]
async fn two_replicas_share_the_work_and_pass_on_what_the_killed_one_had() {
    share(2).await;
}

#[tokio::test]
async fn three_replicas_share_the_work_and_pass_on_what_the_killed_one_had() {
    share(3).await;
}

#[tokio::test]
async fn what_a_killed_worker_had_passes_on_within_the_lease() {
    let ledger = Ledger::new();
    let mut worker = Worker::start(&ledger, "killed");
    let calls: Vec<_> = (0..8).map(|_| Chore::call(&Do::WaitForGo)).collect();
    ledger.defer_all(&calls);
    eventually("all run", || ledger.number("SELECT count(*) AS number FROM runs") == 8).await;
    let running = ledger.start(Chore::new(&ledger.pool, "next"), settings());
    worker.kill();
    let killed = std::time::Instant::now();
    eventually("all run again", || ledger.number("SELECT count(*) AS number FROM runs") == 16)
        .await;
    // A lease of a second, and a look every second.
    assert!(killed.elapsed() < Duration::from_secs(3), "{:?}", killed.elapsed());
    ledger.execute("INSERT INTO notes (id, what) VALUES (gen_random_uuid(), 'go')");
    for call in calls {
        assert_eq!(running.ended(call.id()).await.stage, Stage::Done);
    }
    assert_eq!(ledger.number(OVERLAPS), 0);
    running.stop().await;
}
