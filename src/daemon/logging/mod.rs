//! The sinks of the log: the console, and a file and the system log where the options ask for them.
//!
//! In come the records of the `log` crate. `sinks` makes each into one `line`, escaped and bounded, and hands it to
//! `console`, `file` and `syslog`. A sink that fails loses lines and says later how many (`outage`). It never ends
//! the process, and never holds up the thread that logs for long. The file is of bounded size.

mod console;
mod file;
mod line;
mod outage;
mod sinks;
mod syslog;

pub(crate) use self::file::{old_name, size};
pub(crate) use self::sinks::{Logging, leave_console, reopen, start};
