//! The system log, by way of syslog(3), as `lastorders[PID]` of the facility `daemon`.
//!
//! The C library connects to `/dev/log`, connects again when the daemon there was restarted, and drops lines that
//! it cannot deliver. The system log stamps the lines itself, so only the text of a line goes there.

use log::Level;
use nix::syslog::{Facility, LogFlags, Severity, openlog, syslog};

use super::line::Line;

/// Bytes of the longest text: RFC 3164 allows 1,024 with everything before it.
const LONGEST: usize = 960;

/// Opens the system log, of which a process has only one.
///
/// # Errors
/// When the C library refuses to.
pub(crate) fn open() -> Result<(), String> {
    // LOG_NDELAY connects now: later the process may not be allowed to reach the socket.
    openlog(Some(c"lastorders"), LogFlags::LOG_PID | LogFlags::LOG_NDELAY, Facility::LOG_DAEMON)
        .map_err(|error| format!("cannot open the system log: {error}"))
}

pub(crate) fn log(line: &Line) {
    let severity = match line.level {
        Level::Error => Severity::LOG_ERR,
        Level::Warn => Severity::LOG_WARNING,
        Level::Info => Severity::LOG_INFO,
        Level::Debug | Level::Trace => Severity::LOG_DEBUG,
    };
    let text = line.text();
    let end = (0..=LONGEST.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    let _ = syslog(severity, &text[..end.unwrap_or(0)]);
}
