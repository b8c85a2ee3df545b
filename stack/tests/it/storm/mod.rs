//! The storm of [`storm`](::storm), over two replicas of each service: every promise holds.
//!
//! The seed is printed first; `CHAOS_SEED` repeats its choices, and `CHAOS_SECONDS` sets the length of
//! the long ones (600).

mod stage;

use std::sync::Arc;
use std::time::Duration;

use ::storm::Plan;
use ::storm::board::Board;
use ::storm::trouble::Pace;
use tokio::sync::watch;
use uuid::Uuid;

use self::stage::Broken;
use crate::world::{self, World};

/// Users a second.
const RATE: u32 = 20;

/// How long the short form lasts, which is run with all other tests.
const SHORT: Duration = Duration::from_secs(20);

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

/// `CHAOS_SEED`, or another one each time.
fn seed() -> u64 {
    match std::env::var("CHAOS_SEED") {
        Ok(seed) => seed.parse().expect("CHAOS_SEED should be a whole number"),
        Err(_) => Uuid::new_v4().as_u64_pair().0 >> 32,
    }
}

/// Over two replicas of each service.
async fn storm(world: world::Plan, length: Duration) {
    let seed = seed();
    eprintln!("CHAOS_SEED={seed}");
    let world = world.replicas(2).own_postgres().impatient().alone();
    let world = Arc::new(world.start().await);
    let board = Arc::new(Board::default());
    let plan = Plan { seed, length, rate: RATE, pace: Pace::STORM };
    let (_never, early) = watch::channel(false);
    let stage = Arc::new(Broken::new(&world));
    let report = ::storm::run(stage, plan, Arc::clone(&board), early).await.unwrap();

    eprintln!("| CHAOS_SEED | {seed} |\n|---|---|\n| storm | {} s |", length.as_secs());
    eprintln!("| kills | {} |", board.kills());
    for (what, times) in board.blows() {
        eprintln!("| … {what} | {times} |");
    }
    for (word, times) in board.words() {
        eprintln!("| users heard {word} | {times} |");
    }
    eprintln!("{}\n{}", report.table(), report.promises);
    // What could not be mended says why something didn't end.
    let trouble = board.take_trouble();
    let breaches: Vec<_> = report.promises.breaches(usize::MAX).chain(report.open).collect();
    let held = report.promises.held() && trouble.is_empty();
    assert!(held, "CHAOS_SEED={seed}: {trouble:#?} {breaches:#?}");
    // Here nobody else has ever been: whatever there is belongs to it.
    world.settles_with(&report.paid).await;
}
