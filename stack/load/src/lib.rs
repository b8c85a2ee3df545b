//! Users by the thousand, and what they are told.
//!
//! - [`closed_loop`]: so many users, each of whom waits for an answer before asking again: what can be
//!   carried;
//! - [`open_loop`]: so many requests a second, whatever becomes of them: what arrives in a rush;
//! - [`bulk`]: what they have bought before;
//! - [`watch`]: what it takes of the machine.

pub mod bulk;
mod client;
pub mod watch;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::task::JoinSet;
use tokio::time::sleep;

pub use client::{Hit, Kind, Lines, Shot, Told};

/// What is told to whoever is shed.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// More requests under way than this are a defect of the test.
const MOST: usize = 4000;

/// So many users for so long. Whose request is shed asks for the same again when they are told to.
pub async fn closed_loop(lines: &Lines, shots: &[Shot], users: usize, time: Duration) -> Vec<Hit> {
    let (begin, next) = (Instant::now(), AtomicUsize::new(0));
    let user = async || {
        let (mut hits, mut shot) = (Vec::new(), None);
        while begin.elapsed() < time {
            let number = || next.fetch_add(1, Ordering::Relaxed) % shots.len();
            let asked = shot.take().unwrap_or_else(|| shots[number()].clone());
            let hit = lines.fire(asked.clone()).await;
            hits.push(hit);
            if hit.answer == Told::Shed {
                shot = Some(asked);
                sleep(RETRY_AFTER.min(time.saturating_sub(begin.elapsed()))).await;
            }
        }
        hits
    };
    join_all((0..users).map(|_| user())).await.concat()
}

/// So many requests a second for so long. Returns when each has its answer, or its user's patience is
/// over.
pub async fn open_loop(lines: &Lines, shots: &[Shot], rate: f64, time: Duration) -> Vec<Hit> {
    let begin = Instant::now();
    let (mut sent, mut running, mut hits) = (0_u32, JoinSet::new(), Vec::new());
    let mut next = shots.iter().cycle();
    let mut tick = tokio::time::interval(Duration::from_millis(2));
    while begin.elapsed() < time {
        tick.tick().await;
        let mut due = Duration::from_secs_f64(f64::from(sent) / rate);
        while due < begin.elapsed()
            && running.len() < MOST
            && let Some(shot) = next.next().cloned()
        {
            let lines = lines.clone();
            running.spawn(async move { lines.fire(shot).await });
            sent += 1;
            due = Duration::from_secs_f64(f64::from(sent) / rate);
        }
        while let Some(hit) = running.try_join_next() {
            hits.push(hit.expect("no request panics"));
        }
    }
    hits.extend(running.join_all().await);
    hits
}

/// What became of them, per second and in percentiles.
#[derive(Clone, Debug)]
pub struct Tally {
    /// All that was asked for.
    pub good: f64,
    /// Those of them that had an effect.
    pub effects: f64,
    pub offered: f64,
    pub shed: Vec<Duration>,
    pub served: Vec<Duration>,
    pub others: BTreeMap<String, usize>,
}

impl Tally {
    pub fn of(hits: &[Hit], time: Duration) -> Self {
        let seconds = time.as_secs_f64();
        let per_second =
            |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / seconds;
        let times = |told: Told| {
            let found = hits.iter().filter(|hit| hit.answer == told);
            let mut times: Vec<_> = found.map(|hit| hit.took).collect();
            times.sort_unstable();
            times
        };
        let (served, shed) = (times(Told::Good), times(Told::Shed));
        let effects = hits.iter().filter(|hit| hit.answer == Told::Good);
        let effects = effects.filter(|hit| hit.kind == Kind::Effect).count();
        let mut others = BTreeMap::new();
        for hit in hits.iter().filter(|hit| !matches!(hit.answer, Told::Good | Told::Shed)) {
            *others.entry(format!("{:?} {:?}", hit.kind, hit.answer)).or_default() += 1;
        }
        Self {
            good: per_second(served.len()),
            effects: per_second(effects),
            offered: per_second(hits.len()),
            shed,
            served,
            others,
        }
    }
}

/// Of sorted times; zero where there are none.
pub fn percentile(times: &[Duration], percent: usize) -> Duration {
    let index = (times.len() * percent / 100).min(times.len().saturating_sub(1));
    times.get(index).copied().unwrap_or_default()
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { good, effects, offered, shed, served, others } = self;
        let quantiles = |times| [50, 99, 100].map(|percent| percentile(times, percent));
        let [s50, s99, s100] = quantiles(served);
        let [r50, r99, r100] = quantiles(shed);
        write!(
            f,
            "{offered:.0}/s offered, {good:.0}/s good ({effects:.0} with an effect; p50 {s50:.0?}, \
             p99 {s99:.0?}, max {s100:.0?}), {} shed (p50 {r50:.1?}, p99 {r99:.1?}, max {r100:.1?}), \
             others {others:?}",
            shed.len(),
        )
    }
}
