//! The logger: makes a line of each record and hands it to every sink.
//!
//! In come records from any thread, one at a time behind a lock. A sink that fails must not end the server, so what
//! goes wrong with the log file appears on the other sinks.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use log::{Level, LevelFilter, Log, Metadata, Record};

use super::console::{Console, silence_handled_panics};
use super::file::{LogFile, SIZE};
use super::line::Line;
use super::syslog::Syslog;
use crate::daemon::action::Failure;
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

static LOGGER: OnceLock<Logger> = OnceLock::new();

struct Logger(Mutex<Sinks>);

struct Sinks {
    line: Line,
    /// `None` once the server has left the console.
    console: Option<Console>,
    file: Option<LogFile>,
    syslog: Option<Syslog>,
}

/// Starts to log.
///
/// # Errors
/// When the log file or the system log cannot be opened.
pub(crate) fn start(logging: &Logging) -> Result<(), Failure> {
    // Reads the time zone now: after a change of the user, the process may not be able to read the zone's file.
    localtime::now();
    let file = logging.file.as_deref().map(|path| LogFile::open(path, logging.size));
    let file = file.transpose().map_err(Failure::Run)?;
    let syslog = logging.syslog.then(Syslog::open).transpose().map_err(Failure::Run)?;
    silence_handled_panics();
    let sinks = Sinks { line: Line::new(), console: Some(Console::new(logging.level)), file, syslog };
    if log::set_logger(LOGGER.get_or_init(|| Logger(Mutex::new(sinks)))).is_ok() {
        log::set_max_level(logging.level);
    }
    Ok(())
}

/// Opens the log file again under its name, after an administrator has moved it away.
pub(crate) fn reopen() {
    let Some(logger) = LOGGER.get() else { return };
    // The log lines below take the lock again, so this statement must release it.
    let outcome = logger.lock().file.as_mut().map(LogFile::reopen);
    match outcome {
        None => info!("No log file to open again"),
        Some(Ok(())) => info!("Log file opened again"),
        Some(Err(error)) => error!("{error}; going on with the old one"),
    }
}

/// Stops logging to the console.
pub(crate) fn leave_console() {
    if let Some(logger) = LOGGER.get() {
        logger.lock().console = None;
    }
}

impl Logger {
    fn lock(&self) -> MutexGuard<'_, Sinks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.lock().log(record);
        }
    }

    fn flush(&self) {}
}

impl Sinks {
    fn log(&mut self, record: &Record<'_>) {
        self.line.compose(record.level(), record.args());
        let broken = self.file.as_mut().and_then(|file| file.log(&self.line));
        self.show(record.level(), record.target());
        if let Some(error) = broken {
            self.line.compose(Level::Error, &format_args!("Log lines are lost: {error}"));
            self.show(Level::Error, record.target());
        }
    }

    /// Hands the line to every sink but the file.
    fn show(&mut self, level: Level, target: &str) {
        if let Some(console) = &mut self.console {
            console.log(level, target, self.line.text());
        }
        if let Some(syslog) = &self.syslog {
            syslog.log(level, self.line.text());
        }
    }
}
