//! What `/proc` tells about processes.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// When the process started, in clock ticks since boot: with the pid it names a process for good,
/// pids alone are used again. `None` once it is gone; a zombie is gone.
pub fn start_time(pid: Pid) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses, and may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    // Field 22 of proc(5); field 3 was the one just taken.
    fields.nth(18)?.parse().ok()
}

/// The processes that run a program of this name in this working folder (an absolute path without
/// symbolic links). Those of other users are not seen, unless by root.
pub fn in_folder(program: &str, folder: &Path) -> Vec<Pid> {
    let runs = |pid: &Pid| {
        let link = |name: &str| fs::read_link(format!("/proc/{pid}/{name}")).ok();
        // A replaced program's link ends in " (deleted)".
        let is_program = |exe: std::path::PathBuf| {
            exe.file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.strip_suffix(" (deleted)").unwrap_or(name) == program)
        };
        link("cwd").is_some_and(|cwd| cwd == folder) && link("exe").is_some_and(is_program)
    };
    all().filter(runs).collect()
}

/// Every process.
pub(crate) fn all() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw))
}

/// Sends the signal to each that still lives.
pub fn signal(pids: &[Pid], signal: Signal) {
    for pid in pids {
        // It may have ended meanwhile: fine.
        let _ = kill(*pid, signal);
    }
}

/// Blocks until `gone` says so or `limit` is over, and returns its last word.
pub fn wait_until(limit: Duration, mut gone: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if gone() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_tells_the_living_from_the_dead() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        let own = start_time(Pid::this()).unwrap();
        assert!(start_time(pid).unwrap() >= own);
        signal(&[pid], Signal::SIGKILL);
        // A zombie, until it is waited for.
        assert!(wait_until(Duration::from_secs(5), || start_time(pid).is_none()));
        child.wait().unwrap();
        assert_eq!(start_time(pid), None);
    }
}
