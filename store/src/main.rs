//! The binary of Store.

use std::process::ExitCode;

fn main() -> ExitCode {
    store::cli(&std::env::args().skip(1).collect::<Vec<_>>())
}
