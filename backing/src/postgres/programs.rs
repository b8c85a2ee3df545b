//! Where PostgreSQL's server programs are.

use std::cmp::Reverse;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::SOFTWARE;
use crate::error::Error;

/// Debian and Ubuntu keep the server's programs out of `PATH`, a folder per major version.
const DEBIAN: &str = "/usr/lib/postgresql";

/// A folder with `initdb` and `postgres` in it.
#[derive(Clone, Debug)]
pub(super) struct Programs(PathBuf);

impl Programs {
    /// `PG_BINDIR`, else the folder of the major `version` (that the data was made by), else what
    /// `pg_config` says, else the newest version, else `PATH`.
    pub(super) fn find(version: Option<&str>) -> Result<Self, Error> {
        if let Some(folder) = std::env::var_os("PG_BINDIR").filter(|value| !value.is_empty()) {
            let folder = PathBuf::from(folder);
            return if is_bindir(&folder) {
                Ok(Self(folder))
            } else {
                Err(Error::WrongBindir { software: SOFTWARE, folder })
            };
        }
        let same = version.map(|version| Path::new(DEBIAN).join(version).join("bin"));
        let path = std::env::var_os("PATH").unwrap_or_default();
        same.into_iter()
            .chain(configured())
            .chain(versions(Path::new(DEBIAN)))
            .chain(std::env::split_paths(&path))
            .find(|folder| is_bindir(folder))
            .map(Self)
            .ok_or(Error::NotInstalled(SOFTWARE))
    }

    pub(super) fn path(&self, program: &str) -> PathBuf {
        self.0.join(program)
    }
}

fn is_bindir(folder: &Path) -> bool {
    folder.join("initdb").is_file() && folder.join("postgres").is_file()
}

fn configured() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    let folder = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(folder.trim()))
}

/// The `bin` folders below `root`, newest version first.
fn versions(root: &Path) -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin")))
        })
        .collect();
    found.sort_unstable_by_key(|(version, _)| Reverse(*version));
    found.into_iter().map(|(_, folder)| folder).collect()
}
