//! The console: standard error, by way of `simple_logger`.
//!
//! `simple_logger` panics when standard error is a closed pipe or a full disk, and blocks when the reader of a pipe
//! does not read. So this sink prints only when the kernel has room for a line, and catches the panic.

use std::cell::Cell;
use std::io;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use log::{LevelFilter, Log, Record};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use simple_logger::SimpleLogger;

use super::line::Line;
use super::outage::Outage;

/// Milliseconds that the console may take to make room for a line. After that the console counts as broken, and lines
/// do not wait until the console has taken one again.
const TIMEOUT: u16 = 100;

thread_local! {
    /// This thread is inside `simple_logger`.
    static PRINTING: Cell<bool> = const { Cell::new(false) };
}

pub(crate) struct Console {
    sink: SimpleLogger,
    outage: Outage,
}

impl Console {
    pub(crate) fn new(level: LevelFilter) -> Console {
        Console { sink: SimpleLogger::new().with_level(level), outage: Outage::default() }
    }

    pub(crate) fn log(&mut self, target: &str, line: &Line) {
        let sink = &self.sink;
        let timeout = PollTimeout::from(if self.outage.next_attempt.is_some() { 0 } else { TIMEOUT });
        self.outage.write(Instant::now(), line, |line| print(sink, target, line, timeout));
    }
}

fn print(sink: &SimpleLogger, target: &str, line: &Line, timeout: PollTimeout) -> io::Result<()> {
    let stderr = io::stderr();
    let mut fds = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    // poll(2) reports POLLOUT together with POLLERR for a pipe without a reader. After EINTR the line counts as lost.
    poll(&mut fds, timeout)?;
    if fds[0].revents() != Some(PollFlags::POLLOUT) {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    PRINTING.set(true);
    let printed = catch_unwind(AssertUnwindSafe(|| {
        let mut record = Record::builder();
        sink.log(&record.level(line.level).target(target).args(format_args!("{}", line.text())).build());
    }));
    PRINTING.set(false);
    printed.map_err(|_| io::ErrorKind::BrokenPipe.into())
}

/// Keeps the default panic hook from printing a message, or a whole backtrace, for panics that are caught and
/// handled: those of `simple_logger`; those of services, which the engine logs; and that of the thread pool when it
/// cannot start a thread, which is reported as a start-up error.
pub(crate) fn silence_handled_panics() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let of_service = std::thread::current().name() == Some("worker");
        let of_pool = info.location().is_some_and(|location| location.file().contains("threadpool"));
        if !(PRINTING.get() || of_service || of_pool) {
            default(info);
        }
    }));
}
