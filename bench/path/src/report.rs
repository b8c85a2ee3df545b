//! The page in `docs/`, and what must hold.

use std::fmt::Write as _;

use bench_ground::times::millis;
use bench_page::Limit;

use crate::measure::{CLIENTS, Cell, ROUND, ROUNDS, Side};
use crate::neighbours;
use crate::scenario::Scenario;

/// Of the floor's throughput.
const READS: f64 = 0.35;
const PURCHASES: f64 = 0.25;

/// Processor time of a list of 100 orders, in that of a list of 1.
const LENGTH: f64 = 6.0;

/// What was found where, by hand.
const PROFILE: &str = include_str!("profile.md");

/// p99 in p50.
const TAIL: f64 = 5.0;

pub(crate) fn judge(cells: &[Cell]) -> Vec<Limit> {
    let of = |scenario: Scenario| cells.iter().filter(move |cell| cell.scenario == scenario);
    // What each carries, with as many clients as suit it best.
    let peak = |scenario, side: fn(&Cell) -> &Side| {
        of(scenario).map(|cell| side(cell).per_second()).fold(0.0, f64::max)
    };
    let share = |scenario| peak(scenario, |cell| &cell.store) / peak(scenario, |cell| &cell.floor);
    let reads = Scenario::ALL.into_iter().filter(|scenario| scenario.is_read());
    let (read, lowest) = reads
        .map(|scenario| (scenario, share(scenario)))
        .min_by(|one, other| one.1.total_cmp(&other.1))
        .expect("there are some");
    let purchases = share(Scenario::Purchase);
    let cpu = |scenario| {
        let cell = of(scenario).find(|cell| cell.clients == 8).expect("it was measured");
        let (own, database) = cell.store.cpu();
        (own + database).as_secs_f64()
    };
    let longer = cpu(Scenario::List(2)) / cpu(Scenario::List(0));
    let tail = |cell: &Cell| {
        let times = cell.store.times();
        times.p99.as_secs_f64() / times.p50.as_secs_f64()
    };
    let (worst, ratio) = cells
        .iter()
        .filter(|cell| cell.clients == 32)
        .map(|cell| (cell.scenario, tail(cell)))
        .max_by(|one, other| one.1.total_cmp(&other.1))
        .expect("it was measured");
    let failed: usize = cells.iter().map(|cell| cell.store.failed).sum();
    vec![
        Limit {
            promise: "reads: at least 35 % of the floor's throughput",
            measured: format!("{:.0} % ({}, the lowest)", lowest * 100.0, read.name()),
            held: lowest >= READS,
        },
        Limit {
            promise: "purchases: at least 25 % of the floor's throughput",
            measured: format!("{:.0} %", purchases * 100.0),
            held: purchases >= PURCHASES,
        },
        Limit {
            promise: "processor time of a list of 100 orders: at most 6 times that of a list of 1",
            measured: format!("{longer:.1} times"),
            held: longer <= LENGTH,
        },
        Limit {
            promise: "p99 at 32 clients: at most 5 times p50, in each scenario",
            measured: format!("{ratio:.1} times ({}, the highest)", worst.name()),
            held: ratio <= TAIL,
        },
        Limit {
            promise: "every request is served, or shed in an overload",
            measured: format!("{failed} were not"),
            held: failed == 0,
        },
    ]
}

/// One for each scenario.
pub(crate) fn tables(cells: &[Cell]) -> String {
    let mut tables = String::new();
    for cells in cells.chunk_by(|one, other| one.scenario == other.scenario) {
        let _ = writeln!(
            tables,
            "### {}\n\n\
             | clients | | per second | p50 | p99 | CPU, and the database's | memory | shed | share |\n\
             |--:|---|--:|--:|--:|--:|--:|--:|--:|",
            cells[0].scenario.title(),
        );
        for cell in cells {
            let share = format!("**{:.0} %**", cell.share() * 100.0);
            let clients = cell.clients.to_string();
            row(&mut tables, [&clients, "Store"], &cell.store, &share);
            row(&mut tables, ["", "floor"], &cell.floor, "");
        }
        tables.push('\n');
    }
    tables
}

fn row(table: &mut String, [clients, name]: [&str; 2], side: &Side, share: &str) {
    let (times, (own, database)) = (side.times(), side.cpu());
    let mebibytes = side.memory / 1024;
    let shed = match side.shed() {
        0.0 => String::new(),
        shed => format!("{:.0} %", shed * 100.0),
    };
    let _ = writeln!(
        table,
        "| {clients} | {name} | {:.0} | {} | {} | {} + {} | {mebibytes} MiB | {shed} | {share} |",
        side.per_second(),
        millis(times.p50),
        millis(times.p99),
        millis(own),
        millis(database),
    );
}

/// `others` is what had the cores meanwhile, of 1.
pub(crate) fn write(cells: &[Cell], limits: &[Limit], others: f64) -> String {
    format!(
        "# Benchmarks of the whole path

Made by `make bench`, which prints this page, writes it, and fails when a limit below is missed. This
page alone: `cd bench && cargo run --release --locked -p bench-path`.

{machine}.
{crowded}
## How it is measured

Everything is on these cores: Store, the three services behind it, each a process of its own, as shipped
and with the settings that it comes with; PostgreSQL, which syncs each commit, with a database for each;
and whoever asks. Each client keeps a connection, and waits for an answer before it asks again.

Beside it a floor that answers the same requests by the same SQL, the services' own code for it, on
databases of the same kind and the same server: one process, one handler, no hops. It keeps no logs and
no metrics, and nothing that a crash between two databases could be mended by: a purchase is three
transactions there. What Store takes for that (a journal, the undo that is written down first) is in its
own figures.

Both in turn, {ROUNDS} rounds of {round} s each, whoever comes first in turn too. Requests per second are
the median of the rounds, as is the share; percentiles are of all answers. CPU is processor time for each
answer, of all processes of the contender, and after + of PostgreSQL; memory is the most that its
processes had (PSS). Store works on 24 requests at a time, 8 of them with an effect, and sheds what waits
for too long in an overload: what is shed is no answer, and asked for again after the second that its
client is told to wait.

Lists are of {users} users who have as many orders; purchases are by {buyers} users, of {kinds} kinds of
items; each refund and each claim is on an order of its own.

## What was measured

{tables}
## What must hold

The throughput of each is the most that it carries, at {clients} clients.

{limits}
{PROFILE}",
        machine = bench_page::machine(),
        crowded = neighbours::warning(others),
        round = ROUND.as_secs(),
        users = crate::shop::READERS,
        buyers = crate::shop::BUYERS,
        kinds = crate::shop::KINDS,
        tables = tables(cells),
        clients = clients(),
        limits = bench_page::table(limits),
    )
}

/// In words.
fn clients() -> String {
    let [first, .., last] = CLIENTS;
    format!("{first} to {last}")
}
