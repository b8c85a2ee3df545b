//! The page in `docs/`.

use std::fmt::Write as _;

use bench_page::Limit;

use crate::Results;
use crate::footprint::Footprint;
use crate::harness::{THREADS, Timing};
use crate::limits::is_crowded;

const LOCK: &str = include_str!("../Cargo.lock");

pub(crate) fn write(results: &Results, footprints: &[Footprint], limits: &[Limit]) -> String {
    let crowded = if is_crowded(results) {
        "\n**Something else was running: two threads didn't have two cores, and what they cost each \
         other hardly shows. Run it again on an idle machine.**\n"
    } else {
        ""
    };
    format!(
        "# Benchmarks

Made by `make bench`, which prints this page, writes it, and fails when a limit below is missed.

{machine}
{crowded}
## How it is measured

Wall nanoseconds per call per thread: the time from the first thread's start to the last one's end,
divided by the calls that each thread made. One process, one shared breaker per row, and each round
goes through all rows: what disturbs one disturbs all. Shown is the median of the rounds, and after
± half the width of the middle half of them. More threads than cores take turns, so that a call that
disturbs nobody takes eight threads on two cores four times as long as one. The call itself is one
that the optimiser can't remove and that costs next to nothing. `alloc` is how many allocations a
call makes.

## A closed breaker

Every call succeeds. Ours has no slow threshold here: nothing in it needs the time.

{closed}
recloser knows no failures in a row; its default is the cheapest that it offers. tower-resilience is
a service of `tower` and nothing else: its row includes the boxed future that each call is, and with
eight threads mostly the putting to sleep and waking of threads, for its lock is handed over in turn.
As tasks of one runtime they would have to wait less.

## With a clock

A slow threshold needs the time of a call's start, a window that of its end, and reading it is most
of what they cost.

{clocked}
## A rejection

The breaker is open, and says no. Ours says when to come again and why it opened.

{open}
tower-resilience is measured on one thread only. In 0.14, callers that meet at an open circuit can
wait for ever: `poll_ready` starts a timer when it finds the state locked, and drops the answer when
that timer is due at once, so that nothing wakes it.

## A future

It is ready at once. The breaker is as it comes, with its slow threshold. The whole pipeline is
deadline, bulkhead, retry with a budget, breaker and timeout.

{futures}
## Where a peer is faster

{faster}
## What it costs to depend on it

As `cargo add` brings it, with default features: for ours that is the breaker alone. The time is that
of a first `cargo build` of an empty program, nothing downloaded.

{footprints}
## What must hold

Medians of the differences and ratios within each round.

{limits}",
        machine = machine(),
        closed = table(&results.closed),
        clocked = table(&results.clocked),
        open = table(&results.open),
        futures = table(&results.futures),
        faster = faster(results),
        footprints = footprint_table(footprints),
        limits = bench_page::table(limits),
    )
}

fn table(timings: &[Timing]) -> String {
    let mut table = String::from("| |");
    for threads in 0..THREADS.len() {
        let _ = write!(table, " {} |", threads_in_words(threads));
    }
    table.push_str(" alloc |\n|---|--:|--:|--:|--:|\n");
    for timing in timings {
        let _ = write!(table, "| {} |", timing.name);
        for threads in 0..THREADS.len() {
            match (timing.median(threads), timing.spread(threads)) {
                (Some(median), Some(spread)) => {
                    let _ = write!(table, " {median:.1} ± {:.1} |", spread / 2.0);
                }
                _ => table.push_str(" – |"),
            }
        }
        let _ = writeln!(table, " {} |", timing.allocations);
    }
    table
}

fn footprint_table(footprints: &[Footprint]) -> String {
    let mut table = String::from("| | crates | first build |\n|---|--:|--:|\n");
    for Footprint { name, crates, build } in footprints {
        let _ = writeln!(table, "| {name} | {crates} | {:.1} s |", build.as_secs_f64());
    }
    table
}

fn threads_in_words(threads: usize) -> String {
    let threads = THREADS[threads];
    if threads == 1 { "1 thread".to_owned() } else { format!("{threads} threads") }
}

/// Each row of a peer that takes less than ours in the same table.
fn faster(results: &Results) -> String {
    let mut lines = String::new();
    let tables = [
        ("closed", &results.closed[1], &results.closed[2..]),
        ("rejecting (by `call`)", &results.open[0], &results.open[2..]),
    ];
    for (what, ours, peers) in tables {
        for peer in peers {
            for threads in 0..THREADS.len() {
                if let Some(times) = peer.times(ours, threads)
                    && times < 1.0
                {
                    let _ = writeln!(
                        lines,
                        "- {}, {what}, {}: {times:.2} of our time.",
                        peer.name,
                        threads_in_words(threads)
                    );
                }
            }
        }
    }
    if lines.is_empty() { "Nowhere in this run.\n".to_owned() } else { lines }
}

/// With what the peers are.
fn machine() -> String {
    format!(
        "{}; failsafe {}, recloser {}, tower-resilience-circuitbreaker {}.",
        bench_page::machine(),
        version("failsafe"),
        version("recloser"),
        version("tower-resilience-circuitbreaker"),
    )
}

/// Of a package in the lock file.
fn version(name: &str) -> &'static str {
    LOCK.split("[[package]]")
        .find_map(|package| {
            let package = package.trim_start().strip_prefix(&format!("name = \"{name}\"\n"))?;
            package.strip_prefix("version = \"")?.split('"').next()
        })
        .unwrap_or("unknown")
}
