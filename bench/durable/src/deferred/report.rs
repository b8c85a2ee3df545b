//! The page in `docs/`, and what must hold.

use std::fmt::Write as _;
use std::time::Duration;

use bench_page::Limit;

use super::Results;
use bench_ground::times::{Times, millis};

/// Of what goes without a ledger.
const SHARE: f64 = 0.4;

/// More ended rows may cost this much more: what two runs differ in anyway.
const FLAT: f64 = 1.3;

pub(crate) fn judge(results: &Results) -> Vec<Limit> {
    let carry = &results.carry;
    let share = |promise, rate: f64| {
        let share = rate / carry.bare;
        Limit { promise, measured: format!("{:.0} %", share * 100.0), held: share >= SHARE }
    };
    let late = results.late.rabbitmq.p99.max(results.late.ledger_only.p99);
    let (few, many) = (&results.grown[0], &results.grown[results.grown.len() - 1]);
    let accept = many.accept.p50.as_secs_f64() / few.accept.p50.as_secs_f64();
    let slower = few.per_second / many.per_second;
    vec![
        share(
            "with RabbitMQ: at least 40 % of publishing and consuming without a ledger",
            carry.rabbitmq,
        ),
        share("from the ledger alone: at least 40 % of the same", carry.ledger_only),
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
            measured: format!("{slower:.2} times"),
            held: slower <= FLAT,
        },
    ]
}

pub(crate) fn write(results: &Results, limits: &[Limit]) -> String {
    let Results { accept, carry, late, grown } = results;
    format!(
        "# Benchmarks of deferred calls

Made by `make bench`, which prints this page, writes it, and fails when a limit below is missed.

{machine}.

Everything is on these cores: PostgreSQL, which syncs each commit, RabbitMQ with a quorum queue, and the
process that defers, publishes, consumes and does nothing.

## Accepting a call

A transaction of its own each, on one connection, both in turn.

| | p50 | p99 |
|---|--:|--:|
| an insert of one bare row (id, kind, payload) | {} | {} |
| `defer` | {} | {} |

## From the commit to the end

10 000 calls whose handler does nothing, deferred 100 in a statement, from the first `defer` until the
last row is done; {at_once} handlers at once. Beside it the same messages on the same kind of queue, published
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
        bench_page::table(limits),
        at_once = super::carry::AT_ONCE,
        machine = bench_page::machine(),
    )
}
