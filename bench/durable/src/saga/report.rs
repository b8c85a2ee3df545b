//! The page in `docs/`, and what must hold.

use std::fmt::Write as _;
use std::time::Duration;

use bench_page::Limit;

use super::{FEW, OPEN, Results};
use bench_ground::times::millis;

/// What a journal may add to a purchase.
const ADDED: Duration = Duration::from_millis(10);
const COMMITS: f64 = 4.0;

/// More ended sagas may cost this much more: what two runs differ in anyway.
const FLAT: f64 = 1.3;

pub(crate) fn judge(results: &Results) -> Vec<Limit> {
    let alone = &results.purchases[0];
    let added = alone.journaled.times.p50.saturating_sub(alone.bare.times.p50);
    let commits = results.commits.0 - results.commits.1;
    let (few, many) = (&results.grown[0], &results.grown[results.grown.len() - 1]);
    let buying = few.purchases.per_second / many.purchases.per_second;
    let recovering = few.recovered / many.recovered;
    vec![
        Limit {
            promise: "a journal adds at most 10 ms to a purchase (p50, one client)",
            measured: millis(added),
            held: added <= ADDED,
        },
        Limit {
            promise: "a journal adds at most 4 commits to a purchase",
            measured: format!("{commits:.2}"),
            held: commits <= COMMITS,
        },
        Limit {
            promise: "buying beside 1 000 000 ended sagas: as beside 1000 (at most 1.3 times)",
            measured: format!("{buying:.2} times"),
            held: buying <= FLAT,
        },
        Limit {
            promise: "taking back beside 1 000 000 ended sagas: as beside 1000 (at most 1.3 times)",
            measured: format!("{recovering:.2} times"),
            held: recovering <= FLAT,
        },
    ]
}

pub(crate) fn write(results: &Results, limits: &[Limit]) -> String {
    let Results { purchases, commits, recovered, grown } = results;
    format!(
        "# Benchmarks of sagas

Made by `make bench`, which prints this page, writes it, and fails when a limit below is missed.

{machine}.

Everything is on these cores: PostgreSQL, which syncs each commit, the process that buys, and the two
systems that it buys from, over HTTP, each of which commits a row of its own for each call.

## A purchase, with a journal and without

Two calls, one after the other, and a row of ours in a commit. With a journal it is a saga of two steps
and a local pivot; without, the same calls by the same clients, and nothing to go by when something
fails. Both in turn, the median of 3 rounds.

| clients | without: per second | p50 | p99 | with: per second | p50 | p99 |
|--:|--:|--:|--:|--:|--:|--:|
{}
Transactions that write, for one purchase, those of the two systems among them: {:.2} with a journal,
{:.2} without.

## After a crash

{OPEN} sagas were open when the process died: the first step of each was done, and what had become of the
second nobody knew. The next process takes both back, from the moment at which the leases are over:
**{recovered:.0} sagas per second**.

## As the journal grows

Ended sagas are kept for inspection, with their steps. 8 clients buy; {FEW} open sagas are taken back.

| ended sagas | purchases per second | p50 | p99 | taken back per second |
|--:|--:|--:|--:|--:|
{}
## What must hold

{}",
        purchases.iter().fold(String::new(), |mut table, both| {
            let (bare, with) = (both.bare, both.journaled);
            let _ = writeln!(
                table,
                "| {} | {:.0} | {} | {} | {:.0} | {} | {} |",
                both.clients,
                bare.per_second,
                millis(bare.times.p50),
                millis(bare.times.p99),
                with.per_second,
                millis(with.times.p50),
                millis(with.times.p99),
            );
            table
        }),
        commits.0,
        commits.1,
        grown.iter().fold(String::new(), |mut table, grown| {
            let bought = grown.purchases;
            let _ = writeln!(
                table,
                "| {} | {:.0} | {} | {} | {:.0} |",
                grown.rows,
                bought.per_second,
                millis(bought.times.p50),
                millis(bought.times.p99),
                grown.recovered,
            );
            table
        }),
        bench_page::table(limits),
        machine = bench_page::machine(),
    )
}
