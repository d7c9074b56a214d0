//! The trait that a TCP service implements.
//!
//! The engine owns the connections and decides when to call; a service only reads the input, writes the output, and
//! says whether the connection stays open. It must not keep a reference to a connection.

use std::io;

use crate::config::NOTICE;
use crate::connection::{CloseReason, Connection, Flow};

/// A protocol over TCP, shared by all its connections and by all workers.
///
/// The calls for one connection never overlap; calls for different connections do. A panic in any of them closes
/// that connection and nothing else. Under [`Builder::forking`](crate::Builder::forking) the process of the
/// connection makes all calls.
///
/// An error of a call closes the connection with [`CloseReason::Error`]; an error that says that the client reset
/// the connection, closed it or timed out, with the reason of that name.
pub trait Service: Send + Sync + 'static {
    /// The state of one connection, kept while no thread works on it. The server allocates room for one per
    /// connection at start.
    type Session: Send + 'static;

    /// The server admitted a client. The service may write a greeting to the output.
    ///
    /// A worker calls this; the accept loop calls it if the service [`never_blocks`](Service::never_blocks).
    ///
    /// # Errors
    /// An error closes the connection, and [`close`](Service::close) is not called.
    fn open(&self, connection: &mut Connection) -> io::Result<Self::Session>;

    /// Bytes are waiting in the input, or the client has finished sending and left some there.
    ///
    /// The output is empty at each call, so a reply of up to [`Limits::buffer`](crate::Limits::buffer) bytes
    /// always has room. To wait for the rest of a request, leave it in the input and return [`Flow::Continue`]: the
    /// next call comes when more bytes have arrived. If the service takes nothing although the input is full or the
    /// client has finished sending, the server closes the connection.
    ///
    /// A client may send many requests at once, whose replies together do not fit. A service that answers several in
    /// one call stops when the output's [`room`](crate::Output::room) is less than the next reply, leaves that request
    /// in the input, and returns [`Flow::Continue`]. The server sends the output and calls `serve` again for the rest.
    /// To write more than the room is an error, which would close the connection.
    ///
    /// ```
    /// use lastorders::{Connection, Flow, Service};
    /// use std::io::{self, Write};
    ///
    /// struct Shout;
    ///
    /// impl Service for Shout {
    ///     type Session = ();
    ///
    ///     fn open(&self, _: &mut Connection) -> io::Result<()> {
    ///         Ok(())
    ///     }
    ///
    ///     fn serve(&self, connection: &mut Connection, (): &mut ()) -> io::Result<Flow> {
    ///         let (input, output) = connection.split();
    ///         while let Some((taken, line)) = input.line() {
    ///             if output.room() < line.len() + 1 {
    ///                 break; // The server sends what is there, and calls again.
    ///             }
    ///             output.write_all(&line.to_ascii_uppercase())?;
    ///             output.write_all(b"\n")?;
    ///             input.consume(taken);
    ///         }
    ///         Ok(Flow::Continue)
    ///     }
    /// }
    /// ```
    ///
    /// A worker calls this. While the call blocks, that worker serves no other client.
    ///
    /// # Errors
    /// An error closes the connection, as in the trait's description.
    fn serve(&self, connection: &mut Connection, session: &mut Self::Session) -> io::Result<Flow>;

    /// The server shuts down. The default writes the [`notice`](Service::notice) and closes the connection.
    ///
    /// The client has its answers to all requests that arrived before. [`Flow::Continue`] keeps serving the client
    /// until it leaves or the grace time ends.
    ///
    /// A worker or the accept loop calls this. It must not block, because the accept loop then stands still.
    ///
    /// # Errors
    /// An error closes the connection, as in the trait's description.
    fn shutdown(&self, connection: &mut Connection, _session: &mut Self::Session) -> io::Result<Flow> {
        connection.output().push(self.notice());
        Ok(Flow::Close)
    }

    /// The server closes the connection. The default drops the session.
    ///
    /// A worker calls this, or, at a deadline and during a shutdown, the accept loop. It must not block.
    fn close(&self, _session: Self::Session, _reason: &CloseReason) {}

    /// True promises that no call of this service waits for a disk, for another server, or for a lock that is held
    /// longer than it takes to copy a request.
    ///
    /// The accept loop then calls [`open`](Service::open) itself, and does not wake a worker for it. If all services
    /// of a server promise this, a worker also answers the request that it found before it wakes another worker.
    /// The builder and the accept loop ask; the answer must not change.
    fn never_blocks(&self) -> bool {
        false
    }

    /// The text that the server sends to a client at shutdown, at most 64 bytes. The default is `SHUTDOWN`; a
    /// service of lines adds a newline.
    fn notice(&self) -> &'static [u8] {
        NOTICE.as_bytes()
    }

    /// True when one client must see what another client did.
    ///
    /// The builder refuses to serve such a service with one process per connection
    /// ([`Builder::forking`](crate::Builder::forking)), because each process has its own copy of the state.
    fn shares_state(&self) -> bool {
        false
    }
}
