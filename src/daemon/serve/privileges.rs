//! `--user`: what the server does as root for the user that it will run as, and the change to that user.
//!
//! The server binds its ports as root, and opens its log file and its control socket with the rights of the user. The pid
//! file stays root's, because an init script kills as root what that file names. Then the server gives up the
//! supplementary groups, the group, and last the user, because each step needs the rights that the later ones give up.
//! Afterwards it asks the kernel for the outcome: a server that is still root without knowing it is worse than none.

use nix::errno::Errno;
use nix::unistd::{
    Gid, ResGid, ResUid, Uid, User, getgroups, getresgid, getresuid, setfsgid, setfsuid, setgroups, setresgid,
    setresuid, setuid,
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

/// The step that takes the first right.
const GROUPS: &str = "leave the groups of the user before";

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
    /// Calls `act` with the rights to files that the server will have, and no other: what `act` opens or makes, the
    /// server can open again and replace later, and no path of the user's leads `act` to a file that only root may
    /// change. The right to bind ports is kept (setfsuid(2)).
    ///
    /// # Errors
    /// When the rights cannot be changed. The process may be between two users then, and must end.
    pub(crate) fn with_file_rights<T>(&self, act: impl FnOnce() -> T) -> Result<T, String> {
        let groups = getgroups().and_then(|groups| setgroups(&[]).map(|()| groups)).map_err(self.failed(GROUPS))?;
        let (group, user) = (setfsgid(self.group), setfsuid(self.user));
        // Both return what was before, whether or not they change anything, and so show the outcome now.
        let changed = (setfsgid(self.group), setfsuid(self.user)) == (self.group, self.user);
        let done = if changed { Ok(act()) } else { Err(self.failed("take the user's rights to files")(Errno::EPERM)) };
        setfsuid(user);
        setfsgid(group);
        setgroups(&groups).map_err(self.failed("return to the groups of the user before"))?;
        done
    }

    /// Becomes the user, for good.
    ///
    /// # Errors
    /// When a step fails, or the kernel reports another outcome than the wanted one. The process may be between two
    /// users then, and must end.
    pub(crate) fn become_user(&self) -> Result<(), String> {
        setgroups(&[]).map_err(self.failed(GROUPS))?;
        setresgid(self.group, self.group, self.group).map_err(self.failed("change the group"))?;
        setresuid(self.user, self.user, self.user).map_err(self.failed("change the user"))?;
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
        Err(format!("cannot run as --user {}: {text} afterwards", self.name))
    }

    /// Names the step that failed, for `map_err`.
    fn failed(&self, step: &str) -> impl FnOnce(Errno) -> String {
        move |error| {
            format!("cannot run as --user {}: cannot {step}: {error}; start it as root, or without --user", self.name)
        }
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
