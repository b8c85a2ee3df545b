//! Deferred calls beside what they stand on, in one run: `make bench`.
//!
//! | module | what it is |
//! |---|---|
//! | [`ground`] | PostgreSQL with its syncs on, RabbitMQ, and a ledger |
//! | [`accept`] | what writing a call down costs, beside a bare insert; with few and many ended rows |
//! | [`carry`] | calls per second from commit to done, beside publishing and consuming alone |
//! | [`late`] | how late a delayed call begins |
//! | [`report`] | the page in `docs/` |

mod accept;
mod carry;
mod ground;
mod late;
mod report;

use std::fs;
use std::process::ExitCode;

use ground::Ground;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/benchmarks-deferred.md");

/// All that was measured.
struct Results {
    accept: accept::Accept,
    carry: carry::Carry,
    late: late::Late,
    grown: Vec<Grown>,
}

/// With so many ended rows in the ledger.
struct Grown {
    rows: u32,
    accept: accept::Times,
    per_second: f64,
}

/// How many ended rows the ledger holds.
const ENDED: [u32; 3] = [1_000, 100_000, 1_000_000];

#[tokio::main]
async fn main() -> std::io::Result<ExitCode> {
    let ground = Ground::new();
    let results = Results {
        accept: accept::measure(&ground),
        carry: carry::measure(&ground).await,
        late: late::measure(&ground).await,
        grown: grow(&ground).await,
    };
    let limits = report::judge(&results);
    let page = report::write(&results, &limits);
    fs::write(PAGE, &page)?;
    println!("{page}");
    Ok(bench_page::conclude(&limits))
}

async fn grow(ground: &Ground) -> Vec<Grown> {
    let ledgers = ENDED.map(|rows| {
        let ledger = ground.ledger();
        ledger.fill(rows);
        ledger
    });
    let accept = accept::deferring(&ledgers);
    let per_second = carry::ledger_only(&ledgers).await;
    let grown = ENDED.into_iter().zip(accept).zip(per_second);
    grown.map(|((rows, accept), per_second)| Grown { rows, accept, per_second }).collect()
}
