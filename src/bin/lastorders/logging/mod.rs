//! Where log lines go: the console, and a file and the system log if asked for.
//!
//! Every record is made into one [`Line`] here, escaped and bounded, and each sink takes that. A sink that fails
//! loses lines and says later how many; it never ends anything, and never holds up the caller for long.

mod capped;
mod console;
mod escape;
mod file;
mod line;
mod outage;
mod syslog;

use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};

use lastorders::localtime;
use log::{Level, LevelFilter, Log, Metadata, Record, error, info};

use self::console::Console;
use self::file::LogFile;
use self::line::Line;
use self::syslog::Syslog;
use crate::failure::Failure;

pub use self::file::{SIZE, size};

/// What is logged, and where beside the console.
pub struct Logging {
    pub level: LevelFilter,
    pub file: Option<PathBuf>,
    /// Bytes that the file may have.
    pub size: u64,
    pub syslog: bool,
}

impl Default for Logging {
    fn default() -> Logging {
        Logging { level: LevelFilter::Info, file: None, size: SIZE, syslog: false }
    }
}

static FANOUT: OnceLock<Fanout> = OnceLock::new();

struct Fanout {
    level: LevelFilter,
    sinks: Mutex<Sinks>,
}

struct Sinks {
    line: Line,
    /// None once the server has left it.
    console: Option<Console>,
    file: Option<LogFile>,
    syslog: Option<Syslog>,
}

/// Starts to log.
///
/// # Errors
/// When the log file cannot be opened.
pub fn start(logging: Logging) -> Result<(), Failure> {
    let level = logging.level;
    // Reads the zone while its file is in reach, whenever the first line comes.
    localtime::now();
    let file = logging.file.map(|path| LogFile::open(path, logging.size)).transpose().map_err(Failure::Run)?;
    let syslog = logging.syslog.then(Syslog::open).transpose().map_err(Failure::Run)?;
    console::quiet_panics();
    let sinks = Mutex::new(Sinks { line: Line::new(), console: Some(Console::new(level)), file, syslog });
    if log::set_logger(FANOUT.get_or_init(|| Fanout { level, sinks })).is_ok() {
        log::set_max_level(level);
    }
    Ok(())
}

/// Opens the log file again under its name, because someone has moved it away.
pub fn reopen() {
    let Some(fanout) = FANOUT.get() else { return };
    // The sinks must be free again when the outcome is logged.
    let outcome = fanout.sinks.lock().unwrap_or_else(PoisonError::into_inner).file.as_mut().map(LogFile::reopen);
    match outcome {
        None => info!("No log file to open again"),
        Some(Ok(())) => info!("Log file opened again"),
        Some(Err(error)) => error!("{error}; going on with the old one"),
    }
}

/// Logs to the console no more.
pub fn leave_console() {
    if let Some(fanout) = FANOUT.get() {
        fanout.sinks.lock().unwrap_or_else(PoisonError::into_inner).console = None;
    }
}

impl Log for Fanout {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.level
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.sinks.lock().unwrap_or_else(PoisonError::into_inner).log(record);
        }
    }

    fn flush(&self) {}
}

impl Sinks {
    fn log(&mut self, record: &Record<'_>) {
        self.line.compose(record.level(), record.args());
        let broken = self.file.as_mut().and_then(|file| file.log(&self.line));
        self.show(record.level());
        if let Some(error) = broken {
            self.line.compose(Level::Error, &format_args!("Log lines are lost: {error}"));
            self.show(Level::Error);
        }
    }

    /// Shows the line wherever no file is involved.
    fn show(&mut self, level: Level) {
        if let Some(console) = &mut self.console {
            console.log(level, self.line.text());
        }
        if let Some(syslog) = &self.syslog {
            syslog.log(level, self.line.text());
        }
    }
}
