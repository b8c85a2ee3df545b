//! A service is away for minutes while users read: `make loss` prints the figures.

use std::time::Duration;

use stack_load::{Hit, Kind, Lines, Shot, Tally, Told, open_loop, percentile};

use crate::load::mix;
use crate::outage::Away;
use crate::world::{Part, World};

/// Promises.
const SLOWER: f64 = 1.3;

/// How long it is away: `LOSS_SECONDS`.
fn duration() -> Duration {
    let seconds = std::env::var("LOSS_SECONDS").ok();
    Duration::from_secs(seconds.map_or(300, |text| text.parse().expect("LOSS_SECONDS")))
}

/// A second. As many as leave most of the machine idle: what a loss costs is measured, and no load.
const READS: f64 = 100.0;

#[tokio::test]
#[ignore = "loss: performance on a quiet machine"]
async fn five_minutes_without_warehouse_cost_no_read_and_no_time() {
    reads_go_on_without(Part::Warehouse, Away::Killed).await;
}

#[tokio::test]
#[ignore = "loss: performance on a quiet machine"]
async fn five_minutes_of_a_frozen_warehouse_cost_no_read_and_no_time() {
    reads_go_on_without(Part::Warehouse, Away::Frozen).await;
}

#[tokio::test]
#[ignore = "loss: performance on a quiet machine"]
async fn five_minutes_without_warranty_cost_no_read_and_no_time() {
    reads_go_on_without(Part::Warranty, Away::Killed).await;
}

#[tokio::test]
#[ignore = "loss: performance on a quiet machine"]
async fn five_minutes_of_a_frozen_warranty_cost_no_read_and_no_time() {
    reads_go_on_without(Part::Warranty, Away::Frozen).await;
}

async fn reads_go_on_without(part: Part, away: Away) {
    let world = World::start().await;
    let shots: Vec<Shot> = mix(&world).into_iter().filter(|shot| shot.kind == Kind::Read).collect();
    let lines = Lines::to(&world.replica(Part::Store, 0).url());
    let reads = async |time| open_loop(&lines, &shots, READS, time).await;
    // The first requests of a process are no measure.
    reads(duration() / 30).await;
    let time = duration() / 2;
    let before = Tally::of(&reads(time).await, time);
    eprintln!("{part:?}, healthy: {before}");

    let time = duration();
    let (hits, ()) = tokio::join!(reads(time), away.begin(&world, part));
    let healed = away.end(&world, part).await;
    world.works_again(healed).await;
    eprintln!("{part:?}, {away:?}: everything works {:.1?} after it is back", healed.elapsed());
    let without = Tally::of(&hits, time);
    eprintln!("{part:?}, {away:?}: {without}");
    let mut times: Vec<_> = hits.iter().map(|hit| hit.took).collect();
    times.sort_unstable();
    let p99 = |times: &[Duration]| percentile(times, 99).as_secs_f64();
    let ratio = p99(&times) / p99(&before.served);
    eprintln!("{part:?}, {away:?}: p99 {ratio:.2} times the healthy one");

    let answered = |hit: &&Hit| matches!(hit.answer, Told::Good | Told::Degraded);
    let lost = hits.len() - hits.iter().filter(answered).count();
    assert_eq!(lost, 0, "of {} reads: {without}", hits.len());
    // Lists are of users who have bought nothing: for these nobody is asked.
    let degraded = hits.iter().filter(|hit| hit.answer == Told::Degraded).count();
    assert!(degraded * 2 >= hits.len(), "{part:?} was there: {without}");
    assert!(ratio <= SLOWER, "{ratio:.2}");
    world.settles().await;
}
