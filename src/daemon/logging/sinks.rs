//! The logger: makes a line of each record and hands it to every sink.
//!
//! In come records from any thread, one at a time behind a lock. No sink is waited for: what it does not take goes into
//! its backlog, and the accept loop flushes that when the sink has room. A sink that fails must not end the server, so
//! what goes wrong with one appears on the others.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{self, PanicHookInfo};
use std::path::PathBuf;
use std::process;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::backlog::{self, Backlog, Form, Rest};
use super::file::{self, LogFile};
use super::line::{self, Line};
use super::syslog::Syslog;
use crate::daemon::output::Output;
use crate::error::Error;
use crate::log::{error, info};
use crate::stats::{LOST_LINES, SharedCounter};
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
        Logging { level: LevelFilter::Info, file: None, size: file::SIZE, syslog: false }
    }
}

impl Logging {
    /// Bytes that the backlogs take.
    pub(crate) fn memory(&self) -> usize {
        backlog::SIZE * (1 + usize::from(self.file.is_some()) + usize::from(self.syslog))
    }
}

/// `None` until the log starts.
static SINKS: Mutex<Option<Sinks>> = Mutex::new(None);

struct Sinks {
    line: Line,
    sinks: Vec<Sink>,
    /// Becomes readable when a sink that was blocked has room. `None` in a forked child, which has no accept loop.
    room: Option<Epoll>,
    /// The process whose lines wait in the backlogs. A forked child has copies of them.
    process: u32,
}

struct Sink {
    out: Out,
    backlog: Backlog,
}

enum Out {
    Console(Output),
    File(LogFile),
    Syslog(Syslog),
}

/// Starts to log. The caller opens the console, because it may have the right to do so when `start` has not.
///
/// # Errors
/// When the log file cannot be opened, or there are no descriptors left.
pub(crate) fn start(logging: &Logging, console: Option<(Output, Form)>) -> Result<(), String> {
    // Reads the time zone now: later the zone's file may be out of reach.
    localtime::now();
    let mut sinks = Vec::new();
    let mut add = |out, form| sinks.push(Sink { out, backlog: Backlog::new(form) });
    if let Some(path) = &logging.file {
        add(Out::File(LogFile::open(path, logging.size)?), line::stamped);
    }
    if let Some((output, form)) = console {
        add(Out::Console(output), form);
    }
    if logging.syslog {
        add(Out::Syslog(Syslog::new().map_err(failed("make a socket for the system log"))?), line::for_syslog);
    }
    let room = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed("make an epoll instance for the log"))?;
    let _ = LOST_LINES.set(SharedCounter::new().map_err(failed("make an event for the log"))?);
    *lock() = Some(Sinks { line: Line::new(), sinks, room: Some(room), process: process::id() });
    panic::set_hook(Box::new(log_panic));
    if log::set_logger(&Logger).is_ok() {
        log::set_max_level(logging.level);
    }
    Ok(())
}

/// A descriptor that is readable when [`flush`] has something to do. The process that calls this is the one to flush.
///
/// # Errors
/// When the log has not started, or there are no descriptors left.
pub(crate) fn room() -> Result<OwnedFd, String> {
    let mut sinks = lock();
    let sinks = sinks.as_mut().ok_or("the log has not started")?;
    sinks.process = process::id();
    let room = sinks.room.as_ref().ok_or("a child does not flush the log")?;
    room.0.try_clone().map_err(failed("duplicate the log's epoll instance"))
}

/// Writes what the sinks have room for.
pub(crate) fn flush() {
    if let Some(sinks) = lock().as_mut() {
        // Takes the event, which was asked for once.
        let _ = sinks.room.as_ref().map(|room| room.wait(&mut [EpollEvent::empty()], EpollTimeout::ZERO));
        sinks.flush();
    }
}

/// Opens the log file again under its name, after an administrator has moved it away.
pub(crate) fn reopen() {
    // The log lines below take the lock again, so this statement must release it.
    let outcome = lock().as_mut().and_then(Sinks::reopen);
    match outcome {
        None => info!("No log file to open again"),
        Some(Ok(())) => info!("Log file opened again"),
        Some(Err(error)) => error!("{error}; going on with the old one"),
    }
}

/// Stops logging to the console.
pub(crate) fn leave_console() {
    if let Some(sinks) = lock().as_mut() {
        sinks.sinks.retain(|sink| !matches!(sink.out, Out::Console(_)));
    }
}

fn lock() -> MutexGuard<'static, Option<Sinks>> {
    SINKS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hands the records of the `log` crate to the sinks.
struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if let Some(sinks) = lock().as_mut().filter(|_| self.enabled(record.metadata())) {
            sinks.log(record.level(), record.args());
        }
    }

    /// What a forked child does at its end: it loses what no sink has taken.
    fn flush(&self) {
        if let Some(sinks) = lock().as_mut() {
            sinks.forget_parent();
            sinks.flush();
            if sinks.room.is_none() {
                count_lost(sinks.sinks.iter_mut().map(|sink| sink.backlog.clear()).sum());
            }
        }
    }
}

impl Sinks {
    fn log(&mut self, level: Level, text: &impl fmt::Display) {
        self.forget_parent();
        self.line.compose(level, text);
        self.hand_out(Sink::push, None);
    }

    fn flush(&mut self) {
        self.hand_out(|sink, _, room| sink.flush(room), None);
    }

    /// Calls `act` for each sink but `except`, and tells of the one that has begun to fail on the others.
    fn hand_out(&mut self, act: impl Fn(&mut Sink, &Line, Option<&Epoll>) -> Option<io::Error>, except: Option<usize>) {
        let mut failed = None;
        for (index, sink) in self.sinks.iter_mut().enumerate().filter(|(index, _)| Some(*index) != except) {
            if let Some(error) = act(sink, &self.line, self.room.as_ref()) {
                failed = Some((index, format!("Log lines wait or are lost: cannot write to {}: {error}", sink.out)));
            }
        }
        // At most once for each sink, until it works again.
        if let Some((index, text)) = failed {
            self.line.compose(Level::Error, &text);
            self.hand_out(Sink::push, Some(index));
        }
    }

    /// In a forked child, drops the copies of what the parent will write. The child writes what it logs by itself.
    fn forget_parent(&mut self) {
        if self.process != process::id() {
            (self.process, self.room) = (process::id(), None);
            for sink in &mut self.sinks {
                sink.backlog.clear();
            }
        }
    }

    /// Opens the log file again, if there is one. When that fails, the old file stays open.
    fn reopen(&mut self) -> Option<Result<(), String>> {
        let outcome = self.sinks.iter_mut().find_map(|sink| {
            let Out::File(file) = &mut sink.out else { return None };
            let reopened = file.reopen();
            if reopened.is_ok() {
                sink.backlog.drop_rest_of_line();
            }
            sink.backlog.next_attempt = None;
            Some(reopened.map_err(|error| format!("cannot open log file {} again: {error}", file.path.display())))
        });
        self.flush();
        outcome
    }
}

impl Sink {
    /// Adds a line. Returns the error that began an outage.
    fn push(&mut self, line: &Line, room: Option<&Epoll>) -> Option<io::Error> {
        let out = &mut self.out;
        let (rest, lost) = self.backlog.push(Instant::now(), line, &mut |bytes| out.write(bytes));
        count_lost(lost);
        self.ask_for_room(rest, room)
    }

    /// Returns the error that began an outage.
    fn flush(&mut self, room: Option<&Epoll>) -> Option<io::Error> {
        let out = &mut self.out;
        let rest = self.backlog.flush(Instant::now(), &mut |bytes| out.write(bytes));
        self.ask_for_room(rest, room)
    }

    /// Has `room` tell once when a blocked sink can be written to. Returns the error of one that failed.
    fn ask_for_room(&self, rest: Rest, room: Option<&Epoll>) -> Option<io::Error> {
        match (rest, room) {
            (Rest::Failed(error), _) => return Some(error),
            (Rest::Blocked, Some(room)) => {
                let mut event = EpollEvent::new(EpollFlags::EPOLLOUT | EpollFlags::EPOLLONESHOT, 0);
                if room.modify(&self.out, &mut event) == Err(Errno::ENOENT) {
                    // If this fails, the next line is the next attempt.
                    let _ = room.add(&self.out, event);
                }
            }
            _ => {}
        }
        None
    }
}

impl Out {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        match self {
            Out::Console(output) => output.write(lines),
            Out::File(file) => file.append(lines),
            Out::Syslog(syslog) => syslog.send(lines),
        }
    }
}

impl AsFd for Out {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Out::Console(output) => output.as_fd(),
            Out::File(file) => file.as_fd(),
            Out::Syslog(syslog) => syslog.as_fd(),
        }
    }
}

impl fmt::Display for Out {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Out::Console(_) => f.write_str("the console"),
            Out::File(file) => file.path.display().fmt(f),
            Out::Syslog(_) => f.write_str("the system log"),
        }
    }
}

fn failed<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> String {
    move |error| Error::setup(step)(error).to_string()
}

fn count_lost(lines: u64) {
    if let (Some(counter), 1..) = (LOST_LINES.get(), lines) {
        counter.add(lines);
    }
}

/// The panic hook: a line in the log, as for everything else. The default one waits for standard error, and shows a
/// message as it is. The engine itself logs the panics of services on its workers; a pool that cannot start a thread is
/// reported as a start-up error. A panic while a line is logged has none.
fn log_panic(info: &PanicHookInfo<'_>) {
    let of_service = thread::current().name() == Some("worker");
    let of_pool = info.location().is_some_and(|location| location.file().contains("threadpool"));
    if let (false, Ok(mut sinks)) = (of_service || of_pool, SINKS.try_lock()) {
        sinks.iter_mut().for_each(|sinks| sinks.log(Level::Error, info));
    }
}
