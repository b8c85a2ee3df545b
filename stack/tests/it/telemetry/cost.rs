//! What metrics and traces take of the throughput: `make telemetry-cost` prints the figures.

use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use stack_load::{Lines, Shot, Tally, closed_loop, watch};
use tokio::net::TcpListener;

use crate::load::mix;
use crate::world::{Part, Plan, World};

/// A promise, with what two measurements of the same differ by on a quiet machine.
const LEAST_LEFT: f64 = 0.95;

/// Each of them in turn, `COST_ROUNDS` times: what else the machine does hits all of them alike.
fn rounds() -> usize {
    let rounds = std::env::var("COST_ROUNDS").ok();
    rounds.map_or(15, |text| text.parse().expect("COST_ROUNDS"))
}

const ROUND: Duration = Duration::from_secs(3);
const USERS: usize = 8;

/// Takes what it is sent, and looks at nothing of it: a collector is on another machine.
async fn sink() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new().route("/v1/traces", post(async |_: Bytes| Vec::<u8>::new()));
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

struct Shop {
    name: &'static str,
    world: World,
    lines: Lines,
    shots: Vec<Shot>,
    /// Answers a second, and processor time for each, round by round.
    rounds: Vec<(f64, f64)>,
}

impl Shop {
    async fn open(name: &'static str, plan: Plan) -> Self {
        let world = plan.start().await;
        let shots = mix(&world);
        let lines = Lines::to(&world.replica(Part::Store, 0).url());
        // The first requests of a process are no measure.
        closed_loop(&lines, &shots, USERS, ROUND).await;
        Self { name, world, lines, shots, rounds: Vec::new() }
    }

    /// Of all four.
    fn cpu(&self) -> Duration {
        let of = |part: &Part| watch::cpu(self.world.replica(*part, 0).pid().as_raw()).unwrap();
        Part::ALL.iter().map(of).sum()
    }

    async fn round(&mut self) {
        let before = self.cpu();
        let tally = Tally::of(&closed_loop(&self.lines, &self.shots, USERS, ROUND).await, ROUND);
        assert!(tally.others.is_empty(), "{}: {tally}", self.name);
        let took = self.cpu().saturating_sub(before).as_secs_f64() * 1000.0;
        let each = took / (tally.good * ROUND.as_secs_f64());
        self.rounds.push((tally.good, each));
    }

    /// What is left of another one's throughput, and how much more processor time is taken: the
    /// medians of all rounds.
    fn beside(&self, other: &Self) -> (f64, f64) {
        let both = || self.rounds.iter().zip(&other.rounds);
        let throughput = both().map(|(own, other)| own.0 / other.0).collect();
        let cpu = both().map(|(own, other)| own.1 / other.1).collect();
        (median(throughput), median(cpu))
    }
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_unstable_by(f64::total_cmp);
    all[all.len() / 2]
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "cost: performance on a quiet machine"]
async fn metrics_and_traces_cost_at_most_5_percent_of_the_throughput() {
    let sink = sink().await;
    let mut shops = [
        Shop::open("neither", World::plan().variable("UNCOUNTED", "1")).await,
        Shop::open("metrics", World::plan()).await,
        // As it comes: with as many of the traces sent as are sent where nothing else is said.
        Shop::open(
            "metrics and traces",
            World::plan().variable("OTEL_EXPORTER_OTLP_ENDPOINT", &sink),
        )
        .await,
    ];
    for round in 0..rounds() {
        for number in 0..shops.len() {
            // Whoever comes first doesn't always.
            let turn = (round + number) % shops.len();
            shops[turn].round().await;
        }
    }
    let [neither, metrics, both] = &shops;
    for shop in &shops {
        let (throughput, cpu): (Vec<_>, Vec<_>) = shop.rounds.iter().copied().unzip();
        let (throughput, cpu) = (median(throughput), median(cpu));
        eprintln!("{}: {throughput:.0}/s, {cpu:.3} ms of processor each", shop.name);
    }
    for (shop, beside) in [(metrics, neither), (both, metrics), (both, neither)] {
        let (left, cpu) = shop.beside(beside);
        let (name, other) = (shop.name, beside.name);
        eprintln!("{name} beside {other}: {left:.3} of the throughput, {cpu:.3} of the processor");
    }
    let (left, _) = both.beside(neither);
    assert!(left >= LEAST_LEFT, "{left:.3} of the throughput is left");
}
