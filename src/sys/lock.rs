//! Locks on files.

use std::fs::File;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc::{LOCK_EX, LOCK_NB, flock};

/// Locks a file against every other open file description (flock(2)), without waiting. The kernel releases the lock
/// when the last duplicate of the descriptor is closed, which cannot fail; nix's `Flock` does so by a call, and panics
/// when that call fails.
///
/// # Errors
/// `EWOULDBLOCK` when the file is locked already, else what flock(2) says.
pub(crate) fn try_lock(file: &File) -> nix::Result<()> {
    // SAFETY: the descriptor is open while the file is borrowed, and flock(2) touches no memory of the process.
    Errno::result(unsafe { flock(file.as_raw_fd(), LOCK_EX | LOCK_NB) }).map(drop)
}
