//! `--pid-file`: the server's process id in a file, for as long as the server runs.
//!
//! The file appears whole or not at all, and the server locks it (flock(2)) until the process ends, in whatever way.
//! So a file without a lock is stale, even if another process has its id by now. A lock alone proves nothing either,
//! because any process that can read the file can lock it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::mem::ManuallyDrop;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::log::warn;

/// Bytes of the longest file that can hold a process id, with room for blanks.
const LONGEST: u64 = 32;

/// The file of this process, removed when dropped.
pub(crate) struct PidFile {
    path: PathBuf,
    /// Never unlocked by hand: the kernel does that when the process ends, and cannot fail.
    file: ManuallyDrop<Flock<File>>,
}

impl PidFile {
    /// Writes the file, in place of a stale one.
    ///
    /// # Errors
    /// When the file there belongs to a server that runs; when that file is not a pid file; when the new one cannot
    /// be written.
    pub(crate) fn write(path: &Path) -> Result<PidFile, String> {
        let written = check(path).and_then(|()| {
            create(path).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => format!("{error}; make its directory first"),
                _ => format!("{error}; choose a directory that this user may write to"),
            })
        });
        written.map_err(|reason| format!("cannot write the pid file {}: {reason}", path.display()))
    }

    fn remove(&mut self) -> io::Result<()> {
        let (named, ours) = (fs::symlink_metadata(&self.path)?, self.file.metadata()?);
        // Another server may have replaced the file, and then removes its own.
        if (named.dev(), named.ino()) == (ours.dev(), ours.ino()) { fs::remove_file(&self.path) } else { Ok(()) }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let failed = self.remove().err().filter(|error| error.kind() != io::ErrorKind::NotFound);
        if let Some(error) = failed {
            // The directory may belong to another user than --user. An empty file at least names no process.
            let _ = self.file.set_len(0);
            warn!("The pid file {} was emptied, it cannot be removed: {error}", self.path.display());
        }
    }
}

/// Fails with the reason when a file that exists must stay.
fn check(path: &Path) -> Result<(), String> {
    // O_NONBLOCK: opening a pipe must not wait. O_NOFOLLOW: the rename replaces a link, and not the file that the
    // link leads to, so that file is not the one to look at.
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW;
    let file = match OpenOptions::new().read(true).custom_flags(flags.bits()).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|error| error.to_string())?,
    };
    let mut text = String::new();
    let is_file = file.metadata().is_ok_and(|held| held.is_file() && held.len() <= LONGEST);
    let read = is_file && (&file).take(LONGEST).read_to_string(&mut text).is_ok();
    let text = text.trim();
    let process = text.parse().ok().filter(|number| *number > 0);
    // EPERM, unlike ESRCH, means that there is such a process.
    let is_alive = |process| kill(Pid::from_raw(process), None) != Err(Errno::ESRCH);
    // A shared lock, so that two processes that do this at the same time do not take each other for the server.
    let is_locked = || matches!(Flock::lock(file, FlockArg::LockSharedNonblock), Err((_, Errno::EWOULDBLOCK)));
    match process {
        Some(process) if is_alive(process) && is_locked() => {
            Err(format!("the server with process id {process} has it; stop that, or choose another path"))
        }
        // A server that is not allowed to remove its file leaves it empty.
        _ if read && (process.is_some() || text.is_empty()) => Ok(()),
        _ => Err("what is there is not a pid file; choose another path".into()),
    }
}

fn create(path: &Path) -> io::Result<PidFile> {
    let process = process::id();
    let mut new = path.as_os_str().to_owned();
    new.push(format!(".{process}"));
    let new = PathBuf::from(new);
    // A process with the same id may have been killed at this point, and have left this file.
    let _ = fs::remove_file(&new);
    let written = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&new).and_then(|mut file| {
        file.write_all(format!("{process}\n").as_bytes())?;
        let file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| error)?;
        fs::rename(&new, path)?;
        Ok(PidFile { path: path.into(), file: ManuallyDrop::new(file) })
    });
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}
