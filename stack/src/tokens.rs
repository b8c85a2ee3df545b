//! The tokens of a locked store: minted at its start, kept in files that only their owner can read, and
//! worth nothing when it has ended.
//!
//! A file holds a whole header, as `curl -H @file` takes it: so no token is ever in a list of processes.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use uuid::Uuid;

use crate::state::Paths;

/// The variables by which services are told.
pub(crate) const VARIABLES: [&str; 2] = ["SERVICE_TOKENS", "MANAGEMENT_TOKENS"];

const HEADER: &str = "Authorization: Bearer ";

/// What a token lets in to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Service,
    Management,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Service, Self::Management];

    /// The variable by which services are told of it.
    pub(crate) fn variable(self) -> &'static str {
        match self {
            Self::Service => VARIABLES[0],
            Self::Management => VARIABLES[1],
        }
    }

    /// Its file.
    pub(crate) fn file(self, paths: &Paths) -> PathBuf {
        paths.folder().join(match self {
            Self::Service => "service.token",
            Self::Management => "management.token",
        })
    }
}

/// New tokens, with what the services are told of them.
pub(crate) fn mint(paths: &Paths) -> Result<Vec<(String, String)>> {
    let minted = Kind::ALL.into_iter().zip(VARIABLES).map(|(kind, variable)| {
        // From the system's randomness, 122 bits each.
        let token = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        write(kind, paths, &token)?;
        Ok((variable.to_owned(), token))
    });
    minted.collect()
}

fn write(kind: Kind, paths: &Paths, token: &str) -> Result<()> {
    let path = kind.file(paths);
    let failed = || format!("could not write {}", path.display());
    // Never into a file that somebody else may have open, or that has another mode.
    let new = path.with_extension("token.new");
    remove(&new)?;
    let mut file =
        File::options().write(true).create_new(true).mode(0o600).open(&new).with_context(failed)?;
    writeln!(file, "{HEADER}{token}").with_context(failed)?;
    fs::rename(&new, &path).with_context(failed)
}

/// Whether there are any is what tells that the store is locked.
pub(crate) fn forget(paths: &Paths) -> Result<()> {
    Kind::ALL.into_iter().try_for_each(|kind| remove(&kind.file(paths)))
}

fn remove(path: &PathBuf) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("could not remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// A locked store's token of this kind; none where it is open.
pub(crate) fn minted(kind: Kind, paths: &Paths) -> Result<Option<String>> {
    let path = kind.file(paths);
    match fs::exists(&path) {
        Ok(false) => Ok(None),
        _ => read(&path).map(Some),
    }
}

/// The token in a file: a whole header, or it alone.
pub(crate) fn read(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path);
    let text = text.with_context(|| format!("could not read {}", path.display()))?;
    let text = text.trim();
    let token = text.strip_prefix(HEADER).unwrap_or(text);
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        bail!("{} must hold a token, or `{HEADER}` and a token", path.display());
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn tokens_are_new_each_time_and_their_owner_s_alone() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path().to_owned());
        assert_eq!(minted(Kind::Management, &paths).unwrap(), None);
        // Whatever was there, with whatever mode.
        let file = Kind::Management.file(&paths);
        fs::write(&file, "old").unwrap();
        let first = mint(&paths).unwrap();
        let second = mint(&paths).unwrap();
        for ((variable, token), (_, other)) in first.iter().zip(&second) {
            assert!(VARIABLES.contains(&variable.as_str()) && token != other && token.len() == 64);
        }
        for kind in Kind::ALL {
            let mode = fs::metadata(kind.file(&paths)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert_eq!(minted(Kind::Management, &paths).unwrap(), Some(second[1].1.clone()));
        forget(&paths).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn file_holds_a_header_or_a_token_and_what_is_neither_is_not_repeated() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (text, expected) in [("abc\n", "abc"), ("Authorization: Bearer abc\n", "abc")] {
            fs::write(file.path(), text).unwrap();
            assert_eq!(read(file.path()).unwrap(), expected);
        }
        for wrong in ["", "geheim geheim", "Authorization: Basic geheim"] {
            fs::write(file.path(), wrong).unwrap();
            let error = read(file.path()).unwrap_err().to_string();
            assert!(error.contains("must hold a token") && !error.contains("geheim"), "{error}");
        }
    }
}
