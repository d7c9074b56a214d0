//! Where log lines go: the console, as long as there is one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use log::{LevelFilter, Log, Metadata, Record};
use simple_logger::SimpleLogger;

/// The console sink. `simple_logger` panics when standard error is a closed pipe or a full disk; that must not
/// end anything, so the first failure switches it off.
struct Console {
    sink: SimpleLogger,
    broken: AtomicBool,
}

impl Log for Console {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.sink.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.broken.load(Ordering::Relaxed) {
            return;
        }
        if catch_unwind(AssertUnwindSafe(|| self.sink.log(record))).is_err() {
            self.broken.store(true, Ordering::Relaxed);
        }
    }

    fn flush(&self) {}
}

/// Sends log lines of `level` and above to standard error.
pub fn start(level: LevelFilter) {
    quiet_workers();
    let console = Console { sink: SimpleLogger::new().with_level(level), broken: AtomicBool::new(false) };
    if log::set_boxed_logger(Box::new(console)).is_ok() {
        log::set_max_level(level);
    }
}

/// The engine catches the panics of services and logs them, one line for a burst; the default hook would add
/// a message, or a whole backtrace, for each.
fn quiet_workers() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().name() != Some("worker") {
            default(info);
        }
    }));
}
