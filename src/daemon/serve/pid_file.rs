//! `--pid-file`: the server's process id in a file, for as long as the server runs.
//!
//! The server locks the file (flock(2)) until the process ends, in whatever way, and the lock alone decides whose the
//! file is: the number in it may be another process's by now, or one of another pid namespace. A server writes and removes
//! the file only while it has the lock on the file that the path names. So a file without a lock is stale, and two
//! servers never share one. A reader finds the whole number, or an empty file for a moment at the start.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{process, thread};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::log::warn;
use crate::sys::try_lock;

/// Bytes of the longest file that can hold a process id, with room for blanks.
const LONGEST: usize = 32;
/// How long a start waits for a lock whose server is gone. The processes of `--fork` share the lock, and end a moment
/// after their server was killed.
const PATIENCE: Duration = Duration::from_secs(1);

/// The file of this process, removed when dropped.
pub(crate) struct PidFile {
    path: PathBuf,
    /// Invariant: locked.
    file: File,
}

impl PidFile {
    /// Writes the file, over a stale one.
    ///
    /// # Errors
    /// When the file there belongs to a server that runs; when that file is not a pid file; when the file cannot be
    /// written.
    pub(crate) fn write(path: &Path) -> Result<PidFile, String> {
        let failed = |reason: io::Error| format!("cannot write the pid file {}: {reason}", path.display());
        // From here on, an error removes the file.
        let own = PidFile { path: path.into(), file: lock(path).map_err(failed)? };
        let number = format!("{}\n", process::id());
        let written = own.file.set_len(0).and_then(|()| own.file.write_all_at(number.as_bytes(), 0));
        written.map_err(|error| format!("{}; choose another file system, or make room on this one", failed(error)))?;
        Ok(own)
    }

    /// Finds whether [`write`](PidFile::write) would write the file, and leaves the path as it is. Returns which server has
    /// the file now, if one has.
    ///
    /// # Errors
    /// As `write`, but for a file that a running server has.
    pub(crate) fn check(path: &Path) -> Result<Option<String>, String> {
        let is_new = fs::symlink_metadata(path).is_err();
        let text = |error: &io::Error| format!("cannot write the pid file {}: {error}", path.display());
        match lock(path) {
            Ok(file) if is_new => drop(PidFile { path: path.into(), file }),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => return Ok(Some(text(&error))),
            Err(error) => return Err(text(&error)),
        }
        Ok(None)
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // An administrator may have replaced the file.
        let removed = if is_named(&self.path, &self.file) { fs::remove_file(&self.path) } else { Ok(()) };
        if let Err(error) = removed {
            // The directory may belong to another user than --user. An empty file at least names no process.
            let _ = self.file.set_len(0);
            warn!("The pid file {} was emptied, it cannot be removed: {error}", self.path.display());
        }
    }
}

/// Opens the file at a path, or makes it, and locks it.
///
/// # Errors
/// `ResourceBusy` when a running server has the file.
fn lock(path: &Path) -> io::Result<File> {
    let start = Instant::now();
    loop {
        let file = open(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => io::Error::other(format!("{error}; make its directory first")),
            _ => io::Error::other(format!("{error}; choose a file in a directory that this user may write to")),
        })?;
        let other = || io::Error::other("what is there is not a pid file; choose another path");
        let process = process(&file).ok_or_else(other)?;
        match try_lock(&file) {
            Ok(()) if is_named(path, &file) => return Ok(file),
            // The server that had the lock has removed the file. Another one may be there by now.
            Ok(()) => {}
            Err(Errno::EWOULDBLOCK) if !is_alive(&process) && start.elapsed() < PATIENCE => {
                thread::sleep(PATIENCE / 100)
            }
            Err(Errno::EWOULDBLOCK) => {
                let server = if process.is_empty() {
                    "another server".into()
                } else {
                    format!("the server with process id {process}")
                };
                let text = format!("{server} has it; stop that, or choose another path");
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
            }
            Err(error) => return Err(io::Error::other(format!("cannot lock it: {error}; choose another file system"))),
        }
    }
}

/// O_NOFOLLOW: another user may have put a link there. O_NONBLOCK: opening a pipe or a device must not wait.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    OpenOptions::new().read(true).write(true).create(true).mode(0o644).custom_flags(flags.bits()).open(path)
}

/// The process id in a pid file; empty in a new one, or in one that its server was not allowed to remove. `None` when the file is
/// something else, such as a file with a second name, which would be written to as well.
fn process(file: &File) -> Option<String> {
    let held =
        file.metadata().ok().filter(|held| held.is_file() && held.len() <= LONGEST as u64 && held.nlink() < 2)?;
    let mut bytes = [0; LONGEST];
    let count = file.read_at(&mut bytes[..held.len() as usize], 0).ok()?;
    let text = str::from_utf8(&bytes[..count]).ok()?.trim();
    let is_number = text.parse().is_ok_and(|number: i32| number > 0);
    (text.is_empty() || is_number).then(|| text.into())
}

/// True when there is such a process: EPERM, unlike ESRCH, says that too.
fn is_alive(process: &str) -> bool {
    process.parse().is_ok_and(|number| kill(Pid::from_raw(number), None) != Err(Errno::ESRCH))
}

/// True when the path names this very file.
fn is_named(path: &Path, file: &File) -> bool {
    let (named, held) = (fs::symlink_metadata(path), file.metadata());
    named.is_ok_and(|named| held.is_ok_and(|held| (named.dev(), named.ino()) == (held.dev(), held.ino())))
}
