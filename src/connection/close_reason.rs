//! How a connection goes on, what it waits for, and why it was closed.
//!
//! A service returns a [`Flow`]. The engine turns an expired deadline, an error of a socket, or the end of a request
//! into one [`CloseReason`], which the service, the log and the counters get. Nothing here touches a socket.

use std::{fmt, io};

use crate::stats::{Counter, Counters};
use crate::sys::SignalName;

/// What a service wants done with a connection after a call.
///
/// The two variants are all that there are, so that a service that wraps another can match on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Flow {
    /// Keep the connection open.
    Continue,
    /// Send what is in the output, then close the connection.
    Close,
}

/// What a connection was waiting for when its deadline passed: one variant for each timeout in
/// [`Limits`](crate::Limits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wait {
    /// The first byte of a request (`idle_timeout`).
    Idle,
    /// The rest of a request (`request_timeout`).
    Request,
    /// Room for a reply that the client does not read (`write_timeout`).
    Write,
}

/// Why a connection was closed. Its `Display` is what the log says: `idle timeout`.
#[derive(Debug)]
#[non_exhaustive]
pub enum CloseReason {
    /// The client closed it.
    Left,
    /// The service closed it.
    Finished,
    /// A deadline passed.
    TimedOut(Wait),
    /// The client reset it, or the client's machine no longer answers.
    Reset,
    /// The client had closed it before a reply was sent.
    BrokenPipe,
    /// The service or the network failed.
    Error(io::Error),
    /// A request was longer than the input buffer.
    TooLong,
    /// The service panicked.
    Panicked,
    /// The server closed it to make room for another client.
    Shed,
    /// The server shut down, and the client had its notice.
    Shutdown,
    /// The grace time ended before the client left.
    Forced,
    /// This signal ended the process that served the connection (forking server). The session died with that
    /// process, so only the log and the counters of the parent process get this reason.
    Killed(i32),
}

impl CloseReason {
    /// The counter of the connections that ended so.
    pub(crate) fn counter<'a>(&self, counters: &'a Counters) -> &'a Counter {
        match self {
            CloseReason::Left => &counters.left,
            CloseReason::Finished => &counters.finished,
            CloseReason::TimedOut(Wait::Idle) => &counters.timed_out_idle,
            CloseReason::TimedOut(Wait::Request) => &counters.timed_out_request,
            CloseReason::TimedOut(Wait::Write) => &counters.timed_out_write,
            CloseReason::Reset => &counters.resets,
            CloseReason::BrokenPipe => &counters.pipes,
            CloseReason::Error(_) => &counters.errors,
            CloseReason::TooLong => &counters.too_long,
            CloseReason::Panicked => &counters.panics,
            CloseReason::Shed => &counters.shed,
            CloseReason::Shutdown => &counters.drained,
            CloseReason::Forced => &counters.forced,
            CloseReason::Killed(_) => &counters.killed,
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CloseReason::Left => "closed by the client",
            CloseReason::Finished => "closed by the service",
            CloseReason::TimedOut(Wait::Idle) => "idle timeout",
            CloseReason::TimedOut(Wait::Request) => "request timeout",
            CloseReason::TimedOut(Wait::Write) => "write timeout",
            CloseReason::Reset => "reset",
            CloseReason::BrokenPipe => "broken pipe",
            CloseReason::Error(error) => return error.fmt(f),
            CloseReason::TooLong => "line too long",
            CloseReason::Panicked => "panic",
            CloseReason::Shed => "shed",
            CloseReason::Shutdown => "shutdown",
            CloseReason::Forced => "end of the grace time",
            CloseReason::Killed(number) => return write!(f, "killed by {}", SignalName(*number)),
        })
    }
}

impl From<io::Error> for CloseReason {
    fn from(error: io::Error) -> CloseReason {
        match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::HostUnreachable => {
                CloseReason::Reset
            }
            io::ErrorKind::BrokenPipe => CloseReason::BrokenPipe,
            // The kernel reports ETIMEDOUT after keep-alive or TCP_USER_TIMEOUT has found no client. A deadline of
            // the server itself has no errno.
            io::ErrorKind::TimedOut if error.raw_os_error().is_some() => CloseReason::Reset,
            _ => CloseReason::Error(error),
        }
    }
}
