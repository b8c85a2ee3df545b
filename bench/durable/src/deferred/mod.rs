//! Deferred calls.

mod accept;
mod carry;
mod late;
mod report;
mod running;

use bench_page::Limit;

use crate::ground::Ground;
use bench_ground::times::Times;

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
    accept: Times,
    per_second: f64,
}

/// How many ended rows the ledger holds.
const ENDED: [u32; 3] = [1_000, 100_000, 1_000_000];

/// The page, and what must hold.
pub(crate) async fn measure(ground: &Ground) -> (String, Vec<Limit>) {
    let results = Results {
        accept: accept::measure(ground),
        carry: carry::measure(ground).await,
        late: late::measure(ground).await,
        grown: grow(ground).await,
    };
    let limits = report::judge(&results);
    (report::write(&results, &limits), limits)
}

async fn grow(ground: &Ground) -> Vec<Grown> {
    let ledgers = ENDED.map(|rows| {
        let ledger = ground.ledger();
        running::fill(&ledger, rows);
        ledger
    });
    let accept = accept::deferring(&ledgers);
    let per_second = carry::ledger_only(&ledgers).await;
    let grown = ENDED.into_iter().zip(accept).zip(per_second);
    grown.map(|((rows, accept), per_second)| Grown { rows, accept, per_second }).collect()
}
