//! The stream adapter: a closure reads and writes a blocking connection, like the handler of Python's socketserver.
//!
//! The closure runs on a worker, and may wait for its client there. The adapter ends each wait at its deadline, and
//! ends the input at shutdown, so that no client keeps a worker for ever.

use std::fmt;
use std::io::{self, BufRead, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Service;
use crate::connection::{Connection, Flow, Interest, Notice, Received, Wait};

/// A service made of a closure that reads and writes a blocking [`Stream`], and keeps its worker until it returns.
///
/// A worker calls the closure when the first bytes of the client have arrived, so a silent client keeps no worker.
/// When the closure returns, the server sends the rest of the output and closes the connection. Use it for protocols
/// that do not fit into requests and replies. Once every worker runs a closure, all other clients wait.
///
/// ```
/// use lastorders::Streams;
/// use std::io::{BufRead, Write};
///
/// let greeter = Streams::new(|client| {
///     let mut name = String::new();
///     client.read_line(&mut name)?;
///     writeln!(client, "Hello, {}!", name.trim_end())
/// });
/// # let _ = greeter;
/// ```
pub struct Streams<F>(F);

impl<F> Streams<F>
where
    F: Fn(&mut Stream<'_>) -> io::Result<()> + Send + Sync + 'static,
{
    /// A service that calls `handler` once for each connection. An error of `handler` closes the connection with
    /// [`CloseReason::Error`](crate::CloseReason::Error); the error of a `Stream` whose wait ran out closes it with
    /// [`CloseReason::TimedOut`](crate::CloseReason::TimedOut).
    pub fn new(handler: F) -> Streams<F> {
        Streams(handler)
    }
}

impl<F> fmt::Debug for Streams<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Streams(..)")
    }
}

impl<F> Service for Streams<F>
where
    F: Fn(&mut Stream<'_>) -> io::Result<()> + Send + Sync + 'static,
{
    type Session = ();

    fn open(&self, _: &mut Connection) -> io::Result<()> {
        Ok(())
    }

    fn serve(&self, connection: &mut Connection, (): &mut ()) -> io::Result<Flow> {
        let mut stream = Stream { connection, saw_drain: false, request: Some(Instant::now()) };
        let outcome = (self.0)(&mut stream).and_then(|()| stream.flush());
        // The handler saw the end of its input although the client may still send, so the notice tells the client why,
        // be that end an error to the handler or not. All input is received and read, so it is not called again.
        if stream.saw_drain && !stream.connection.input().has_ended() && !stream.connection.has_output() {
            return Ok(Flow::Continue);
        }
        outcome.map(|()| Flow::Close)
    }
}

/// A connection as a blocking stream: [`Read`], [`BufRead`] and [`Write`] over the connection's own buffers.
///
/// A read blocks for at most `idle_timeout` until the first byte after a write, and for at most `request_timeout` from
/// that byte until the next write. A write blocks for at most `write_timeout` without progress. A longer wait is an
/// error of the kind [`TimedOut`](io::ErrorKind::TimedOut). The timeouts are those of [`Limits`](crate::Limits); zero is
/// no limit.
///
/// When the server shuts down, a read returns the bytes that have arrived, and then the end of input. Once the grace
/// time is over, a write is an error of the kind [`ConnectionAborted`](io::ErrorKind::ConnectionAborted). The stream
/// sends its output when the buffer is full, on `flush`, and before a read blocks.
#[derive(Debug)]
pub struct Stream<'a> {
    connection: &'a mut Connection,
    /// True once the handler saw the shutdown as the end of its input.
    saw_drain: bool,
    /// Since when the request in hand is being received. A handler may take longer than a tick stays comparable.
    request: Option<Instant>,
}

impl Stream<'_> {
    /// The client's address.
    pub fn peer(&self) -> SocketAddr {
        self.connection.peer()
    }

    /// Blocks until the input buffer has bytes, or the input has ended.
    fn await_input(&mut self) -> io::Result<()> {
        while self.connection.input().is_empty() && !self.connection.input().has_ended() && !self.saw_drain {
            self.flush()?;
            if self.connection.is_draining() && self.connection.notice == Notice::NotDue {
                self.connection.limit_input();
            }
            match self.connection.receive()? {
                Received::Bytes => self.request = self.request.or_else(|| Some(Instant::now())),
                Received::End => {}
                Received::Nothing if self.connection.notice != Notice::NotDue => self.saw_drain = true,
                Received::Nothing => self.connection.block(Interest::Input, self.input_timeout())?,
            }
        }
        Ok(())
    }

    /// How long the handler may wait for input now.
    fn input_timeout(&self) -> Option<Duration> {
        match self.request {
            Some(since) => Some(self.connection.timeout(Wait::Request)?.saturating_sub(since.elapsed())),
            None => self.connection.timeout(Wait::Idle),
        }
    }
}

impl BufRead for Stream<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.await_input()?;
        Ok(self.connection.input().bytes())
    }

    fn consume(&mut self, count: usize) {
        self.connection.input().consume(count);
    }
}

impl Read for Stream<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut bytes = self.fill_buf()?;
        let count = bytes.read(into)?;
        self.consume(count);
        Ok(count)
    }
}

impl Write for Stream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.connection.output().room() == 0 {
            self.flush()?;
        }
        self.connection.start_next_request();
        self.request = (!self.connection.input().is_empty()).then(Instant::now);
        Ok(self.connection.output().push(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.connection.has_output() {
            return Ok(());
        }
        self.connection.tick();
        while !self.connection.flush()? {
            self.connection.block(Interest::Output, self.connection.timeout(Wait::Write))?;
        }
        // A handler that writes without end would keep its worker.
        match self.connection.context().is_force_closing() {
            true => Err(io::ErrorKind::ConnectionAborted.into()),
            false => Ok(()),
        }
    }
}
