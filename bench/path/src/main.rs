//! Store's whole path beside the same SQL without hops, side by side in one run: `make bench`.
//!
//! | module | what it is |
//! |---|---|
//! | [`shop`] | Store and the three behind it, or the floor: processes of this program, and databases |
//! | [`floor`] | the same SQL in one handler of one process |
//! | [`scenario`] | what is asked |
//! | [`measure`] | both in turn |
//! | [`neighbours`] | what else the machine did meanwhile |
//! | [`report`] | the page in `docs/`, and what must hold |
//!
//! `BENCH_SMOKE` makes it a matter of seconds, whose figures are none. A scenario's name as an argument
//! measures that one alone, and prints it.

mod floor;
mod measure;
mod neighbours;
mod process;
mod report;
mod scenario;
mod shop;

use std::process::ExitCode;
use std::{fs, io};

use bench_ground::Postgres;
use neighbours::Moment;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use scenario::Scenario;
use shop::Shop;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/benchmarks-path.md");

fn main() -> io::Result<ExitCode> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let serve = ["serve".to_owned()];
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["part", part] => {
            // It ends with the one that measures it, however that ends.
            set_pdeathsig(Signal::SIGKILL)?;
            Ok(match part {
                "store" => store::cli(&serve),
                "order" => order::cli(&serve),
                "warehouse" => warehouse::cli(&serve),
                "warranty" => warranty::cli(&serve),
                _ => {
                    floor::serve();
                    ExitCode::SUCCESS
                }
            })
        }
        [] => measured(None),
        [scenario] => measured(Some(scenario)),
        _ => panic!("a scenario, or nothing"),
    }
}

/// On the thread that began it: the processes that are measured end with the thread that started them.
fn measured(only: Option<&str>) -> io::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let smoke = std::env::var_os("BENCH_SMOKE").is_some();
    let postgres = Postgres::start();
    let (mut store, mut floor) = (Shop::store(&postgres), Shop::floor(&postgres));
    let wanted = |scenario: &Scenario| only.is_none_or(|only| scenario.name() == only);
    let scenarios: Vec<_> = Scenario::ALL.into_iter().filter(wanted).collect();
    let (cells, others) = runtime.block_on(async {
        store.ready().await;
        floor.ready().await;
        let before = Moment::now([&store, &floor], &postgres);
        let shops = [&mut store, &mut floor];
        let cells = measure::measure(&postgres, shops, &scenarios, smoke).await;
        (cells, Moment::now([&store, &floor], &postgres).others_since(&before))
    });
    if only.is_some() || smoke {
        println!("{}{}", report::tables(&cells), neighbours::warning(others));
        return Ok(ExitCode::SUCCESS);
    }
    let limits = report::judge(&cells);
    let page = report::write(&cells, &limits, others);
    fs::write(PAGE, &page)?;
    println!("{page}");
    Ok(bench_page::conclude(&limits))
}
