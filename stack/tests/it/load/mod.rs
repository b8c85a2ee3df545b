//! Users by the thousand, and what they are told.
//!
//! - [`closed_loop`]: so many users, each of whom waits for an answer before asking again: what can be
//!   carried;
//! - [`open_loop`]: so many requests a second, whatever becomes of them: what arrives in a rush.

mod client;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::task::JoinSet;

pub(crate) use client::{Hit, Kind, Lines, Shot, Told};

use crate::world::World;
use crate::world::bulk::{order, user};
use crate::world::shop::{ALEX, SIZE};

/// Users who buy, each with a few orders.
const USERS: u64 = 2000;

/// Orders that are looked at.
const ORDERS: u64 = 500;

/// More requests under way than this are a defect of the test.
const MOST: usize = 4000;

/// A world with these users and orders, and enough on the shelf for all; and what its users ask for,
/// in turn: a purchase, and three reads.
pub(crate) fn mix(world: &World) -> Vec<Shot> {
    world.enrol(USERS);
    world.sell(ORDERS);
    let model = world.shelve(10_000_000);
    let wish = format!(r#"{{"model":"{model}","size":"{SIZE}"}}"#);
    let store = "/api/v1/store";
    let shots = (0..USERS).flat_map(|number| {
        let (buyer, seen) = (user(number), order(number % ORDERS));
        [
            Shot::purchase(&format!("{store}/{buyer}/purchase"), &wish),
            Shot::get(&format!("{store}/{ALEX}/{seen}")),
            Shot::get(&format!("{store}/{buyer}/orders?limit=10")),
            Shot::get(&format!("{store}/{ALEX}/{}", order((number * 7 + 1) % ORDERS))),
        ]
    });
    shots.collect()
}

/// So many users for so long.
pub(crate) async fn closed_loop(
    lines: &Lines,
    shots: &[Shot],
    users: usize,
    time: Duration,
) -> Vec<Hit> {
    let (begin, next) = (Instant::now(), AtomicUsize::new(0));
    let user = async || {
        let mut hits = Vec::new();
        while begin.elapsed() < time {
            let number = next.fetch_add(1, Ordering::Relaxed);
            hits.push(lines.fire(shots[number % shots.len()].clone()).await);
        }
        hits
    };
    join_all((0..users).map(|_| user())).await.concat()
}

/// So many requests a second for so long. Returns when each has its answer, or its user's patience is
/// over.
pub(crate) async fn open_loop(
    lines: &Lines,
    shots: &[Shot],
    rate: f64,
    time: Duration,
) -> Vec<Hit> {
    let begin = Instant::now();
    let (mut sent, mut running, mut hits) = (0, JoinSet::new(), Vec::new());
    let mut tick = tokio::time::interval(Duration::from_millis(2));
    while begin.elapsed() < time {
        tick.tick().await;
        let mut due = Duration::from_secs_f64(f64::from(sent) / rate);
        while due < begin.elapsed() && running.len() < MOST {
            let shot = shots[usize::try_from(sent).unwrap() % shots.len()].clone();
            let lines = lines.clone();
            running.spawn(async move { lines.fire(shot).await });
            sent += 1;
            due = Duration::from_secs_f64(f64::from(sent) / rate);
        }
        while let Some(hit) = running.try_join_next() {
            hits.push(hit.unwrap());
        }
    }
    hits.extend(running.join_all().await);
    hits
}

/// What became of them, per second and in percentiles.
pub(crate) struct Tally {
    pub(crate) good: f64,
    pub(crate) purchases: f64,
    pub(crate) offered: f64,
    pub(crate) shed: Vec<Duration>,
    pub(crate) served: Vec<Duration>,
    pub(crate) others: BTreeMap<String, usize>,
}

impl Tally {
    pub(crate) fn of(hits: &[Hit], time: Duration) -> Self {
        let seconds = time.as_secs_f64();
        let per_second = |count: usize| f64::from(u32::try_from(count).unwrap()) / seconds;
        let times = |told: Told| {
            let found = hits.iter().filter(|hit| hit.answer == told);
            let mut times: Vec<_> = found.map(|hit| hit.took).collect();
            times.sort_unstable();
            times
        };
        let (served, shed) = (times(Told::Good), times(Told::Shed));
        let purchases = hits.iter().filter(|hit| hit.answer == Told::Good);
        let purchases = purchases.filter(|hit| hit.kind == Kind::Purchase).count();
        let mut others = BTreeMap::new();
        for hit in hits.iter().filter(|hit| !matches!(hit.answer, Told::Good | Told::Shed)) {
            *others.entry(format!("{:?} {:?}", hit.kind, hit.answer)).or_default() += 1;
        }
        Self {
            good: per_second(served.len()),
            purchases: per_second(purchases),
            offered: per_second(hits.len()),
            shed,
            served,
            others,
        }
    }
}

/// Of sorted times; zero where there are none.
pub(crate) fn percentile(times: &[Duration], percent: usize) -> Duration {
    let index = (times.len() * percent / 100).min(times.len().saturating_sub(1));
    times.get(index).copied().unwrap_or_default()
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { good, purchases, offered, shed, served, others } = self;
        let quantiles = |times| [50, 99, 100].map(|percent| percentile(times, percent));
        let [s50, s99, s100] = quantiles(served);
        let [r50, r99, r100] = quantiles(shed);
        write!(
            f,
            "{offered:.0}/s offered, {good:.0}/s good ({purchases:.0} purchases; p50 {s50:.0?}, \
             p99 {s99:.0?}, max {s100:.0?}), {} shed (p50 {r50:.1?}, p99 {r99:.1?}, max {r100:.1?}), \
             others {others:?}",
            shed.len(),
        )
    }
}
