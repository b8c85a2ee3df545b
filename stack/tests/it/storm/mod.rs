//! Users buy, claim and give back while everything is killed, over and over: in the end everybody has
//! what they were told, and there is no more than that.
//!
//! - [`users`]: who comes, at a steady rate, and notes what they are told; [`shoppers`]: those who buy;
//! - [`trouble`]: what is killed, stopped, frozen, cut off, filled up, deleted and wiped meanwhile;
//! - [`effects`]: what happens in the databases meanwhile;
//! - [`verdict`]: what has become of it all, by all that can tell; [`purchases`]: its part on these.
//!
//! The seed is printed first; `CHAOS_SEED` repeats its choices, and `CHAOS_SECONDS` sets the length of
//! the long ones (600).

mod effects;
mod purchases;
mod shoppers;
mod trouble;
mod users;
mod verdict;

use std::sync::Arc;
use std::time::{Duration, Instant};

use self::users::Crowd;
use crate::world::{Plan, World, dice};

/// How long the short form lasts, which is run with all other tests.
const SHORT: Duration = Duration::from_secs(20);

/// After this nothing may be under way any more: a promise.
const HEALED: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread")]
async fn everybody_has_what_they_were_told_after_a_storm_over_rabbitmq() {
    storm(World::plan().broker(), SHORT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_has_what_they_were_told_after_a_storm_without_a_broker() {
    storm(World::plan(), SHORT).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make chaos: ten minutes"]
async fn long_1_everybody_has_what_they_were_told_over_rabbitmq() {
    storm(World::plan().broker(), long()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make chaos: ten minutes"]
async fn long_2_everybody_has_what_they_were_told_without_a_broker() {
    storm(World::plan(), long()).await;
}

fn long() -> Duration {
    let seconds = std::env::var("CHAOS_SECONDS").map_or(600, |text| text.parse().unwrap());
    Duration::from_secs(seconds)
}

/// Over two replicas of each service.
async fn storm(plan: Plan, length: Duration) {
    let seed = dice::seed();
    eprintln!("CHAOS_SEED={seed}");
    let plan = plan.replicas(2).own_postgres().impatient().alone();
    let world = Arc::new(plan.start().await);
    let crowd = Crowd::of(length);
    world.sell(crowd.claimants);
    world.enrol(crowd.shoppers);
    // Not enough for those who want one of these.
    let scarce = world.shelve(i64::try_from(crowd.shoppers / 32).unwrap() + 1);
    effects::watch(&world);

    let end = Instant::now() + length;
    let tally = Arc::new(trouble::Tally::default());
    let crowding = users::come(&world, seed, crowd, &scarce);
    let ((), mut users) = tokio::join!(trouble::rage(&world, seed, end, &tally), crowding);
    let healed = tally.last_repair().max(users.last());
    let left = HEALED.saturating_sub(healed.elapsed());
    let mut since = verdict::Since::new();
    let calm = verdict::calm(&world, &mut users, &mut since);
    let calm = tokio::time::timeout(left, calm).await;
    let took = healed.elapsed();
    if calm.is_err() {
        verdict::explain(&world);
        let late = format!("not within {HEALED:?} of the last repair, CHAOS_SEED={seed}");
        panic!("{late}: {since:?}; {}", users.left());
    }
    let ends = verdict::check(&world, &users, crowd).await;
    tally.print(seed, length);
    ends.print(&users);
    eprintln!("| calm after the last repair | {took:.1?} |");
    for (what, when) in since {
        eprintln!("| … {what} | {:.1?} |", when.duration_since(healed));
    }
}
