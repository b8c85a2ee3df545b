//! Processes that are killed, again and again.

use std::time::Duration;

use resilience::Random;
use resilience::deferred::Stage;
use uuid::Uuid;

use super::bed::{Ledger, eventually};
use super::worker::{Chore, Do, Worker, settings};

#[tokio::test]
async fn a_worker_killed_fifty_times_parks_nothing_that_never_ran() {
    const CALLS: i64 = 400;
    let ledger = Ledger::new();
    let random = Random::new();
    let calls: Vec<_> = (0..CALLS).map(|_| Chore::call(&Do::Take(150))).collect();
    ledger.defer_all(&calls);
    for _ in 0..50 {
        let mut worker = Worker::start(&ledger, "killed");
        let life = random.up_to(Duration::from_millis(250));
        tokio::time::sleep(life).await;
        worker.kill();
    }
    let running = ledger.start(Chore::new(&ledger.pool, "last"), settings());
    // What was interrupted often is begun alone, so that all of it takes as long as chance would have it.
    let ended = || ledger.count("state IN ('done', 'parked')");
    let mut before = ended();
    while before < CALLS {
        eventually("another one ends", || ended() > before).await;
        before = ended();
    }
    for call in &calls {
        let entry = running.entry(call.id()).await;
        // The last few are begun by every worker, and may be interrupted so often that they are taken
        // for what killed it. The others only waited.
        if entry.stage != Stage::Done {
            let runs = format!("SELECT count(*) AS number FROM runs WHERE id = '{}'", call.id());
            let runs = ledger.number(&runs);
            assert!(runs > 0, "it never ran: {:?}", entry.last_error);
        }
    }
    assert!(ledger.count("state = 'done'") > 350, "it is the last few that are taken for it");
    running.stop().await;
}

#[tokio::test]
async fn poison_that_kills_its_process_is_parked_and_what_was_beside_it_is_not() {
    let ledger = Ledger::new();
    let poison = Chore::call(&Do::Poison);
    ledger.defer(&poison);
    let beside: Vec<_> = (0..7).map(|_| Chore::call(&Do::Take(200))).collect();
    ledger.defer_all(&beside);
    let mut deaths = 0;
    let mut worker = Worker::start(&ledger, "worker");
    eventually("all have ended", || {
        if worker.has_ended() {
            deaths += 1;
            worker = Worker::start(&ledger, "worker");
        }
        ledger.count("state IN ('done', 'parked')") == 8
    })
    .await;
    let running = ledger.start(Chore::new(&ledger.pool, "last"), settings());
    for call in &beside {
        let entry = running.entry(call.id()).await;
        assert_eq!(entry.stage, Stage::Done, "{entry:?}");
    }
    let parked =
        format!("id = '{}' AND last_error = 'given up after 4 attempts: interrupted'", poison.id());
    assert_eq!(ledger.count(&parked), 1);
    assert_eq!(deaths, 4, "three attempts, and one alone");
    running.stop().await;
}

#[tokio::test]
async fn a_crash_between_hold_and_outcome_leaves_the_call_to_the_runtime() {
    let ledger = Ledger::new();
    let id = Uuid::new_v4();
    let mut submitter = Worker::submitting(&ledger, id);
    eventually("it runs", || ledger.number("SELECT count(*) AS number FROM runs") == 1).await;
    assert_eq!(ledger.count("state = 'running' AND held"), 1);
    submitter.kill();
    ledger.execute("INSERT INTO notes (id, what) VALUES (gen_random_uuid(), 'go')");
    let running = ledger.start(Chore::new(&ledger.pool, "runtime"), settings());
    let entry = running.ended(id).await;
    assert_eq!((entry.stage, entry.attempts, entry.strikes), (Stage::Done, 2, 1));
    assert_eq!(ledger.notes(id), ["prepared", "done by runtime"]);
    running.stop().await;
}
