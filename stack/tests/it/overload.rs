//! More than Store can carry.

use std::time::Duration;

use crate::load::{Lines, ORDERS, Tally, USERS, closed_loop, mix, open_loop};
use crate::world::{Part, World};

#[tokio::test]
#[ignore = "explore"]
async fn explore() {
    let world = World::plan().alone().start().await;
    world.enrol(USERS);
    world.sell(ORDERS);
    let lines = Lines::to(&world.replica(Part::Store, 0).url());
    let shots = mix();
    let time = Duration::from_secs(4);
    let mut peak = 0.0_f64;
    for users in [4, 8, 16, 32, 64, 128, 256] {
        let hits = closed_loop(&lines, &shots, users, time).await;
        let tally = Tally::of(&hits, time);
        eprintln!("{users} users: {tally}");
        peak = peak.max(tally.good);
    }
    let time = Duration::from_secs(8);
    let hits = open_loop(&lines, &shots, peak * 4.0, time).await;
    eprintln!("open: {}", Tally::of(&hits, time));
}
