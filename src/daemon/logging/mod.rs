//! The sinks of the log: the console, and a file and the system log where the options ask for them.
//!
//! In come the records of the `log` crate. `sinks` makes each into one `line`, escaped and bounded, and hands it to
//! `console`, `file` and `syslog`. No thread ever waits for one of them: lines that a sink does not take wait in its
//! `backlog`, which the accept loop flushes, and lines for which there is no room are counted. The file is of bounded
//! size.

mod backlog;
mod console;
mod file;
mod line;
mod sinks;
mod syslog;

pub(crate) use self::console::open as console;
pub(crate) use self::file::{LogFile, old_name, size};
pub(crate) use self::sinks::{Logging, flush, leave_console, reopen, room, start};
