//! The parts' log files.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use anyhow::{Context as _, Result};

/// Bytes from which a log is put aside at the next start of its part.
const CAP: u64 = 10 * 1024 * 1024;

/// Opens the log for appending, after putting aside one that has grown too long (as `.old`).
pub(crate) fn open(path: &Path) -> Result<File> {
    let failed = || format!("could not open {}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(failed)?;
    }
    if fs::metadata(path).is_ok_and(|log| log.len() > CAP) {
        fs::rename(path, path.with_extension("log.old")).with_context(failed)?;
    }
    File::options().create(true).append(true).open(path).with_context(failed)
}

/// The last line that was written after the first `from` bytes, to say why a part ended.
pub(crate) fn last_line(path: &Path, from: u64) -> Option<String> {
    let mut log = File::open(path).ok()?;
    let end = log.metadata().ok()?.len();
    log.seek(SeekFrom::Start(from.max(end.saturating_sub(4096)))).ok()?;
    let mut tail = Vec::new();
    log.read_to_end(&mut tail).ok()?;
    let tail = String::from_utf8_lossy(&tail);
    tail.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn log_is_appended_to_until_it_is_too_long() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/store.log");
        writeln!(open(&path).unwrap(), "one").unwrap();
        let mut log = open(&path).unwrap();
        writeln!(log, "two\n").unwrap();
        assert_eq!(last_line(&path, 0).as_deref(), Some("two"));
        assert_eq!(last_line(&path, 9), None);
        log.set_len(CAP + 1).unwrap();
        assert_eq!(open(&path).unwrap().metadata().unwrap().len(), 0);
        assert!(folder.path().join("logs/store.log.old").is_file());
    }
}
