//! Everything at once, at random: what was accepted is done or parked, and nothing happens twice.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backing::postgres::testing::TestCluster;
use diesel::prelude::*;
use diesel::sql_types::Uuid as SqlUuid;
use resilience::Random;
use resilience::breaker::Breaker;
use resilience::deferred::{
    Attempt, Deferral, Handler, HandlerError, OperatorError, Settings, Submitted, defer,
};
use serde_json::Value;
use tokio::time::sleep;
use uuid::Uuid;

use super::bed::{Ledger, Running, Tally, eventually, quick};

const SEED: &str = "STORM_SEED";

/// Fails in every way there is, at random. Its effect happens once per id, as that of any system
/// that heeds an idempotency key.
struct Moody {
    random: Arc<Random>,
    effects: Arc<Mutex<HashSet<Uuid>>>,
    seen: Tally,
}

impl Handler for Moody {
    const KIND: &'static str = "moody";
    type Payload = Value;
    type Output = ();

    async fn run(&self, attempt: Attempt<Value>) -> Result<(), HandlerError> {
        let chance = self.random.next_u64() % 100;
        sleep(self.random.up_to(Duration::from_millis(15))).await;
        match chance {
            0..10 => return Err(HandlerError::unavailable("away")),
            10..15 => return Err(HandlerError::not_yet("busy")),
            15..22 => return Err(HandlerError::failed("broken")),
            22..24 => return Err(HandlerError::permanent("refused")),
            24..26 => panic!("on purpose"),
            26..28 => std::future::pending().await,
            _ => {}
        }
        self.effects.lock().unwrap().insert(attempt.id);
        self.seen.add(attempt.id);
        // The answer is lost.
        if chance < 34 { Err(HandlerError::unavailable("no answer")) } else { Ok(()) }
    }

    fn done(&self, conn: &mut PgConnection, id: Uuid, (): &()) -> QueryResult<()> {
        diesel::sql_query("INSERT INTO notes (id, what) VALUES ($1, 'done')")
            .bind::<SqlUuid, _>(id)
            .execute(conn)
            .map(drop)
    }

    fn parked(&self, conn: &mut PgConnection, id: Uuid, _: &str) -> QueryResult<()> {
        diesel::sql_query("INSERT INTO notes (id, what) VALUES ($1, 'parked')")
            .bind::<SqlUuid, _>(id)
            .execute(conn)
            .map(drop)
    }
}

fn settings() -> Settings {
    let wait = Duration::from_millis(100);
    let breaker = Breaker::builder("moody")
        .consecutive_failures(4)
        .open_for(wait)
        .longest_open(wait)
        .probe_lease(Duration::from_secs(1))
        .build();
    quick().attempts(4).timeout(Duration::from_millis(500)).breaker(breaker)
}

#[tokio::test]
async fn whatever_happens_what_was_accepted_ends_once() {
    let seed = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| Random::new().next_u64());
    println!("{SEED}={seed}");
    let random = Arc::new(Random::seeded(seed));
    let cluster = TestCluster::dedicated();
    let ledger = Ledger::within(&cluster);
    let (effects, seen) = (Arc::<Mutex<HashSet<Uuid>>>::default(), Tally::default());
    let moody = || Moody {
        random: Arc::new(Random::seeded(random.next_u64())),
        effects: Arc::clone(&effects),
        seen: seen.clone(),
    };
    let mut runtimes: Vec<Running> = (0..3).map(|_| ledger.start(moody(), settings())).collect();
    let mut accepted = HashSet::new();
    let mut forgotten = HashSet::new();
    let mut unknown = HashSet::new();
    for _ in 0..400 {
        let pick = usize::try_from(random.next_u64() % 3).unwrap();
        let deferred = runtimes[pick].deferred.clone();
        match random.next_u64() % 100 {
            0..3 => {
                cluster.kill();
                sleep(random.up_to(Duration::from_millis(300))).await;
                cluster.start();
            }
            // The process is gone, as far as the ledger can see.
            3..8 => {
                let lost =
                    std::mem::replace(&mut runtimes[pick], ledger.start(moody(), settings()));
                lost.drop_it().await;
            }
            8..10 => {
                let done =
                    std::mem::replace(&mut runtimes[pick], ledger.start(moody(), settings()));
                tokio::spawn(done.stop());
            }
            10..30 => {
                let call = Deferral::new::<Moody>(Uuid::new_v4(), &Value::Null).unwrap();
                let id = call.id();
                let submitted =
                    deferred.submit::<Moody, String>(call, None, |_| Ok(()), |_, _| Ok(()));
                // Some don't wait for the answer.
                let patience = random.up_to(Duration::from_millis(60));
                match tokio::time::timeout(patience, submitted).await {
                    Ok(Ok(Submitted::Refused(_))) => assert!(forgotten.insert(id)),
                    Ok(Ok(_)) => assert!(accepted.insert(id)),
                    Ok(Err(_)) | Err(_) => assert!(unknown.insert(id)),
                }
            }
            30..34 => {
                if let Some(&id) = accepted.iter().next() {
                    let retried = deferred.retry(id).await;
                    assert!(!matches!(retried, Err(OperatorError::Unknown)), "{id} is lost");
                }
            }
            _ => {
                let call = Deferral::new::<Moody>(Uuid::new_v4(), &Value::Null).unwrap();
                let call = call.after(random.up_to(Duration::from_millis(100)));
                let pool = ledger.pool.clone();
                let id = call.id();
                let deferring = tokio::task::spawn_blocking(move || {
                    pool.get().is_ok_and(|mut conn| defer(&mut conn, &call).unwrap_or(false))
                });
                let set = if deferring.await.unwrap() { &mut accepted } else { &mut unknown };
                assert!(set.insert(id));
                deferred.nudge();
            }
        }
    }
    eventually(&format!("all have ended, {SEED}={seed}"), || {
        ledger.count("state IN ('done', 'parked')") == ledger.count("true")
    })
    .await;
    for running in runtimes {
        running.stop().await;
    }
    let present = |id: Uuid| ledger.count(&format!("id = '{id}'"));
    assert!(accepted.iter().all(|&id| present(id) == 1), "lost something, {SEED}={seed}");
    assert!(forgotten.iter().all(|&id| present(id) == 0), "{SEED}={seed}");
    let ended = ledger.count("true");
    let others = unknown.iter().filter(|&&id| present(id) == 1).count();
    assert_eq!(ended, i64::try_from(accepted.len() + others).unwrap(), "{SEED}={seed}");
    let twice = "SELECT count(*) AS number FROM (SELECT id FROM notes WHERE what = 'done'
                 GROUP BY id HAVING count(*) > 1) AS twice";
    assert_eq!(ledger.number(twice), 0, "done twice, {SEED}={seed}");
    let torn = "SELECT count(*) AS number FROM deferred
                WHERE (state = 'done') <> EXISTS (SELECT FROM notes
                                                  WHERE notes.id = deferred.id AND what = 'done')";
    assert_eq!(ledger.number(torn), 0, "an end without its hook, {SEED}={seed}");
    let effects = effects.lock().unwrap();
    let done = ledger.count("state = 'done'");
    assert!(effects.len() >= usize::try_from(done).unwrap());
    println!(
        "accepted {}, refused {}, unknown {others}, done {done}, effects {}, runs of them {}",
        accepted.len(),
        forgotten.len(),
        effects.len(),
        seen.all(),
    );
}
