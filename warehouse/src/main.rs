//! The binary of Warehouse.

use std::process::ExitCode;

fn main() -> ExitCode {
    warehouse::cli(&std::env::args().skip(1).collect::<Vec<_>>())
}
