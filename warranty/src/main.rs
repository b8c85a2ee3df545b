//! The binary of Warranty.

use std::process::ExitCode;

fn main() -> ExitCode {
    warranty::cli(&std::env::args().skip(1).collect::<Vec<_>>())
}
