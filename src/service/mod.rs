//! What a user implements: a [`Service`], or one of the adapters that turn a closure into one.
//!
//! The engine calls a service with a connection on which bytes are waiting; the service takes what it can from
//! the input, puts its answer into the output, and returns. It never waits for a client: a request that is not
//! whole yet stays in the input and the connection is parked until more arrives.

mod host;
mod lines;
mod stream;

use std::io;

use crate::config::NOTICE;
use crate::connection::Connection;

pub(crate) use host::{Host, Hosted};
pub(crate) use lines::too_long;
pub use lines::{Lines, Reply};
pub use stream::{Stream, Streams};

/// What becomes of a connection after a call of its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Keep it open.
    Continue,
    /// Send what is in the output, then close it.
    Close,
}

/// What a connection was waiting for when its time was up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The first byte of a request.
    Idle,
    /// The rest of a request.
    Request,
    /// Room for a reply that the client does not read.
    Write,
}

/// Why a connection was closed.
#[derive(Debug)]
#[non_exhaustive]
pub enum CloseReason {
    /// The client closed it.
    Left,
    /// The service closed it.
    Finished,
    /// A deadline passed.
    TimedOut(Wait),
    /// The client reset it, or vanished.
    Reset,
    /// The client had closed it when a reply was sent.
    BrokenPipe,
    /// The service or the network failed.
    Error(io::Error),
    /// A request was longer than the input buffer.
    TooLong,
    /// The service panicked.
    Panicked,
    /// It was closed to make room for another client.
    Shed,
    /// The server shut down and the client had its notice.
    Shutdown,
    /// The grace time ended before the client left.
    Forced,
    /// The process that served it was ended by this signal (forking server). Only logs and counters tell of it:
    /// the service, too, is gone.
    Killed(i32),
}

impl From<io::Error> for CloseReason {
    fn from(error: io::Error) -> CloseReason {
        match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::HostUnreachable => {
                CloseReason::Reset
            }
            io::ErrorKind::BrokenPipe => CloseReason::BrokenPipe,
            // Keep-alive, or TCP_USER_TIMEOUT. Without an errno it is a deadline of our own.
            io::ErrorKind::TimedOut if error.raw_os_error().is_some() => CloseReason::Reset,
            _ => CloseReason::Error(error),
        }
    }
}

/// A protocol, shared by all its connections and by all workers.
///
/// The calls for one connection never overlap. Any of them may panic: that costs the connection, nothing else.
pub trait Service: Send + Sync + 'static {
    /// The state of one connection, kept while it is parked. Room for all of them is made at start.
    type Session: Send + 'static;

    /// A client was admitted. The service may greet it by writing to the output.
    ///
    /// # Errors
    /// An error closes the connection with [`CloseReason::Error`]; `close` is not called.
    fn open(&self, connection: &mut Connection) -> io::Result<Self::Session>;

    /// Bytes are waiting in the input, or the input has ended with some left.
    ///
    /// The output is empty at each call, so a reply of up to `Limits::buffer` bytes always has room. To wait
    /// for the rest of a request, leave it in the input and return [`Flow::Continue`]: the next call is made
    /// when more has arrived. Input left at the end, or a request that fills the buffer and is not taken, closes
    /// the connection.
    ///
    /// This runs on a worker. While it blocks, that worker serves nobody else.
    ///
    /// # Errors
    /// An error closes the connection with [`CloseReason::Error`].
    fn serve(&self, connection: &mut Connection, session: &mut Self::Session) -> io::Result<Flow>;

    /// The server shuts down. The default writes the [`notice`](Service::notice) and closes.
    ///
    /// All requests that had arrived are answered by now. [`Flow::Continue`] keeps serving the client until it
    /// leaves or the grace time ends. For a parked connection this runs on the accept loop, so it must not
    /// block.
    ///
    /// # Errors
    /// An error closes the connection with [`CloseReason::Error`].
    fn shutdown(&self, connection: &mut Connection, _session: &mut Self::Session) -> io::Result<Flow> {
        connection.output().push(self.notice());
        Ok(Flow::Close)
    }

    /// The connection is closed. For deadlines and at shutdown this runs on the accept loop, so it must not
    /// block.
    fn close(&self, _session: Self::Session, _reason: &CloseReason) {}

    /// True promises that no call of this service ever waits: for a disk, for a lock that is held for long, for
    /// another server. Then [`open`](Service::open) runs on the accept loop; and where all services of a server
    /// promise it, the worker that found a request answers it before anybody is woken to take its place. Each of
    /// the two saves a wake-up.
    fn never_blocks(&self) -> bool {
        false
    }

    /// What a client is told at shutdown, at most 64 bytes: `SHUTDOWN` for raw services, with a newline for
    /// line services.
    fn notice(&self) -> &'static [u8] {
        NOTICE.as_bytes()
    }

    /// True when what one client does must be seen by another. Such a service cannot be offered by one process
    /// per connection ([`Builder::forking`](crate::Builder::forking)): each would have its own copy.
    fn shares_state(&self) -> bool {
        false
    }
}
