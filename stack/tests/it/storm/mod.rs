//! Claims are accepted while everything is killed, over and over: in the end each is decided once.
//!
//! - [`users`]: who claims, at a steady rate, and notes what they are told;
//! - [`trouble`]: what is killed, cut off, filled up, deleted and wiped meanwhile;
//! - [`verdict`]: what has become of every claim, by all that can tell.
//!
//! The seed is printed first; `CHAOS_SEED` repeats its choices, and `CHAOS_SECONDS` sets the length of
//! the long ones (600).

mod trouble;
mod users;
mod verdict;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::world::{Plan, World, dice};

/// How long the short form lasts, which is run with all other tests.
const SHORT: Duration = Duration::from_secs(20);

/// After this nothing may be under way any more: a promise.
const HEALED: Duration = Duration::from_mins(1);

/// Claims a second.
const RATE: u32 = 15;

#[tokio::test(flavor = "multi_thread")]
async fn every_claim_is_decided_once_in_a_storm_over_rabbitmq() {
    storm(World::plan().broker(), SHORT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_claim_is_decided_once_in_a_storm_over_two_replicas_without_a_broker() {
    storm(World::plan().replicas(2), SHORT).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make chaos: ten minutes"]
async fn long_1_every_claim_is_decided_once_over_rabbitmq_and_two_replicas() {
    storm(World::plan().broker().replicas(2), long()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make chaos: ten minutes"]
async fn long_2_every_claim_is_decided_once_without_a_broker() {
    storm(World::plan(), long()).await;
}

fn long() -> Duration {
    let seconds = std::env::var("CHAOS_SECONDS").map_or(600, |text| text.parse().unwrap());
    Duration::from_secs(seconds)
}

async fn storm(plan: Plan, length: Duration) {
    let seed = dice::seed();
    eprintln!("CHAOS_SEED={seed}");
    let world = Arc::new(plan.own_postgres().impatient().alone().start().await);
    let count = u64::from(RATE) * length.as_secs();
    world.sell(count);
    verdict::watch_warranty(&world);

    let end = Instant::now() + length;
    let tally = Arc::new(trouble::Tally::default());
    let claims = users::claim(&world, seed, count);
    let ((), mut users) = tokio::join!(trouble::rage(&world, seed, end, &tally), claims);
    let healed = tally.last_repair().max(users.last());
    let left = HEALED.saturating_sub(healed.elapsed());
    let calm = tokio::time::timeout(left, verdict::calm(&world, &mut users)).await;
    let took = healed.elapsed();
    if calm.is_err() {
        verdict::explain(&world);
        panic!("not within {HEALED:?} of the last repair, CHAOS_SEED={seed}: {}", users.left());
    }
    let ends = verdict::check(&world, users.told(), count).await;
    tally.print(seed, length);
    ends.print(took, &users);
}
