//! Both in turn: what disturbs one disturbs both.

use std::collections::HashMap;
use std::time::Duration;

use bench_ground::Postgres;
use bench_ground::times::{Times, median};
use stack_load::{Tally, Told, closed_loop};

use crate::scenario::Scenario;
use crate::shop::{Shop, of_database};

/// Clients, each of whom waits for an answer before it asks again.
pub(crate) const CLIENTS: [usize; 4] = [1, 8, 32, 128];

pub(crate) const ROUNDS: usize = 5;
pub(crate) const ROUND: Duration = Duration::from_secs(2);

const SMOKE: Duration = Duration::from_millis(150);

/// A scenario at one number of clients.
pub(crate) struct Cell {
    pub(crate) scenario: Scenario,
    pub(crate) clients: usize,
    pub(crate) store: Side,
    pub(crate) floor: Side,
}

/// Of one of them, round by round.
#[derive(Default)]
pub(crate) struct Side {
    rates: Vec<f64>,
    /// How long each of these answers took.
    times: Vec<Duration>,
    cpu: Duration,
    database: Duration,
    /// In KiB, the most.
    pub(crate) memory: u64,
    /// Not served in an overload, and not served for anything else.
    shed: usize,
    pub(crate) failed: usize,
}

impl Side {
    /// Answers that are all that was asked for.
    pub(crate) fn per_second(&self) -> f64 {
        median(self.rates.clone())
    }

    /// How long these took.
    pub(crate) fn times(&self) -> Times {
        Times::of(self.times.clone())
    }

    fn each(&self, time: Duration) -> Duration {
        time / u32::try_from(self.times.len()).unwrap_or(u32::MAX).max(1)
    }

    /// Processor time for each of these: of its own, and of the database's.
    pub(crate) fn cpu(&self) -> (Duration, Duration) {
        (self.each(self.cpu), self.each(self.database))
    }

    /// Of all requests.
    pub(crate) fn shed(&self) -> f64 {
        let all = self.shed + self.failed + self.times.len();
        f64::from(u32::try_from(self.shed).unwrap_or(u32::MAX))
            / f64::from(u32::try_from(all).unwrap_or(u32::MAX))
    }

    async fn round(
        &mut self,
        (shop, postgres): (&mut Shop, &Postgres),
        (scenario, clients): (Scenario, usize),
        time: Duration,
    ) {
        let shots = &scenario.shots(shop, time.as_secs_f64());
        let lines = shop.lines();
        let before = (shop.cpu(), of_database(postgres));
        let hits = closed_loop(&lines, shots, clients, time).await;
        let (cpu, database) = (shop.cpu() - before.0, took(&before.1, &of_database(postgres)));
        let tally = Tally::of(&hits, time);
        let asked_twice = scenario.is_once() && hits.len() - tally.shed.len() > shots.len();
        assert!(!asked_twice, "a faster machine than was thought of");
        self.rates.push(tally.good);
        self.cpu += cpu;
        self.database += database;
        self.memory = self.memory.max(shop.memory());
        self.shed += tally.shed.len();
        self.failed += tally.others.values().sum::<usize>();
        if !tally.others.is_empty() {
            eprintln!("{tally}");
        }
        self.times.extend(hits.iter().filter(|hit| hit.answer == Told::Good).map(|hit| hit.took));
    }
}

impl Cell {
    /// Store's part of the floor's throughput: the median over the rounds.
    pub(crate) fn share(&self) -> f64 {
        let rounds = self.store.rates.iter().zip(&self.floor.rates);
        median(rounds.map(|(store, floor)| store / floor).collect())
    }
}

fn took(before: &HashMap<i32, Duration>, after: &HashMap<i32, Duration>) -> Duration {
    let took = |(pid, after): (&i32, &Duration)| {
        after.saturating_sub(before.get(pid).copied().unwrap_or_default())
    };
    after.iter().map(took).sum()
}

pub(crate) async fn measure(
    postgres: &Postgres,
    [store, floor]: [&mut Shop; 2],
    scenarios: &[Scenario],
    smoke: bool,
) -> Vec<Cell> {
    let (rounds, time) = if smoke { (1, SMOKE) } else { (ROUNDS, ROUND) };
    let mut cells = Vec::new();
    for scenario in scenarios {
        for shop in [&mut *store, &mut *floor] {
            // The first requests of a process, or of a kind, are no measure.
            Side::default().round((shop, postgres), (*scenario, 8), time).await;
        }
        for clients in CLIENTS {
            let mut sides = [Side::default(), Side::default()];
            for round in 0..rounds {
                // Whoever comes first doesn't always.
                for turn in [round % 2, (round + 1) % 2] {
                    let shop = if turn == 0 { &mut *store } else { &mut *floor };
                    sides[turn].round((shop, postgres), (*scenario, clients), time).await;
                }
            }
            let [store, floor] = sides;
            eprintln!(
                "{}, {clients} clients: {:.0} and {:.0} per second",
                scenario.name(),
                store.per_second(),
                floor.per_second(),
            );
            cells.push(Cell { scenario: *scenario, clients, store, floor });
        }
    }
    cells
}
