//! An office in a process of its own, which is killed where the test says.

use std::collections::HashSet;
use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use resilience::deadline::Deadline;
use resilience::testkit::crash;

use super::systems::{Fault, Systems};
use super::trip::{Trip, Wish};
use super::world::{Office, brief, quick};
use crate::deferred::connections;

const URL: &str = "TEST_SAGA_URL";
const WISH: &str = "TEST_SAGA_WISH";
const FAULT: &str = "TEST_SAGA_FAULT";

/// What a call meets with in the worker.
pub(super) type Meets = Option<(&'static str, Fault)>;

/// A process that books one trip.
pub(super) struct Worker(Child);

impl Worker {
    /// With points that it passes logged, or one at which it ends.
    pub(super) fn start(
        url: &str,
        wish: &Wish,
        meets: Meets,
        variable: (&str, impl AsRef<std::ffi::OsStr>),
    ) -> Self {
        let fault = meets.map_or(String::new(), |(name, fault)| format!("{name}/{fault:?}"));
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "saga::worker::process_to_be_killed"])
            .env(URL, url)
            .env(WISH, serde_json::to_string(wish).unwrap())
            .env(FAULT, fault)
            .env(variable.0, variable.1)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// Waits for its end: whether it was killed.
    pub(super) async fn was_killed(mut self) -> bool {
        use std::os::unix::process::ExitStatusExt as _;
        for _ in 0..3000 {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.signal() == Some(Signal::SIGKILL as i32);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the worker goes on and on");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The points that one run passes, in order, each once. What the runtime does from time to time, by
/// the clock, isn't among them.
pub(super) async fn points(url: &str, wish: &Wish, meets: Meets, log: &Path) -> Vec<String> {
    let _ = std::fs::remove_file(log);
    assert!(!Worker::start(url, wish, meets, (crash::LOG, log)).was_killed().await);
    let passed = std::fs::read_to_string(log).unwrap();
    let of_the_clock = |line: &str| {
        ["janitor", "direct", "operators"].iter().any(|file| line.contains(&format!("{file}.rs")))
    };
    let mut seen = HashSet::new();
    let lines = passed.lines().filter(|line| !of_the_clock(line));
    lines.filter(|line| seen.insert(line.to_owned())).map(str::to_owned).collect()
}

/// The [`Worker`]: books a trip, and ends in order when that has ended; or when whoever started it is
/// gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by other tests, in a process of its own"]
async fn process_to_be_killed() {
    let read = |name| std::env::var(name);
    let (Ok(url), Ok(wish), Ok(fault)) = (read(URL), read(WISH), read(FAULT)) else { return };
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::abort();
    });
    let wish: Wish = serde_json::from_str(&wish).unwrap();
    let pool = connections(&url);
    let systems = Systems::new(&url);
    if let Some((name, fault)) = fault.split_once('/') {
        let all = [Fault::Refused, Fault::Away, Fault::Lost, Fault::AnswerLost];
        let fault = all.into_iter().find(|known| format!("{known:?}") == fault).unwrap();
        systems.once(name, fault);
    }
    // Whoever is to pass all points is not to be taken for dead: what others do then is passed by it alone.
    let settings = if read(crash::LOG).is_ok() { quick() } else { brief() };
    let builder = resilience::deferred::Deferred::builder(pool).saga(Trip(systems));
    let office = Office::start(builder.saga_settings(settings).build().unwrap());
    office.ask(&wish, Some(Deadline::after(Duration::from_secs(10)))).await;
    office.ended(wish.id).await;
    office.stop().await;
}
