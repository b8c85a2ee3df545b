//! What a process takes, by `/proc`.

use std::fs;
use std::time::Duration;

/// What Linux counts processor time in, whatever its own clock.
const TICK: Duration = Duration::from_millis(10);

/// Processor time that it has had. None when it is gone.
pub fn cpu(pid: i32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Its name, in brackets, may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(|text| text.parse::<u32>().ok());
    Some(TICK * ticks.sum::<Option<u32>>()?)
}

/// Memory in KiB: its own, and its share of what it shares. None when it is gone.
pub fn memory(pid: i32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().trim_end_matches(" kB").trim().parse().ok()
}
