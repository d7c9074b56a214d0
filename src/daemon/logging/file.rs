//! The log file as a sink: a [`Capped`] file that may fail and come back.
//!
//! In come lines; out goes an error when an outage begins, and none for the later lines of that outage. The errors of
//! opening say what would be right.

use std::io;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Instant;

use super::capped::Capped;
use super::line::Line;
use super::outage::{Outage, Part};
use crate::daemon::values;

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
    /// The path as the option gave it, for errors.
    name: String,
    file: Capped,
    outage: Outage,
}

impl LogFile {
    /// # Errors
    /// With the path and what would be right.
    pub(crate) fn open(path: &Path, cap: u64) -> Result<LogFile, String> {
        let name = path.display().to_string();
        match Capped::open(path, cap) {
            Ok(file) => Ok(LogFile { name, file, outage: Outage::default() }),
            Err(error) => Err(format!("cannot open log file {name}: {error}; {}", advice(&error))),
        }
    }

    /// Opens the file again under its name. When that fails, the old file stays open.
    pub(crate) fn reopen(&mut self) -> Result<(), String> {
        self.outage.retry_now();
        self.file.reopen().map_err(|error| format!("cannot open log file {} again: {error}", self.name))
    }

    /// Appends a line. Returns an error if this line is the first one lost.
    pub(crate) fn log(&mut self, line: &Line) -> Option<String> {
        let file = &mut self.file;
        let error = self.outage.write(Instant::now(), |part| match part {
            Part::Line => file.append(line.bytes()),
            Part::Lost(lost) => file.warn(&format!("{lost} log lines were lost here")),
        })?;
        Some(format!("cannot write to {}: {error}", self.name))
    }
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "make its directory first",
        io::ErrorKind::IsADirectory => "choose a file in it",
        _ => "choose a file that this user may write to",
    }
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
