//! The page in `docs/`, and what must hold.

use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;
use std::{fs, thread};

use crate::Results;
use crate::accept::Times;

pub(crate) struct Limit {
    pub(crate) promise: &'static str,
    pub(crate) measured: String,
    pub(crate) held: bool,
}

/// More ended rows may cost this much more: what two runs differ in anyway.
const FLAT: f64 = 1.3;

pub(crate) fn judge(results: &Results) -> Vec<Limit> {
    let share = results.carry.rabbitmq / results.carry.bare;
    let late = results.late.rabbitmq.p99.max(results.late.ledger_only.p99);
    let (few, many) = (&results.grown[0], &results.grown[results.grown.len() - 1]);
    let accept = many.accept.p50.as_secs_f64() / few.accept.p50.as_secs_f64();
    let carry = few.per_second / many.per_second;
    vec![
        Limit {
            promise: "with RabbitMQ: at least 40 % of publishing and consuming without a ledger",
            measured: format!("{:.0} %", share * 100.0),
            held: share >= 0.4,
        },
        Limit {
            promise: "a delay of 1 s: p99 at most 100 ms late",
            measured: millis(late),
            held: late <= Duration::from_millis(100),
        },
        Limit {
            promise: "accepting beside 1 000 000 ended rows: as beside 1000 (at most 1.3 times)",
            measured: format!("{accept:.2} times"),
            held: accept <= FLAT,
        },
        Limit {
            promise: "carrying out beside 1 000 000 ended rows: as beside 1000 (at most 1.3 times)",
            measured: format!("{carry:.2} times"),
            held: carry <= FLAT,
        },
    ]
}

pub(crate) fn write(results: &Results, limits: &[Limit]) -> String {
    let Results { accept, carry, late, grown } = results;
    format!(
        "# Benchmarks of deferred calls

Made by `make bench`, which prints this page, writes it, and fails when a limit below is missed.

{machine}

Everything is on these cores: PostgreSQL, which syncs each commit, RabbitMQ with a quorum queue, and the
process that defers, publishes, consumes and does nothing.

## Accepting a call

A transaction of its own each, on one connection, both in turn.

| | p50 | p99 |
|---|--:|--:|
| an insert of one bare row (id, kind, payload) | {} | {} |
| `defer` | {} | {} |

## From the commit to the end

10 000 calls whose handler does nothing, deferred 100 in a transaction, from the first `defer` until the
last row is done; 50 handlers at once. Beside it the same messages on the same kind of queue, published
with confirms (200 under way), consumed and acknowledged, without a ledger. Medians of 3 rounds.

| | per second |
|---|--:|
| messages without a ledger | {:.0} |
| deferred calls with RabbitMQ | {:.0} |
| deferred calls from the ledger alone | {:.0} |

## A delay of one second

300 calls, one every 20 ms: how much later than a second after the call of `defer` the handler began.

| | p50 | p99 |
|---|--:|--:|
| with RabbitMQ | {} | {} |
| from the ledger alone | {} | {} |

## As the ledger grows

Ended rows are kept for inspection. From the ledger alone.

| ended rows | `defer`, p50 | p99 | calls per second |
|--:|--:|--:|--:|
{}
## What must hold

{}",
        millis(accept.bare.p50),
        millis(accept.bare.p99),
        millis(accept.deferred.p50),
        millis(accept.deferred.p99),
        carry.bare,
        carry.rabbitmq,
        carry.ledger_only,
        millis(late.rabbitmq.p50),
        millis(late.rabbitmq.p99),
        millis(late.ledger_only.p50),
        millis(late.ledger_only.p99),
        grown.iter().fold(String::new(), |mut table, grown| {
            let Times { p50, p99 } = grown.accept;
            let (rows, rate) = (grown.rows, grown.per_second);
            let _ = writeln!(table, "| {rows} | {} | {} | {rate:.0} |", millis(p50), millis(p99));
            table
        }),
        table(limits),
        machine = machine(),
    )
}

fn table(limits: &[Limit]) -> String {
    let mut table = String::from("| | measured | |\n|---|--:|---|\n");
    for Limit { promise, measured, held } in limits {
        let held = if *held { "held" } else { "**missed**" };
        let _ = writeln!(table, "| {promise} | {measured} | {held} |");
    }
    table
}

fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name\t: "));
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let rustc = Command::new("rustc").arg("--version").output();
    let rustc = rustc.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    format!(
        "{}, {cores} cores; {}.",
        model.unwrap_or("an unknown processor"),
        rustc.unwrap_or_default()
    )
}
