//! More than Store can carry: `make overload` prints the figures.

use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use service::testing::until;
use stack_load::{Kind, Lines, Shot, Tally, closed_loop, open_loop, percentile};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::load::mix;
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
    stays_at_its_peak(|_| true).await;
}

#[tokio::test]
#[ignore = "overload: performance on a quiet machine"]
async fn four_times_the_purchases_that_store_can_carry_leave_it_at_its_peak() {
    stays_at_its_peak(|shot| shot.kind == Kind::Effect).await;
}

async fn stays_at_its_peak(asked: fn(&Shot) -> bool) {
    let world = World::plan().alone().start().await;
    let shots: Vec<_> = mix(&world).into_iter().filter(asked).collect();
    let lines = Lines::to(&world.replica(Part::Store, 0).url());
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
    let tally = Tally::of(&hits, time);
    eprintln!("4 times the peak of {peak:.0}/s: {tally}");
    eprintln!("health: p99 {:.1?}, max {:.1?}", percentile(&health, 99), percentile(&health, 100));
    eprintln!("{:.0} % of the peak", tally.good / peak * 100.0);
    let purchase = async || (world.buy().send().await.status == 201).then_some(());
    until(RECOVERED_WITHIN, "a purchase works again", purchase).await;
    let list = async || {
        let answer = world.list().send().await;
        (answer.status == 200 && !answer.text().contains("degraded")).then_some(())
    };
    until(RECOVERED_WITHIN, "a list is whole again", list).await;
    let recovered = ended.elapsed();
    eprintln!("recovered after {recovered:.1?}");
    world.assert_all_closed().await;
    assert!(tally.good >= peak * LEAST_GOODPUT, "{:.0}/s of {peak:.0}/s", tally.good);
    let shed = percentile(&tally.shed, 99);
    assert!(shed <= SHED_WITHIN, "{shed:?}");
    assert!(recovered <= RECOVERED_WITHIN, "{recovered:?}");
    world.settles().await;
}

/// So many connections on which nothing comes, some on which a head begins, and some on which nobody
/// reads; then everything that a user does, and health.
async fn purchases_succeed_among(world: &World, count: usize) {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let store = world.replica(Part::Store, 0);
    let url = store.url();
    let authority = url.strip_prefix("http://").unwrap();
    let before = store.pss();
    let mut open = Vec::new();
    for number in 0..count {
        let mut stream = TcpStream::connect(authority).await.unwrap();
        let sent = match number % 20 {
            0 => b"GET /api/v1/store/".to_vec(),
            1 => b"POST /api/v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\nx".to_vec(),
            2 => b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n".repeat(20),
            _ => Vec::new(),
        };
        // It may be cut off already.
        let _ = stream.write_all(&sent).await;
        open.push(stream);
    }
    for _ in 0..5 {
        let order = world.bought().await;
        world.get(order).send().await.ok();
        assert_eq!(world.client(Part::Store).get("/manage/health").send().await.status, 200);
    }
    let grown = store.pss().saturating_sub(before);
    eprintln!("{count} connections: {grown} KiB more than {before}");
    // Less than the documents say, as few of them send all that they may.
    assert!(grown <= 83 * 1024, "{grown} KiB");
}

#[tokio::test]
async fn purchases_succeed_among_1_000_connections_that_only_sit_there() {
    purchases_succeed_among(&World::start().await, 1000).await;
}

#[tokio::test]
#[ignore = "overload: more descriptors than others should do without"]
async fn purchases_succeed_among_5_000_connections_that_only_sit_there() {
    purchases_succeed_among(&World::plan().alone().start().await, 5000).await;
}
