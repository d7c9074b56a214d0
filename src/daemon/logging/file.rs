//! The log file: lines are appended to it, it is never longer than its cap, and one old file is kept.
//!
//! In come whole lines, one write(2) each. This module never rewrites and never syncs the file, because both wear out
//! flash memory. Before each line this module reads the file's size, so other processes may write, empty, move or
//! delete the file. Processes that log to one file rotate it one at a time, by a lock that none of them waits for: while
//! one renames the file, the others may each exceed the cap by a line. A path that is no regular file, such as
//! `/dev/console` or a pipe, has no cap, and a write to such a path never waits. The errors of opening say what would be right.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::line::{Line, stamped};
use crate::daemon::values;
use crate::sys::try_lock;

/// Bytes of `--log-size` by default.
pub(crate) const SIZE: u64 = 1024 * 1024;
/// The smallest cap has room for the longest lines; the largest is more than any board should spend.
const SIZES: RangeInclusive<u64> = 16 * 1024..=4 * 1024 * 1024 * 1024;

/// Reads the value of `--log-size`.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let bytes = values::size(text).filter(|bytes| SIZES.contains(bytes));
    bytes.ok_or_else(|| "expected a size from 16K to 4G, as in 1M".into())
}

pub(crate) struct LogFile {
    pub(crate) path: PathBuf,
    cap: u64,
    file: File,
    /// The file ends within a line of another writer, so a newline goes before the next line.
    torn: bool,
    /// The file ends within a line of this writer, and what is appended next is the rest of that line.
    within_line: bool,
}

impl LogFile {
    /// Opens the file to append to.
    ///
    /// # Errors
    /// With the path and what would be right.
    pub(crate) fn open(path: &Path, cap: u64) -> Result<LogFile, String> {
        let opened = open(path).map_err(|error| {
            let advice = match error.kind() {
                io::ErrorKind::NotFound => "make its directory first",
                io::ErrorKind::IsADirectory => "choose a file in it",
                _ => "choose a file that the server's user may write to",
            };
            format!("cannot open log file {}: {error}; {advice}", path.display())
        });
        opened.map(|(file, torn)| LogFile { path: path.into(), cap, file, torn, within_line: false })
    }

    /// Finds whether [`open`](LogFile::open) would open the file, and leaves the path as it is.
    ///
    /// # Errors
    /// As `open`.
    pub(crate) fn check(path: &Path) -> Result<(), String> {
        let is_new = fs::metadata(path).is_err();
        LogFile::open(path, SIZE)?;
        // The path may be a link to the file that was made.
        let removed = if is_new { fs::canonicalize(path).and_then(fs::remove_file) } else { Ok(()) };
        removed.map_err(|error| format!("cannot remove {} again: {error}", path.display()))
    }

    /// Opens the file again under its name. When that fails, the old file stays open.
    pub(crate) fn reopen(&mut self) -> io::Result<()> {
        (self.file, self.torn) = open(&self.path)?;
        self.within_line = false;
        Ok(())
    }

    /// Appends the first of some lines, or the part of it that the disk has room for. Returns how many bytes that was.
    ///
    /// # Errors
    /// When the file takes nothing. `WouldBlock` for a pipe or a terminal that has no room.
    pub(crate) fn append(&mut self, lines: &[u8]) -> io::Result<usize> {
        let end = lines.iter().position(|byte| *byte == b'\n').map_or(lines.len(), |end| end + 1);
        if !self.within_line {
            self.make_room(end as u64 + 1)?;
        }
        if self.torn {
            self.torn = self.file.write(b"\n")? == 0;
        }
        let count = self.file.write(&lines[..end])?;
        self.within_line = count < end;
        Ok(count)
    }

    /// Rotates the file when `bytes` more would exceed the cap.
    fn make_room(&mut self, bytes: u64) -> io::Result<()> {
        let held = self.file.metadata()?;
        if !held.is_file() || (held.nlink() > 0 && held.len() + bytes <= self.cap) {
            return Ok(());
        }
        // A description of its own, because the processes of `--fork` share that of `self.file`, and so its locks.
        let (named, torn) = open(&self.path)?;
        if !is_same(&named.metadata()?, &held) {
            // Another process has rotated, moved or deleted the file.
            (self.file, self.torn) = (named, torn);
            return Ok(());
        }
        match try_lock(&named) {
            // Another process rotates the file at this moment. If it never ends that, the cap still matters more.
            Err(Errno::EWOULDBLOCK) if held.len() < 2 * self.cap => Ok(()),
            _ => self.rotate(named, &held, bytes),
        }
    }

    /// Renames the file that `locked` is, and makes a new one.
    fn rotate(&mut self, locked: File, held: &Metadata, bytes: u64) -> io::Result<()> {
        if !fs::metadata(&self.path).is_ok_and(|named| is_same(&named, held)) {
            // Another process has renamed the file, and released its lock, since this process opened the path.
            return self.reopen();
        }
        // The path may be a symbolic link. The rename must move the full file, and not the link.
        let path = fs::canonicalize(&self.path)?;
        let old = old_name(&path);
        match fs::rename(&path, &old) {
            Ok(()) => {
                drop(locked);
                self.reopen()
            }
            // Another process has emptied the file.
            Err(_) if self.file.metadata()?.len() + bytes <= self.cap => Ok(()),
            // The directory may belong to another user. The cap matters more than the old lines, because a full flash
            // stops other programs too.
            Err(error) => {
                self.file.set_len(0)?;
                self.torn = false;
                let text = format!("The log file was emptied, it cannot become {}: {error}", old.display());
                let mut line = Vec::new();
                stamped(&Line::warning(&text), &mut line);
                self.file.write_all(&line)
            }
        }
    }
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// What a full log file is renamed to.
pub(crate) fn old_name(path: &Path) -> PathBuf {
    let mut old = path.as_os_str().to_owned();
    old.push(".1");
    old.into()
}

impl AsFd for LogFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Opens a file to append to, and looks whether it ends within a line.
///
/// O_NONBLOCK: opening a pipe must not wait for a reader. O_NOCTTY: a terminal must not become the controlling one.
fn open(path: &Path) -> io::Result<(File, bool)> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(flags.bits()).open(path)?;
    let held = file.metadata()?;
    let mut last = [b'\n'];
    if held.is_file() && held.len() > 0 {
        // A user that may write the file, but not read it, still gets a log. By now the path may lead to a pipe.
        let again = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path);
        let _ = again.and_then(|file| file.read_at(&mut last, held.len() - 1));
    }
    Ok((file, last != *b"\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_a_range() {
        for (text, bytes) in [("16384", 16_384), ("1M", SIZE), ("4G", 4 << 30)] {
            assert_eq!(size(text), Ok(bytes));
        }
        for text in ["", "1", "15K", "5G"] {
            assert_eq!(size(text), Err("expected a size from 16K to 4G, as in 1M".into()), "{text:?}");
        }
    }
}
