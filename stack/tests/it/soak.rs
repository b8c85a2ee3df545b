//! Half of what Store can carry, for long: `make soak` prints the figures.

use std::fs;
use std::time::{Duration, Instant};

use stack_load::{Lines, Tally, Told, closed_loop, open_loop};

use crate::load::mix;
use crate::world::{Part, World};

/// How long: `SOAK_SECONDS`.
fn duration() -> Duration {
    let seconds = std::env::var("SOAK_SECONDS").ok();
    Duration::from_secs(seconds.map_or(600, |text| text.parse().expect("SOAK_SECONDS")))
}

/// What is flat: the last fifth of the time takes at most this much more than the second fifth does.
/// The first one fills pools, caches and the allocator's pages.
const MEMORY_SHARE: u64 = 10;
const MEMORY_KIB: u64 = 4 * 1024;
/// What a burst leaves in pools of connections, on either side; there are some 250 000 requests.
const DESCRIPTORS: u64 = 64;

/// Of one service at one moment.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    memory: u64,
    descriptors: u64,
    connections: u64,
}

impl Taken {
    fn of(world: &World, part: Part) -> Self {
        let process = world.replica(part, 0);
        let descriptors = fs::read_dir(format!("/proc/{}/fd", process.pid())).unwrap().count();
        let connections = "(SELECT count(*) FROM pg_stat_activity
                            WHERE datname = current_database() AND pid <> pg_backend_pid())";
        Self {
            memory: process.pss(),
            descriptors: u64::try_from(descriptors).unwrap(),
            connections: u64::try_from(world.number(part, connections)).unwrap(),
        }
    }

    /// The most of each.
    fn most(all: &[Self]) -> Self {
        all.iter().fold(Self::default(), |most, one| Self {
            memory: most.memory.max(one.memory),
            descriptors: most.descriptors.max(one.descriptors),
            connections: most.connections.max(one.connections),
        })
    }
}

#[tokio::test]
#[ignore = "soak: ten minutes"]
async fn half_of_the_peak_takes_no_more_in_the_end_than_in_the_beginning() {
    let world = World::plan().alone().start().await;
    let lines = || Lines::to(&world.replica(Part::Store, 0).url());
    let shots = mix(&world);
    let warm = Duration::from_secs(5);
    closed_loop(&lines(), &shots, 4, warm / 5).await;
    let peak = Tally::of(&closed_loop(&lines(), &shots, 8, warm).await, warm).good;
    let (time, begin) = (duration(), Instant::now());
    let round = (time / 50).max(Duration::from_secs(1));
    let (mut taken, mut hits) = (Part::ALL.map(|_| Vec::new()), Vec::new());
    while begin.elapsed() < time {
        hits.extend(open_loop(&lines(), &shots, peak / 2.0, round).await);
        for (part, taken) in Part::ALL.into_iter().zip(&mut taken) {
            taken.push(Taken::of(&world, part));
        }
    }
    eprintln!("half of {peak:.0}/s: {}", Tally::of(&hits, begin.elapsed()));
    let mut grown = Vec::new();
    for (part, taken) in Part::ALL.into_iter().zip(&taken) {
        let fifth = taken.len() / 5;
        let before = Taken::most(&taken[fifth..2 * fifth]);
        let after = Taken::most(&taken[taken.len() - fifth..]);
        eprintln!("{part:?}: {before:?} became {after:?}");
        let memory = before.memory + before.memory / MEMORY_SHARE + MEMORY_KIB;
        // The pool, and the one for probes.
        let flat = after.memory <= memory
            && after.descriptors <= before.descriptors + DESCRIPTORS
            && after.connections <= 9;
        if !flat {
            grown.push(part);
        }
    }
    assert!(grown.is_empty(), "{grown:?}");
    let good = hits.iter().filter(|hit| hit.answer == Told::Good).count();
    assert!(good * 1000 >= hits.len() * 999, "{good} of {} were served", hits.len());
    world.settles().await;
}
