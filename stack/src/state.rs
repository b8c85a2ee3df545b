//! What outlives the launcher: where its files are, which processes are its own, and that there is
//! one launcher per folder.

use std::fs::{self, File, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use backing::process;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use crate::control;
use crate::names::Name;
use crate::tokens::Kind;

/// How long a part may take to end before it is killed: services drain for up to 10 s.
pub(crate) const PATIENCE: Duration = Duration::from_secs(12);
/// Between two looks at something that can't be waited for.
pub(crate) const LOOK: Duration = Duration::from_millis(10);

/// The files in the launcher's folder.
#[derive(Clone, Debug)]
pub(crate) struct Paths(PathBuf);

impl Paths {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.0
    }

    pub(crate) fn cluster(&self) -> PathBuf {
        self.0.join("postgres")
    }

    pub(crate) fn log(&self, name: Name) -> PathBuf {
        self.0.join("logs").join(format!("{name}.log"))
    }

    pub(crate) fn node(&self) -> PathBuf {
        self.0.join("rabbitmq")
    }

    /// Where the port of the last run is kept.
    pub(crate) fn port(&self, name: Name) -> PathBuf {
        self.0.join(format!("{name}.port"))
    }

    /// What only its owner may read, as far as it is there.
    pub(crate) fn secrets(&self) -> Vec<PathBuf> {
        let tokens = [Kind::Service, Kind::Management].map(|kind| kind.file(self));
        let files = [self.state(), control::socket(self)].into_iter().chain(tokens);
        files.filter(|file| file.exists()).collect()
    }

    fn state(&self) -> PathBuf {
        self.0.join("state.json")
    }

    /// Makes the folder, such that unprivileged servers can pass through it.
    pub(crate) fn create(&self) -> Result<()> {
        let failed = || format!("could not create {}", self.0.display());
        if !self.0.is_dir() {
            fs::create_dir_all(&self.0).with_context(failed)?;
            fs::set_permissions(&self.0, fs::Permissions::from_mode(0o755)).with_context(failed)?;
        }
        Ok(())
    }

    /// Takes the lock that the running launcher holds for as long as it lives, in whatever way it
    /// ends. The file stays: removing it would let two launchers hold two files of one name.
    pub(crate) fn lock(&self) -> Result<Lock> {
        let path = self.0.join("lock");
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .with_context(|| format!("could not open {}", path.display()))?;
        let mut holder = String::new();
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let _ = file.read_to_string(&mut holder);
                let holder = holder.trim();
                bail!(
                    "a launcher is already running here (pid {holder}); end it with Ctrl-C, or: kill {holder}"
                );
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("could not lock {}", path.display()));
            }
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", Pid::this()))
            .with_context(|| format!("could not write {}", path.display()))?;
        Ok(Lock(file))
    }
}

/// The lock, for as long as this or its process lives.
#[derive(Debug)]
#[must_use]
pub(crate) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing gives it back only once nobody has a copy, and a process that is being started has
        // one until it runs its own program. A failure leaves that to the end of this process.
        let _ = self.0.unlock();
    }
}

/// A process of the launcher's, named so that no other is ever taken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) name: Name,
    pub(crate) pid: i32,
    start_time: u64,
}

impl Process {
    pub(crate) fn new(name: Name, pid: Pid) -> Self {
        // Gone already: 0 is nobody's start time.
        Self { name, pid: pid.as_raw(), start_time: process::start_time(pid).unwrap_or(0) }
    }

    fn lives(&self) -> bool {
        process::start_time(Pid::from_raw(self.pid)) == Some(self.start_time)
    }

    fn signal(&self, signal: Signal) {
        if self.lives() {
            process::signal(&[Pid::from_raw(self.pid)], signal);
        }
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    /// Start times count from boot.
    boot: String,
    processes: Vec<Process>,
}

/// The list of the launcher's processes, on disk before any of them does anything.
#[derive(Debug)]
pub(crate) struct Registry {
    path: PathBuf,
    state: Mutex<State>,
}

impl Registry {
    pub(crate) fn new(paths: &Paths) -> Self {
        let state = State { boot: boot(), processes: Vec::new() };
        Self { path: paths.state(), state: Mutex::new(state) }
    }

    pub(crate) fn add(&self, process: Process) -> Result<()> {
        self.change(|processes| processes.push(process))
    }

    pub(crate) fn remove(&self, process: Process) {
        // Left in the list it does no harm: its start time gives it away.
        let _ = self.change(|processes| processes.retain(|other| *other != process));
    }

    /// Everything has ended.
    pub(crate) fn clear(&self) {
        let _ = fs::remove_file(&self.path);
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Process>)) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state.processes);
        let failed = || format!("could not write {}", self.path.display());
        let text = serde_json::to_vec_pretty(&*state).with_context(failed)?;
        // Whole or not at all: the next launcher may come at any time.
        let new = self.path.with_extension("json.new");
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)
            .with_context(failed)?;
        file.write_all(&text).with_context(failed)?;
        fs::rename(&new, &self.path).with_context(failed)
    }
}

/// The launcher's processes that live, whether it does or not.
pub(crate) fn running(paths: &Paths) -> Vec<Process> {
    let state: State = fs::read(paths.state())
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default();
    if state.boot != boot() {
        return Vec::new();
    }
    state.processes.into_iter().filter(Process::lives).collect()
}

/// Ends what a killed launcher left running, and reports each. The lock must be held.
pub(crate) async fn clean(paths: &Paths, say: impl Fn(&str)) -> Result<()> {
    let path = paths.state();
    let (databases, others): (Vec<Process>, Vec<Process>) =
        running(paths).into_iter().partition(|process| process.name == Name::Postgres);
    let (brokers, services): (Vec<Process>, Vec<Process>) =
        others.into_iter().partition(|process| process.name == Name::Rabbitmq);
    // What draining services need comes after them. PostgreSQL's SIGTERM would wait for them, too.
    end(services, Signal::SIGTERM, &say).await?;
    end(brokers, Signal::SIGTERM, &say).await?;
    end(databases, Signal::SIGINT, &say).await?;
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("could not remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

async fn end(mut left: Vec<Process>, signal: Signal, say: &impl Fn(&str)) -> Result<()> {
    left.retain(Process::lives);
    for process in &left {
        say(&format!(
            "stopping {} (pid {}), left by a launcher that was killed",
            process.name, process.pid
        ));
    }
    for signal in [signal, Signal::SIGKILL] {
        for process in &left {
            process.signal(signal);
            process.signal(Signal::SIGCONT);
        }
        let end = Instant::now() + PATIENCE;
        while !left.is_empty() && Instant::now() < end {
            sleep(LOOK).await;
            left.retain(Process::lives);
        }
    }
    match left.first() {
        None => Ok(()),
        Some(process) => bail!(
            "{} (pid {}), left by a launcher that was killed, can't be stopped by this user",
            process.name,
            process.pid
        ),
    }
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn recycled_pid_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path().to_owned());
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let own = Process::new(Name::Store, Pid::from_raw(child.id().cast_signed()));
        let other = Process { start_time: own.start_time - 1, ..own };

        Registry::new(&paths).add(other).unwrap();
        clean(&paths, |line| panic!("{line}")).await.unwrap();
        assert!(child.try_wait().unwrap().is_none());

        Registry::new(&paths).add(own).unwrap();
        clean(&paths, |_| ()).await.unwrap();
        assert!(child.try_wait().unwrap().is_some());
        assert!(!paths.state().exists());
    }

    #[test]
    fn second_lock_names_the_holder() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path().to_owned());
        let held = paths.lock().unwrap();
        let error = paths.lock().unwrap_err().to_string();
        assert!(error.contains(&format!("(pid {})", std::process::id())), "{error}");
        // As a process that is just being started has it, until it runs its own program.
        let copy = held.0.try_clone().unwrap();
        drop(held);
        drop(paths.lock().unwrap());
        drop(copy);
    }
}
