//! The stream adapter: a closure over a blocking connection, in the manner of a socket server's handler.

use std::io::{self, BufRead, Read, Write};
use std::net::SocketAddr;

use super::{Flow, Service, Wait};
use crate::connection::{Connection, Fill};

/// A service made of a closure that reads and writes as it likes, and so holds its worker while it runs.
///
/// It is started when the client's first bytes arrive, so that a silent client holds no worker, and the
/// connection is closed when it returns. Use it for what does not fit into requests and replies; with as many
/// busy stream clients as workers, everybody else waits.
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
    /// A service that runs `handler` once for each connection.
    pub fn new(handler: F) -> Streams<F> {
        Streams(handler)
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
        let mut stream = Stream { connection, cut: false };
        (self.0)(&mut stream)?;
        stream.flush()?;
        // What a handler that was cut short has not told its client, the notice does.
        if stream.cut && !stream.connection.input().has_ended() {
            let notice = self.notice();
            stream.connection.mark_notified();
            stream.connection.output().push(notice);
        }
        Ok(Flow::Close)
    }
}

/// A connection as a blocking stream: [`Read`], [`BufRead`] and [`Write`] over the connection's own buffers.
///
/// Reading waits at most `idle_timeout` for the first byte after a write, and at most `request_timeout` from
/// that byte until the next write; a write waits at most `write_timeout` without progress. What takes longer is
/// [`TimedOut`](io::ErrorKind::TimedOut). When the server shuts down, reading finds the end of input as soon as
/// what has arrived is read. Output is sent when it fills the buffer, on `flush`, and before a read waits.
pub struct Stream<'a> {
    connection: &'a mut Connection,
    /// True once the shutdown was shown to the handler as end of input.
    cut: bool,
}

impl Stream<'_> {
    /// The client's address.
    pub fn peer(&self) -> SocketAddr {
        self.connection.peer()
    }

    /// Makes the input buffer non-empty, or finds the end of input.
    fn fetch(&mut self) -> io::Result<()> {
        while self.connection.input().is_empty() && !self.connection.input().has_ended() && !self.cut {
            self.flush()?;
            let filled = self.connection.fill()?;
            self.connection.moved();
            match filled {
                Fill::Bytes | Fill::Ended => {}
                Fill::Nothing if self.connection.is_draining() => self.cut = true,
                Fill::Nothing => {
                    let wait = self.connection.awaits_reply().map_or(Wait::Idle, |_| Wait::Request);
                    self.connection.block(wait)?;
                }
            }
        }
        Ok(())
    }
}

impl BufRead for Stream<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.fetch()?;
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
        self.connection.request_answered();
        Ok(self.connection.output().push(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.connection.flush()? {
            self.connection.block(Wait::Write)?;
        }
        self.connection.moved();
        Ok(())
    }
}
