//! The library's breaker beside its peers, side by side in one run: `make bench`.

mod allocations;
mod dependency;
mod footprint;
mod harness;
mod limits;
mod ours;
mod peers;
mod report;
mod runtime;

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;
use std::{fs, io};

use harness::{Case, Timing};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/benchmarks.md");

pub(crate) struct Results {
    /// The bare call, ours, peers.
    closed: Vec<Timing>,
    /// Reading the clock, a bare call and that, ours with a slow threshold, with a window, with both.
    clocked: Vec<Timing>,
    /// Ours by `call`, ours by `acquire`, peers.
    open: Vec<Timing>,
    /// The bare future, our breaker, our pipeline.
    futures: Vec<Timing>,
}

fn main() -> io::Result<ExitCode> {
    let results = measure();
    if harness::is_smoke() {
        println!("{}", bench_page::table(&limits::judge(&results)));
        return Ok(ExitCode::SUCCESS);
    }
    let footprints = [
        footprint::measure("resilience", &format!("{{ path = {:?} }}", ours::PATH)),
        footprint::measure("failsafe", "\"1\""),
        footprint::measure("recloser", "\"1\""),
        footprint::measure("tower-resilience-circuitbreaker", "\"0.14\""),
    ];
    let limits = limits::judge(&results);
    let page = report::write(&results, &footprints, &limits);
    fs::write(PAGE, &page)?;
    println!("{page}");
    Ok(bench_page::conclude(&limits))
}

fn measure() -> Results {
    let closed = vec![
        Case::new("a bare call", |n| dependency::succeed(n).ok()),
        ours::closed(),
        peers::failsafe_consecutive(),
        peers::failsafe_default(),
        peers::recloser_closed(),
        peers::tower_resilience_closed(),
    ];
    let clocked = vec![
        Case::new("`Instant::now()`", |_| Instant::now()),
        Case::new("a bare call after `Instant::now()`", |n| {
            black_box(Instant::now());
            dependency::succeed(n).ok()
        }),
        ours::slow_threshold(),
        ours::window(),
        ours::slow_threshold_and_window(),
    ];
    let open = vec![
        ours::open_call(),
        ours::open_acquire(),
        peers::failsafe_open(),
        peers::recloser_open(),
        peers::tower_resilience_open(),
    ];
    let futures = vec![
        runtime::futures("a bare future", async |n| dependency::answer(n).await.ok()),
        ours::breaker_round_future(),
        ours::pipeline_round_future(),
    ];
    let mut results = harness::measure(&[closed, clocked, open, futures]).into_iter();
    let mut next = || results.next().expect("as many as were given");
    Results { closed: next(), clocked: next(), open: next(), futures: next() }
}
