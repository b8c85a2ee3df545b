//! More than Store can carry: `make overload` prints the figures.

use std::time::{Duration, Instant};

use service::testing::until;

use crate::load::{Lines, ORDERS, Tally, USERS, closed_loop, mix, open_loop, percentile};
use crate::world::{Part, World};

/// Promises.
const LEAST_GOODPUT: f64 = 0.8;
const SHED_WITHIN: Duration = Duration::from_millis(50);
const RECOVERED_WITHIN: Duration = Duration::from_secs(2);

/// How long the overload lasts: `OVERLOAD_SECONDS`.
fn duration() -> Duration {
    let seconds = std::env::var("OVERLOAD_SECONDS").ok();
    Duration::from_secs(seconds.map_or(30, |text| text.parse().expect("OVERLOAD_SECONDS")))
}

#[tokio::test]
#[ignore = "overload: performance on a quiet machine"]
async fn four_times_what_store_can_carry_leaves_it_at_its_peak() {
    let world = World::plan().alone().start().await;
    world.enrol(USERS);
    world.sell(ORDERS);
    let lines = Lines::to(&world.replica(Part::Store, 0).url());
    let shots = mix();
    // The first requests of a process are no measure.
    closed_loop(&lines, &shots, 4, Duration::from_secs(1)).await;
    let mut peak = 0.0_f64;
    for users in [4, 8, 16, 32] {
        let time = duration() / 6;
        let tally = Tally::of(&closed_loop(&lines, &shots, users, time).await, time);
        eprintln!("{users} users: {tally}");
        peak = peak.max(tally.good);
    }
    let time = duration();
    let begin = Instant::now();
    let health = async {
        let client = world.client(Part::Store);
        let mut times = Vec::new();
        while begin.elapsed() < time {
            let asked = Instant::now();
            let answer = client.get("/manage/health").send().await;
            assert_eq!(answer.status, 200, "{:?} into it: {answer:?}", begin.elapsed());
            times.push(asked.elapsed());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        times.sort_unstable();
        times
    };
    let (hits, health) = tokio::join!(open_loop(&lines, &shots, peak * 4.0, time), health);
    let ended = Instant::now();
    let purchase = async || (world.buy().send().await.status == 201).then_some(());
    until(RECOVERED_WITHIN, "a purchase works again", purchase).await;
    let list = async || {
        let answer = world.list().send().await;
        (answer.status == 200 && !answer.text().contains("degraded")).then_some(())
    };
    until(RECOVERED_WITHIN, "a list is whole again", list).await;
    let recovered = ended.elapsed();
    world.assert_all_closed().await;
    let tally = Tally::of(&hits, time);
    eprintln!("4 times the peak of {peak:.0}/s: {tally}");
    eprintln!("health: p99 {:.1?}, max {:.1?}", percentile(&health, 99), percentile(&health, 100));
    eprintln!("{:.0} % of the peak; recovered after {recovered:.1?}", tally.good / peak * 100.0);
    assert!(tally.good >= peak * LEAST_GOODPUT, "{:.0}/s of {peak:.0}/s", tally.good);
    let shed = percentile(&tally.shed, 99);
    assert!(shed <= SHED_WITHIN, "{shed:?}");
    assert!(recovered <= RECOVERED_WITHIN, "{recovered:?}");
    world.settles().await;
}
