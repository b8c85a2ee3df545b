//! What ends an ephemeral cluster when its owner can't: a killed process runs no `Drop`.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::account::Account;
use crate::postgres::{ClusterError, failed_to};

/// Blocks until the owner's end of the pipe closes, which the kernel does however the owner ends.
/// Then SIGQUIT, PostgreSQL's immediate shutdown: the postmaster ends its children, those that are
/// stopped included, within some seconds. Its pid file goes with it, and tells more than `kill -0`,
/// which a zombie answers. `rm` is repeated, because an `initdb` that was under way
/// may add files until it notices.
const SCRIPT: &str = r#"
while read -r line; do :; done
pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
if [ -n "$pid" ] && kill -QUIT "$pid" 2>/dev/null; then
    kill -CONT "$pid" 2>/dev/null
    tries=0
    while [ -e "$1/data/postmaster.pid" ] && kill -0 "$pid" 2>/dev/null && [ "$tries" -lt 200 ]; do
        sleep 0.05
        tries=$((tries + 1))
    done
    kill -KILL "$pid" 2>/dev/null
fi
tries=0
while ! rm -rf -- "$1" 2>/dev/null && [ "$tries" -lt 20 ]; do sleep 0.1; tries=$((tries + 1)); done
"#;

/// The guardian's process. Dropped, it has removed the folder.
#[derive(Debug)]
pub(crate) struct Guardian(Child);

impl Guardian {
    pub(crate) fn watch(folder: &Path, account: Option<&Account>) -> Result<Self, ClusterError> {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", SCRIPT, "sh"])
            .arg(folder)
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
