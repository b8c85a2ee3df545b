//! What both pages have in common: the machine, and what must hold.

use std::fmt::Write as _;
use std::process::{Command, ExitCode};
use std::{fs, thread};

/// What must hold, and whether it did.
#[derive(Debug)]
pub struct Limit {
    pub promise: &'static str,
    pub measured: String,
    pub held: bool,
}

/// As a table.
#[must_use]
pub fn table(limits: &[Limit]) -> String {
    let mut table = String::from("| | measured | |\n|---|--:|---|\n");
    for Limit { promise, measured, held } in limits {
        let held = if *held { "held" } else { "**missed**" };
        let _ = writeln!(table, "| {promise} | {measured} | {held} |");
    }
    table
}

/// Says which were missed. A failure if any was.
#[must_use]
pub fn conclude(limits: &[Limit]) -> ExitCode {
    let missed: Vec<_> = limits.iter().filter(|limit| !limit.held).collect();
    for limit in &missed {
        eprintln!("missed: {} ({})", limit.promise, limit.measured);
    }
    if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The processor, its cores, and the compiler.
#[must_use]
pub fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, model)| model);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let rustc = Command::new("rustc").arg("--version").output();
    let rustc = rustc.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    format!("{cpu}, {cores} cores; {}", rustc.unwrap_or_default())
}
