//! Sagas.
//!
//! | module | what it is |
//! |---|---|
//! | [`company`] | a system over HTTP, whose effects are rows of its own |
//! | [`purchase`] | something of two companies and a row of ours, with and without a journal |
//! | [`crash`] | what a process leaves that dies with many of them open |
//! | [`report`] | the page in `docs/` |

mod company;
mod crash;
mod purchase;
mod report;

use bench_page::Limit;

use crate::ground::Ground;

/// How many ended sagas the journal holds.
const ENDED: [u32; 3] = [1_000, 100_000, 1_000_000];

/// Sagas that are open when the process dies.
const OPEN: u32 = 10_000;

/// Of them, for each size of the journal.
const FEW: u32 = 2_000;

/// All that was measured.
struct Results {
    /// At these numbers of clients.
    purchases: Vec<purchase::Both>,
    /// Transactions that write, for one purchase: with a journal, and without.
    commits: (f64, f64),
    /// Taken back after a crash, per second.
    recovered: f64,
    grown: Vec<Grown>,
}

/// With so many ended sagas in the journal.
struct Grown {
    rows: u32,
    purchases: purchase::Rate,
    recovered: f64,
}

/// The page, and what must hold.
pub(crate) async fn measure(ground: &Ground) -> (String, Vec<Limit>) {
    let shop = purchase::Shop::new(ground).await;
    let results = Results {
        purchases: purchase::measure(&shop).await,
        commits: purchase::commits(&shop).await,
        recovered: crash::recovered(&shop, OPEN).await,
        grown: grow(ground, &shop).await,
    };
    let limits = report::judge(&results);
    (report::write(&results, &limits), limits)
}

async fn grow(ground: &Ground, shop: &purchase::Shop) -> Vec<Grown> {
    let shops = ENDED.map(|rows| {
        let shop = shop.with_journal(ground);
        shop.fill(rows);
        shop
    });
    let purchases = purchase::in_turn(&shops).await;
    let mut grown = Vec::new();
    for ((rows, shop), purchases) in ENDED.into_iter().zip(&shops).zip(purchases) {
        grown.push(Grown { rows, purchases, recovered: crash::recovered(shop, FEW).await });
    }
    grown
}
