//! What ends an ephemeral server when its owner can't: a killed process runs no `Drop`.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;

use crate::account::Account;
use crate::error::{Error, failed_to};

/// Blocks until the owner's end of the pipe closes, which the kernel does however the owner ends.
/// Then every process that works in the folder gets the signal, those that are stopped included,
/// and what is left of them after 10 s is killed. A pid file would miss what has just been started.
/// Both are repeated until the folder is gone: whoever is being started adds to it.
const SCRIPT: &str = r#"
processes() {
    for link in /proc/[0-9]*/cwd; do
        case $(readlink "$link" 2>/dev/null) in
            "$1" | "$1"/*) link=${link#/proc/}; echo "${link%/cwd}" ;;
        esac
    done
}
while read -r line; do :; done
rounds=0
while [ -e "$1" ] && [ "$rounds" -lt 20 ]; do
    signal=$2
    tries=0
    while left=$(processes "$1") && [ -n "$left" ] && [ "$tries" -lt 400 ]; do
        [ "$tries" -lt 200 ] || signal=KILL
        if [ "$((tries % 200))" -eq 0 ]; then
            kill -s "$signal" $left 2>/dev/null
            kill -s CONT $left 2>/dev/null
        fi
        sleep 0.05
        tries=$((tries + 1))
    done
    rm -rf -- "$1" 2>/dev/null || sleep 0.1
    rounds=$((rounds + 1))
done
"#;

/// The guardian's process. Dropped, it has removed the folder.
#[derive(Debug)]
pub(crate) struct Guardian(Child);

impl Guardian {
    /// `signal` is the quick way to end the server: its data is thrown away.
    pub(crate) fn watch(
        folder: &Path,
        signal: Signal,
        account: Option<&Account>,
    ) -> Result<Self, Error> {
        // The kernel reports working folders resolved.
        let folder =
            folder.canonicalize().map_err(failed_to(|| format!("resolve {}", folder.display())))?;
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", SCRIPT, "sh"])
            .arg(folder)
            .arg(signal.as_str().trim_start_matches("SIG"))
            .current_dir("/")
            .stdin(Stdio::piped())
            // Held open, the owner's output would look unfinished to whoever reads it.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Out of reach of the terminal's Ctrl-C.
            .process_group(0);
        if let Some(account) = account {
            account.apply(&mut command);
        }
        command.spawn().map(Self).map_err(failed_to(|| "run /bin/sh"))
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
