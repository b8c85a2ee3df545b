//! What is written down, beside what it stands on, in one run: `make bench`.
//!
//! | module | what it is |
//! |---|---|
//! | [`ground`] | PostgreSQL with its syncs on, RabbitMQ, and databases |
//! | [`deferred`] | calls that are made later: accepting, carrying out, lateness, growth |
//! | [`saga`] | purchases with and without a journal, what a crash leaves, growth |
//!
//! Each of the two makes a page in `docs/`. `deferred` or `saga` as an argument makes that one alone.

mod deferred;
mod ground;
mod saga;

use std::fs;
use std::process::ExitCode;

use ground::Ground;

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs");

#[tokio::main]
async fn main() -> std::io::Result<ExitCode> {
    let only = std::env::args().nth(1);
    let wanted = |name| only.as_deref().is_none_or(|only| only == name);
    let ground = Ground::new();
    let mut limits = Vec::new();
    if wanted("deferred") {
        let (page, held) = deferred::measure(&ground).await;
        fs::write(format!("{DOCS}/benchmarks-deferred.md"), &page)?;
        println!("{page}");
        limits.extend(held);
    }
    if wanted("saga") {
        let (page, held) = saga::measure(&ground).await;
        fs::write(format!("{DOCS}/benchmarks-saga.md"), &page)?;
        println!("{page}");
        limits.extend(held);
    }
    Ok(bench_page::conclude(&limits))
}
