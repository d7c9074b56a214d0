//! A file that lines are appended to, never longer than its cap, with one old file kept.
//!
//! In come whole lines, one write(2) each. This module never rewrites and never syncs the file, because both wear out
//! flash memory. Before each line this module reads the file's size, so other processes may write, empty, move or
//! delete the file. A path that is no regular file, such as `/dev/console` or a pipe, has no cap, and a write to such a
//! path never waits.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use log::Level;
use nix::fcntl::OFlag;

use super::line::Line;

pub(crate) struct Capped {
    /// Absolute, because the process may change its directory.
    path: PathBuf,
    cap: u64,
    file: File,
    /// The file ends within a line, so a newline goes before the next line.
    torn: bool,
}

impl Capped {
    /// Opens a file to append to.
    ///
    /// O_NONBLOCK: opening a pipe must not wait for a reader. O_NOCTTY: a terminal must not become the controlling one.
    pub(crate) fn open(path: &Path, cap: u64) -> io::Result<Capped> {
        let path = std::path::absolute(path)?;
        let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let file = OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(flags.bits()).open(&path)?;
        let held = file.metadata()?;
        let mut last = [b'\n'];
        if held.is_file() && held.len() > 0 {
            // A user that may write the file, but not read it, still gets a log.
            let _ = File::open(&path).and_then(|file| file.read_at(&mut last, held.len() - 1));
        }
        Ok(Capped { path, cap, file, torn: last != *b"\n" })
    }

    /// Opens the file again under its name. When that fails, the old file stays open.
    pub(crate) fn reopen(&mut self) -> io::Result<()> {
        *self = Capped::open(&self.path, self.cap)?;
        Ok(())
    }

    /// Appends a line, whose last byte is a newline.
    ///
    /// # Errors
    /// When the file did not take all of the line.
    pub(crate) fn append(&mut self, line: &[u8]) -> io::Result<()> {
        self.make_room(line.len() as u64 + 1)?;
        self.write(line)
    }

    /// Appends a warning about the log itself.
    pub(crate) fn warn(&mut self, text: &str) -> io::Result<()> {
        let mut line = Line::new();
        line.compose(Level::Warn, &text);
        self.append(line.bytes())
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.torn {
            self.torn = self.file.write(b"\n")? == 0;
        }
        let mut rest = line;
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                // A disk that is almost full takes a part of the line. The next write then fails with the reason.
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.torn = rest.len() < line.len();
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Rotates the file when `bytes` more would exceed the cap.
    fn make_room(&mut self, bytes: u64) -> io::Result<()> {
        let held = self.file.metadata()?;
        if !held.is_file() {
            return Ok(());
        }
        if held.nlink() == 0 {
            // Another process has deleted the file. Its lines would be lost, and take up flash all the same.
            return self.reopen();
        }
        if held.len() + bytes <= self.cap {
            return Ok(());
        }
        match fs::metadata(&self.path) {
            // Another process of this server, or an administrator, has moved the file away already.
            Ok(named) if !is_same_file(&named, &held) => return self.reopen(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.reopen(),
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        // The path may be a symbolic link. The rename must move the full file, and not the link.
        let path = fs::canonicalize(&self.path)?;
        let mut old = path.clone().into_os_string();
        old.push(".1");
        match fs::rename(&path, &old) {
            Ok(()) => self.reopen(),
            // The directory may belong to another user. The cap matters more than the old lines, because a full flash
            // stops other programs too.
            Err(error) => {
                self.file.set_len(0)?;
                self.torn = false;
                self.warn(&format!("The log file was emptied, it cannot become {}: {error}", old.display()))
            }
        }
    }
}

fn is_same_file(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}
