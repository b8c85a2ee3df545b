//! Who a server runs as, and a folder that this user can work in.

use std::fs::{self, DirBuilder};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, chown, lchown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::{Uid, User, geteuid};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::error::{Error, Software, failed_to};

/// An unprivileged user to drop to.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) name: String,
}

impl Account {
    /// `None` unless we are root. A folder made by an ordinary user's run is used as that user.
    pub(crate) fn choose(software: Software, folder: &Path) -> Result<Option<Self>, Error> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        let owner = fs::symlink_metadata(folder)
            .ok()
            .filter(|folder| folder.uid() != 0)
            .and_then(|folder| User::from_uid(Uid::from_raw(folder.uid())).ok().flatten());
        let named = |name| User::from_name(name).ok().flatten();
        let user = owner.or_else(|| software.users.into_iter().find_map(named));
        let user = user.ok_or(Error::NoAccount(software))?;
        Ok(Some(Self { uid: user.uid.as_raw(), gid: user.gid.as_raw(), name: user.name }))
    }

    /// Makes the command run as this user (`Command` drops root's supplementary groups itself).
    pub(crate) fn apply(&self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }

    /// Can this user work in the folder? Asked of the kernel, as that user: modes alone don't tell.
    fn can_use(&self, folder: &Path) -> bool {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "cd \"$1\" && test -w .", "sh"]).arg(folder).current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.apply(&mut command);
        command.status().is_ok_and(|status| status.success())
    }
}

/// `wanted`, made and handed over; or its stable stand-in where `account` can't reach it.
pub(crate) fn settle(
    software: Software,
    wanted: &Path,
    account: Option<&Account>,
) -> Result<PathBuf, Error> {
    let parent = wanted.parent().unwrap_or(wanted);
    fs::create_dir_all(parent).map_err(failed_to(|| format!("create {}", parent.display())))?;
    if claim(wanted, account)? {
        return Ok(wanted.to_owned());
    }
    // Only if empty, that is, if this call made it.
    let _ = fs::remove_dir(wanted);
    let digest = Sha256::digest(wanted.as_os_str().as_encoded_bytes());
    let name = digest[..8]
        .iter()
        .fold(format!("{}-", software.prefix), |name, byte| format!("{name}{byte:02x}"));
    // /var/tmp first: it survives a reboot.
    for parent in [PathBuf::from("/var/tmp"), std::env::temp_dir()] {
        let folder = parent.join(&name);
        if parent.is_dir() && claim(&folder, account)? {
            return Ok(folder);
        }
    }
    Err(unreachable(account, wanted))
}

/// A new folder under one of the temporary ones.
pub(crate) fn temporary(software: Software, account: Option<&Account>) -> Result<PathBuf, Error> {
    let name = format!("{}-ephemeral-{}", software.prefix, Uuid::new_v4().simple());
    let preferred = std::env::temp_dir();
    for parent in [&preferred, Path::new("/tmp"), Path::new("/var/tmp")] {
        let folder = parent.join(&name);
        if claim(&folder, account)? {
            return Ok(folder);
        }
        let _ = fs::remove_dir(&folder);
    }
    Err(unreachable(account, &preferred))
}

/// Makes the folder, private to the user that the server runs as, and says whether that user can
/// work in it. A folder of anybody else's is refused: what lies there may be prepared to harm.
fn claim(folder: &Path, account: Option<&Account>) -> Result<bool, Error> {
    let doing = || format!("create {}", folder.display());
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(failed_to(doing)(error));
        }
        _ => {}
    }
    let mut found = fs::symlink_metadata(folder).map_err(failed_to(doing))?;
    if let Some(account) = account
        && found.uid() == 0
    {
        // Root's, so made by this call or by one that was cut short.
        lchown(folder, Some(account.uid), Some(account.gid)).map_err(failed_to(doing))?;
        found = fs::symlink_metadata(folder).map_err(failed_to(doing))?;
    }
    let owner = account.map_or_else(|| geteuid().as_raw(), |account| account.uid);
    if !found.is_dir() || found.uid() != owner || found.mode() & 0o022 != 0 {
        return Err(Error::Foreign(folder.to_owned()));
    }
    Ok(account.is_none_or(|account| account.can_use(folder)))
}

/// A file that only the user that the server runs as (and root) can read.
pub(crate) fn write_secret(path: &Path, secret: &str, account: Option<&Account>) -> io::Result<()> {
    // An earlier attempt's file may have another owner or mode: never write into it.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(secret.as_bytes())?;
    match account {
        Some(account) => chown(path, Some(account.uid), Some(account.gid)),
        None => Ok(()),
    }
}

fn unreachable(account: Option<&Account>, folder: &Path) -> Error {
    Error::Unreachable {
        user: account.map_or_else(|| "this user".to_owned(), |account| account.name.clone()),
        folder: folder.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::postgres::SOFTWARE;

    #[test]
    fn folder_out_of_reach_gets_a_stable_stand_in() {
        let home = temporary(SOFTWARE, None).unwrap();
        let wanted = home.join("workspace/postgres");
        let Some(account) = Account::choose(SOFTWARE, &wanted).unwrap() else {
            // An ordinary user reaches what it makes.
            assert_eq!(settle(SOFTWARE, &wanted, None).unwrap(), wanted);
            fs::remove_dir_all(home).unwrap();
            return;
        };
        let first = settle(SOFTWARE, &wanted, Some(&account)).unwrap();
        let second = settle(SOFTWARE, &wanted, Some(&account)).unwrap();
        assert_ne!(first, wanted);
        assert_eq!(first, second);
        assert!(!wanted.exists());
        let found = fs::symlink_metadata(&first).unwrap();
        assert_eq!((found.uid(), found.mode() & 0o777), (account.uid, 0o700));
        fs::remove_dir_all(first).unwrap();
        fs::remove_dir_all(home).unwrap();
    }

    #[test]
    fn folder_of_another_user_or_open_to_others_is_refused() {
        let folder = temporary(SOFTWARE, None).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(claim(&folder, None), Err(Error::Foreign(_))));
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        if geteuid().is_root() {
            lchown(&folder, Some(54_322), None).unwrap();
        }
        let somebody = Account { uid: 54_321, gid: 54_321, name: "somebody".into() };
        assert!(matches!(claim(&folder, Some(&somebody)), Err(Error::Foreign(_))));
        fs::remove_dir_all(folder).unwrap();
    }
}
