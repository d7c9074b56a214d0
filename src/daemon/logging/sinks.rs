//! The logger: makes a line of each record and hands it to every sink.
//!
//! In come records from any thread, one at a time behind a lock. A sink that fails must not end the server, so what
//! goes wrong with the log file appears on the other sinks.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use log::{Level, LevelFilter, Log, Metadata, Record};

use super::console::{Console, silence_handled_panics};
use super::file::{LogFile, SIZE};
use super::line::Line;
use super::outage::Outage;
use super::syslog;
use crate::log::{error, info};
use crate::sys::localtime;

/// What is logged, and where beside the console.
#[derive(Debug)]
pub(crate) struct Logging {
    pub(crate) level: LevelFilter,
    pub(crate) file: Option<PathBuf>,
    /// Bytes that the file may have.
    pub(crate) size: u64,
    pub(crate) syslog: bool,
}

impl Default for Logging {
    fn default() -> Logging {
        Logging { level: LevelFilter::Info, file: None, size: SIZE, syslog: false }
    }
}

/// `None` until the log starts.
static SINKS: Mutex<Option<Sinks>> = Mutex::new(None);

struct Sinks {
    line: Line,
    /// `None` once the server has left the console.
    console: Option<Console>,
    file: Option<LogFile>,
    /// Of the file.
    outage: Outage,
    syslog: bool,
}

/// Starts to log.
///
/// # Errors
/// When the log file or the system log cannot be opened.
pub(crate) fn start(logging: &Logging) -> Result<(), String> {
    // Reads the time zone now: after a change of the user, the process may not be able to read the zone's file.
    localtime::now();
    let file = logging.file.as_deref().map(|path| LogFile::open(path, logging.size)).transpose()?;
    if logging.syslog {
        syslog::open()?;
    }
    silence_handled_panics();
    let (console, outage) = (Some(Console::new(logging.level)), Outage::default());
    *sinks() = Some(Sinks { line: Line::new(), console, file, outage, syslog: logging.syslog });
    if log::set_logger(&Logger).is_ok() {
        log::set_max_level(logging.level);
    }
    Ok(())
}

/// Opens the log file again under its name, after an administrator has moved it away.
pub(crate) fn reopen() {
    // The log lines below take the lock again, so this statement must release it.
    let outcome = sinks().as_mut().and_then(Sinks::reopen);
    match outcome {
        None => info!("No log file to open again"),
        Some(Ok(())) => info!("Log file opened again"),
        Some(Err(error)) => error!("{error}; going on with the old one"),
    }
}

/// Stops logging to the console.
pub(crate) fn leave_console() {
    if let Some(sinks) = sinks().as_mut() {
        sinks.console = None;
    }
}

fn sinks() -> MutexGuard<'static, Option<Sinks>> {
    SINKS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hands the records of the `log` crate to the sinks.
struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if let Some(sinks) = sinks().as_mut().filter(|_| self.enabled(record.metadata())) {
            sinks.log(record);
        }
    }

    fn flush(&self) {}
}

impl Sinks {
    fn log(&mut self, record: &Record<'_>) {
        self.line.compose(record.level(), record.args());
        let broken = self.file.as_mut().and_then(|file| {
            let error = self.outage.write(Instant::now(), &self.line, |line| file.append(line))?;
            Some(format!("Log lines are lost: cannot write to {}: {error}", file.path.display()))
        });
        self.show(record.target());
        if let Some(text) = broken {
            self.line.compose(Level::Error, &text);
            self.show(record.target());
        }
    }

    /// Opens the log file again, if there is one. When that fails, the old file stays open.
    fn reopen(&mut self) -> Option<Result<(), String>> {
        let file = self.file.as_mut()?;
        self.outage.next_attempt = None;
        Some(file.reopen().map_err(|error| format!("cannot open log file {} again: {error}", file.path.display())))
    }

    /// Hands the line to every sink but the file.
    fn show(&mut self, target: &str) {
        if let Some(console) = &mut self.console {
            console.log(target, &self.line);
        }
        if self.syslog {
            syslog::log(&self.line);
        }
    }
}
