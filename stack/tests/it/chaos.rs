//! Whatever is stopped, killed and frozen while users shop: in the end each has what they were told.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use service::testing::{Call, Response, assert_envelope, until};
use uuid::Uuid;

use crate::outage::Away;
use crate::world::dice::{self, Dice};
use crate::world::shop::Promise as _;
use crate::world::{Part, World};

/// The longest lease that a crash leaves (15 s), an open breaker's wait, and some time.
const IN_THE_END: Duration = Duration::from_secs(40);

/// Sends until it succeeds, under one key; through crashes too.
async fn insist(call: impl Fn() -> Call) -> Response {
    until(IN_THE_END, "it succeeds in the end", async || {
        // Store itself may be down, or go down.
        let answer = call().try_send().await.ok()?;
        if (200..300).contains(&answer.status) {
            return Some(answer);
        }
        let code = answer.json()["code"].as_str().unwrap().to_owned();
        let status = if code == "idempotency_in_progress" { 409 } else { 503 };
        assert_envelope(&answer, status, &code);
        tokio::time::sleep(Duration::from_millis(50)).await;
        None
    })
    .await
}

/// Buys, claims, and refunds every other order, until it is enough; returns what is kept.
async fn shopper(world: &World, enough: &AtomicBool) -> Vec<Uuid> {
    let mut kept = Vec::new();
    while !enough.load(Ordering::Relaxed) {
        let key = Uuid::new_v4().to_string();
        let order = insist(|| world.buy().key(&key)).await.bought();
        let claim = until(IN_THE_END, "the claim is decided", async || {
            let answer = insist(|| world.claim(order).key(&key)).await;
            (answer.status == 200).then(|| answer.ok())
        })
        .await;
        assert_eq!(claim["decision"], "RETURN", "{order}");
        let list = insist(|| world.claims(order)).await.ok();
        assert_eq!(list.as_array().unwrap().len(), 1, "{list}");
        if kept.len() % 2 == 0 {
            insist(|| world.refund(order).key(&key)).await.no_content();
            let order = insist(|| world.buy().key(&key).header("X-Request-Id", "replay")).await;
            // The answer of its first time, whatever became of it.
            order.bought();
        }
        kept.push(order);
    }
    let kept = kept.into_iter().enumerate();
    kept.filter_map(|(number, order)| (number % 2 == 1).then_some(order)).collect()
}

async fn storm(replicas: usize, rounds: usize) {
    let seed = dice::seed();
    eprintln!("CHAOS_SEED={seed}");
    let mut dice = Dice::of(seed, "trouble");
    let world = World::plan().replicas(replicas).impatient().start().await;
    let mut paid = Vec::new();
    for round in 0..rounds {
        let enough = AtomicBool::new(false);
        let trouble = async {
            for _ in 0..3 {
                let part = dice.one_of(&Part::ALL);
                let away = dice.one_of(&[Away::Stopped, Away::Killed, Away::Frozen]);
                let (before, length) = (dice.one_of(&[0, 50, 300]), dice.one_of(&[100, 700, 2500]));
                eprintln!("round {round}: after {before} ms {part:?} {away:?} for {length} ms");
                tokio::time::sleep(Duration::from_millis(before)).await;
                away.begin(&world, part).await;
                tokio::time::sleep(Duration::from_millis(length)).await;
                away.end(&world, part).await;
            }
            enough.store(true, Ordering::Relaxed);
        };
        let shoppers = join_all((0..5).map(|_| shopper(&world, &enough)));
        let (kept, ()) = tokio::join!(shoppers, trouble);
        paid.extend(kept.into_iter().flatten());
        world.settles_with(&paid).await;
        world.owes_nothing().await;
    }
}

#[tokio::test]
async fn after_a_storm_everybody_has_what_they_were_told() {
    storm(1, 1).await;
}

#[tokio::test]
#[ignore = "nightly: 20 rounds"]
async fn after_20_storms_everybody_has_what_they_were_told() {
    storm(1, 20).await;
}

#[tokio::test]
#[ignore = "nightly: 20 rounds"]
async fn after_20_storms_over_two_replicas_everybody_has_what_they_were_told() {
    storm(2, 20).await;
}
