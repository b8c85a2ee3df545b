//! Points at which a process that is being tested ends, as if by `kill -9`.

use std::collections::HashMap;
use std::env;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::sync::{LazyLock, Mutex, PoisonError};

/// Names a file to which every point that is passed is added, one to a line.
pub const LOG: &str = "RESILIENCE_CRASH_LOG";

/// Names the point at which the process ends: a line of [`LOG`]'s file.
pub const AT: &str = "RESILIENCE_CRASH_AT";

struct Points {
    log: Option<File>,
    at: Option<String>,
    passed: HashMap<String, u32>,
}

static POINTS: LazyLock<Mutex<Points>> = LazyLock::new(|| {
    let open = |path| OpenOptions::new().create(true).append(true).open(path).ok();
    let log = env::var_os(LOG).and_then(open);
    Mutex::new(Points { log, at: env::var(AT).ok(), passed: HashMap::new() })
});

/// A point at which a process may be ended from outside: before or after something that others see.
/// Where neither variable is set, it is nothing.
///
/// The library passes one before and after each transaction on its ledger and its journal, each action
/// and each undo of a saga, and each HTTP call. A service passes its own ones where it commits.
pub fn point(name: impl FnOnce() -> String) {
    let mut points = POINTS.lock().unwrap_or_else(PoisonError::into_inner);
    if points.log.is_none() && points.at.is_none() {
        return;
    }
    let name = name();
    let times = points.passed.entry(name.clone()).or_default();
    *times += 1;
    let line = format!("{name} #{times}");
    if let Some(log) = &mut points.log {
        // What isn't logged is missed by the test.
        let _ = writeln!(log, "{line}");
    }
    if points.at.as_ref() == Some(&line) {
        die();
    }
}

fn die() -> ! {
    #[cfg(unix)]
    {
        use nix::sys::signal::{Signal, raise};
        let _ = raise(Signal::SIGKILL);
    }
    std::process::abort()
}
