//! `--user`: what the server does as root for the user that it will run as, and the change to that user.
//!
//! The server binds its ports and makes its files first. Then it gives up the supplementary groups, the group, and
//! last the user, because each step needs the rights that the later ones give up. Afterwards it asks the kernel for
//! the outcome: a server that is still root without knowing it is worse than none.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::unistd::{
    Gid, ResGid, ResUid, Uid, User, fchown, fchownat, getgroups, getresgid, getresuid, setfsgid, setfsuid, setgroups,
    setresgid, setresuid, setuid,
};

use crate::daemon::values::parsed;

/// The user and group that the server runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    /// The name as the option gave it, for errors.
    name: String,
    user: Uid,
    group: Gid,
}

const FORM: &str = "expected the name of a user, or UID:GID";

/// Looks up a user: a name, a number, or two numbers with a colon, which need no entry in the user database.
pub(crate) fn account(text: &str) -> Result<Account, String> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (Uid::from_raw(parsed(user, FORM)?), Gid::from_raw(parsed(group, FORM)?)),
        None => {
            let number = text.parse().map(Uid::from_raw);
            let found = number.map_or_else(|_| User::from_name(text), User::from_uid);
            let found = found.map_err(|error| format!("cannot look up the user: {error}; {FORM}"))?;
            let found = found.ok_or_else(|| format!("there is no such user; {FORM}"))?;
            (found.uid, found.gid)
        }
    };
    // setresuid(2) takes -1 to mean that the user stays as it is.
    if user.as_raw() == u32::MAX || group.as_raw() == u32::MAX {
        return Err("4294967295 is nobody's number; choose another".into());
    }
    if user.is_root() {
        return Err("this is root; choose a user with fewer rights, or leave --user out".into());
    }
    Ok(Account { name: text.into(), user, group })
}

impl Account {
    /// Makes a log file that does not exist yet, and gives it to the user. An existing one stays as it is, because it
    /// may be a link to any file, made by a user that can write to the directory. Then calls `open` with the rights of
    /// the user, so that opening the file again later works too.
    pub(crate) fn open_log<T>(&self, path: Option<&Path>, open: impl FnOnce() -> T) -> T {
        // An error shows again when the file is opened, and is reported then.
        let made = path.map(|path| OpenOptions::new().write(true).create_new(true).mode(0o640).open(path));
        if let Some(Ok(file)) = made {
            let _ = fchown(file, Some(self.user), Some(self.group));
        }
        let (group, user) = (setfsgid(self.group), setfsuid(self.user));
        let opened = open();
        setfsuid(user);
        setfsgid(group);
        opened
    }

    /// Gives the control socket to the user.
    ///
    /// # Errors
    /// When the path is no socket any more, or what fchownat(2) says.
    pub(crate) fn own_socket(&self, path: &Path) -> Result<(), String> {
        // The descriptor keeps the path from leading to another file between the check and the change of owner.
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW;
        let given = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path).and_then(|file| {
            if !file.metadata()?.file_type().is_socket() {
                return Err(io::Error::other("it was replaced"));
            }
            Ok(fchownat(file, "", Some(self.user), Some(self.group), AtFlags::AT_EMPTY_PATH)?)
        });
        given.map_err(|error| format!("cannot give the control socket {} to {}: {error}", path.display(), self.name))
    }

    /// Becomes the user, for good.
    ///
    /// # Errors
    /// When a step fails, or the kernel reports another outcome than the wanted one. The process may be between two
    /// users then, and must end.
    pub(crate) fn become_user(&self) -> Result<(), String> {
        let failed = |text: String| format!("cannot run as --user {}: {text}", self.name);
        let step = |step: &'static str| {
            move |error: Errno| failed(format!("cannot {step}: {error}; start it as root, or without --user"))
        };
        setgroups(&[]).map_err(step("leave the groups of the user before"))?;
        setresgid(self.group, self.group, self.group).map_err(step("change the group"))?;
        setresuid(self.user, self.user, self.user).map_err(step("change the user"))?;
        let (user, group) = (self.user, self.group);
        let text = if getresuid() != Ok(ResUid { real: user, effective: user, saved: user }) {
            "the user is another"
        } else if getresgid() != Ok(ResGid { real: group, effective: group, saved: group }) {
            "the group is another"
        } else if getgroups().map(|groups| groups.len()) != Ok(0) {
            "it is in other groups"
        } else if setuid(Uid::from_raw(0)).is_ok() {
            // A capability, or a bit of prctl(2) PR_SET_SECUREBITS, has kept a way back to root.
            "it can become root again"
        } else {
            return Ok(());
        };
        Err(failed(format!("{text} afterwards")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_names_or_numbers() {
        let two = account("1234:5678").unwrap();
        assert_eq!((two.user.as_raw(), two.group.as_raw()), (1_234, 5_678));
        for (text, part) in [
            ("", "no such user; expected the name"),
            ("no-such-user", "no such user"),
            ("4294967293", "no such user"),
            ("4294967296", "no such user"),
            ("nobody:nogroup", "UID:GID"),
            ("1:2:3", "UID:GID"),
            ("-1:1", "UID:GID"),
            ("1000:4294967295", "4294967295"),
            ("4294967295:1", "4294967295"),
            ("0:1", "root"),
            ("root", "root"),
            ("a\0b", "no such user"),
        ] {
            let error = account(text).unwrap_err();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }
}
