//! Where RabbitMQ's programs are.

use std::path::{Path, PathBuf};

use super::SOFTWARE;
use crate::error::Error;

/// Debian and Ubuntu. What they have in `PATH` are wrappers that insist on their own user.
const DEBIAN: &str = "/usr/lib/rabbitmq/bin";

/// A folder with `rabbitmq-server` and `rabbitmqctl` in it.
#[derive(Clone, Debug)]
pub(super) struct Programs(PathBuf);

impl Programs {
    /// `RABBITMQ_BINDIR`, else Debian's folder, else `PATH`.
    pub(super) fn find() -> Result<Self, Error> {
        if let Some(folder) = std::env::var_os("RABBITMQ_BINDIR").filter(|value| !value.is_empty())
        {
            let folder = PathBuf::from(folder);
            return if is_bindir(&folder) {
                Ok(Self(folder))
            } else {
                Err(Error::WrongBindir { software: SOFTWARE, folder })
            };
        }
        Self::among([PathBuf::from(DEBIAN)].into_iter().chain(path()))
    }

    fn among(folders: impl IntoIterator<Item = PathBuf>) -> Result<Self, Error> {
        let found = folders.into_iter().find(|folder| is_bindir(folder));
        found.map(Self).ok_or(Error::NotInstalled(SOFTWARE))
    }

    pub(super) fn path(&self, program: &str) -> PathBuf {
        self.0.join(program)
    }

    /// Erlang's program to have something evaluated by a running node. It is in `PATH` only on
    /// some systems, and beside the emulator on all.
    pub(super) fn erl_call() -> Result<PathBuf, Error> {
        let beside = path().find_map(|folder| {
            let erl = folder.join("erl").canonicalize().ok()?;
            let root = erl.parent()?.parent()?;
            let versions = std::fs::read_dir(root).ok()?.flatten();
            versions
                .filter(|entry| entry.file_name().to_string_lossy().starts_with("erts-"))
                .map(|entry| entry.path().join("bin/erl_call"))
                .find(|program| program.is_file())
        });
        let in_path = || path().map(|folder| folder.join("erl_call")).find(|path| path.is_file());
        beside.or_else(in_path).ok_or(Error::Program {
            program: "erl_call",
            said: "it was not found beside Erlang's emulator, nor in PATH".to_owned(),
        })
    }
}

fn path() -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).collect::<Vec<_>>().into_iter()
}

fn is_bindir(folder: &Path) -> bool {
    folder.join("rabbitmq-server").is_file() && folder.join("rabbitmqctl").is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_found_says_what_to_install() {
        let error = Programs::among([PathBuf::from("/nonexistent")]).unwrap_err().to_string();
        assert!(error.contains("apt-get install rabbitmq-server"), "{error}");
        assert!(error.contains("RABBITMQ_BINDIR"), "{error}");
    }

    #[test]
    fn programs_of_this_machine_are_found() {
        assert!(Programs::find().unwrap().path("rabbitmqctl").is_file());
        assert!(Programs::erl_call().unwrap().is_file());
    }
}
