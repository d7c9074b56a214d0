//! A file that lines are appended to, never longer than its cap, with one old file kept.
//!
//! One write(2) per line, nothing rewritten and nothing synced: flash wears with both. Before each line the file
//! is asked for its size, so that other processes may write, empty, move or delete it. A path that is no regular
//! file, as `/dev/console` or a pipe, is written to without waiting and without a cap.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use log::Level;
use nix::fcntl::OFlag;

use super::line::Line;

pub struct Capped {
    /// Absolute, for the process may change its directory.
    path: PathBuf,
    cap: u64,
    file: File,
    /// The file ends within a line.
    torn: bool,
}

impl Capped {
    pub fn open(path: &Path, cap: u64) -> io::Result<Capped> {
        let path = std::path::absolute(path)?;
        let (file, torn) = open(&path)?;
        Ok(Capped { path, cap, file, torn })
    }

    /// Opens the file again under its name. The old one stays open if that fails.
    pub fn reopen(&mut self) -> io::Result<()> {
        (self.file, self.torn) = open(&self.path)?;
        Ok(())
    }

    /// Appends a line that ends in a newline, all of it or an error.
    pub fn append(&mut self, line: &[u8]) -> io::Result<()> {
        self.make_room(line.len() as u64 + 1)?;
        self.write(line)
    }

    /// Appends a line of the log's own.
    pub fn warn(&mut self, text: &str) -> io::Result<()> {
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
                // The last block of a disk, or of a limit, takes a part: the write of the rest says why.
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

    /// Sees to it that so many bytes more stay within the cap.
    fn make_room(&mut self, bytes: u64) -> io::Result<()> {
        let held = self.file.metadata()?;
        if !held.is_file() {
            return Ok(());
        }
        if held.nlink() == 0 {
            // Deleted: what is written to it is lost, and takes up flash all the same.
            return self.reopen();
        }
        if held.len() + bytes <= self.cap {
            return Ok(());
        }
        match fs::metadata(&self.path) {
            // Another process of this server, or a person, has moved it away already.
            Ok(named) if !same(&named, &held) => return self.reopen(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.reopen(),
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        // Where a link leads to is what is full, and what is to be kept there.
        let path = fs::canonicalize(&self.path)?;
        let mut old = path.clone().into_os_string();
        old.push(".1");
        match fs::rename(&path, &old) {
            Ok(()) => self.reopen(),
            // The directory may belong to someone else. The cap comes first: a full flash stops more than a log.
            Err(error) => {
                self.file.set_len(0)?;
                self.torn = false;
                self.warn(&format!("The log file was emptied, it cannot become {}: {error}", old.display()))
            }
        }
    }
}

fn same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Opens a file to append to, and says whether it ends within a line, as a power cut leaves it. One that is a pipe
/// or a terminal must neither be waited for nor become ours.
fn open(path: &Path) -> io::Result<(File, bool)> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(flags.bits()).open(path)?;
    let held = file.metadata()?;
    let mut last = [b'\n'];
    if held.is_file() && held.len() > 0 {
        // A file that may be written but not read is no reason to fail.
        let _ = File::open(path).and_then(|file| file.read_at(&mut last, held.len() - 1));
    }
    Ok((file, last != *b"\n"))
}
