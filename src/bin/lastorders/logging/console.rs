//! The console: standard error, by way of `simple_logger`.
//!
//! That panics when standard error is a closed pipe or a full disk, and waits when nobody reads it. So it is
//! asked only when the kernel has room, and what it throws is caught.

use std::cell::Cell;
use std::io;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use log::{Level, LevelFilter, Log, Record};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use simple_logger::SimpleLogger;

use super::outage::{Outage, Part};

/// Milliseconds that a console may take to make room for a line. After that it counts as broken, and is not waited
/// for again until it has taken one.
const PATIENCE: u16 = 100;

/// What every line is shown as coming from, whichever file of the source it is from.
const TARGET: &str = "lastorders";

thread_local! {
    /// This thread is inside `simple_logger`.
    static PRINTING: Cell<bool> = const { Cell::new(false) };
}

pub struct Console {
    sink: SimpleLogger,
    outage: Outage,
}

struct Broken;

impl Console {
    pub fn new(level: LevelFilter) -> Console {
        Console { sink: SimpleLogger::new().with_level(level), outage: Outage::default() }
    }

    pub fn log(&mut self, level: Level, text: &str) {
        let sink = &self.sink;
        let patience = PollTimeout::from(if self.outage.lasts() { 0 } else { PATIENCE });
        self.outage.pass(Instant::now(), |part| {
            let mut record = Record::builder();
            record.target(TARGET);
            match part {
                Part::Line => print(sink, &record.level(level).args(format_args!("{text}")).build(), patience),
                Part::Lost(lost) => {
                    record.level(Level::Warn);
                    print(sink, &record.args(format_args!("{lost} log lines were lost here")).build(), patience)
                }
            }
        });
    }
}

fn print(sink: &SimpleLogger, record: &Record<'_>, patience: PollTimeout) -> Result<(), Broken> {
    let stderr = io::stderr();
    let mut fds = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    // A pipe without a reader has an error and room alike; EINTR is not worth a loop.
    let ready = poll(&mut fds, patience).is_ok();
    if !ready || fds[0].revents() != Some(PollFlags::POLLOUT) {
        return Err(Broken);
    }
    PRINTING.set(true);
    let printed = catch_unwind(AssertUnwindSafe(|| sink.log(record)));
    PRINTING.set(false);
    printed.map_err(|_| Broken)
}

/// Leaves those panics without a message that are caught and dealt with: the console's, and those of services,
/// which the engine logs, one line for a burst; and the thread pool's when it gets no thread, which is a start-up
/// error. The default hook would print a message, or a whole backtrace, for each.
pub fn quiet_panics() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let of_service = std::thread::current().name() == Some("worker");
        let of_pool = info.location().is_some_and(|location| location.file().contains("threadpool"));
        if !(PRINTING.get() || of_service || of_pool) {
            default(info);
        }
    }));
}
