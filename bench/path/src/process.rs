//! A process of this program.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use stack_load::{Lines, Shot, Told, watch};
use tokio::time::sleep;

/// How long a start may take.
const START: Duration = Duration::from_secs(30);

/// Dropped, it is gone.
pub(crate) struct Process {
    child: Child,
    url: String,
    log: PathBuf,
}

impl Process {
    pub(crate) fn start(
        part: &str,
        port: u16,
        folder: &Path,
        variables: &[(String, String)],
    ) -> Self {
        let log = folder.join(format!("{part}.log"));
        let said = || File::options().create(true).append(true).open(&log).expect("its log");
        let program = std::env::current_exe().expect("this program");
        let child = Command::new(program)
            .args(["part", part])
            // As it comes: nothing of this shell's.
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .env("PORT", port.to_string())
            .stdout(said())
            .stderr(said())
            .spawn()
            .expect("it starts");
        Self { child, url: url(port), log }
    }

    pub(crate) fn lines(&self) -> Lines {
        Lines::to(&self.url).patient(Duration::from_secs(10))
    }

    pub(crate) async fn ready(&mut self) {
        let (lines, begin) = (self.lines(), Instant::now());
        let probe = Shot::get("/manage/health/ready");
        while lines.fire(probe.clone()).await.answer != Told::Good {
            let runs = self.child.try_wait().is_ok_and(|ended| ended.is_none());
            let in_time = runs && begin.elapsed() < START;
            assert!(in_time, "{}", fs::read_to_string(&self.log).unwrap_or_default());
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    pub(crate) fn cpu(&self) -> Duration {
        watch::cpu(self.pid()).expect("it runs")
    }

    /// In KiB.
    pub(crate) fn memory(&self) -> u64 {
        watch::memory(self.pid()).expect("it runs")
    }
}

pub(crate) fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
