//! The binary of Order.

use std::process::ExitCode;

fn main() -> ExitCode {
    order::cli(&std::env::args().skip(1).collect::<Vec<_>>())
}
