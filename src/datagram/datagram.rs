//! The trait that a UDP service implements, and the adapter that makes one of a closure.
//!
//! A packet and its sender's address come in, and at most one reply to that address goes out. A service must not
//! trust the address: any machine can write another machine's address into a packet.

use std::net::SocketAddr;
use std::{fmt, io};

use crate::service::Reply;

/// What a datagram service wants done with its reply.
///
/// The two variants are all that there are, so that a service that wraps another can match on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Answer {
    /// Send the reply to the sender, as an empty datagram if nothing was written to it. The server drops a reply that
    /// the kernel cannot send at once, and counts it.
    Reply,
    /// Send nothing.
    Silence,
}

/// A protocol of single datagrams, shared by all its sockets and by all workers.
///
/// One worker at a time serves a socket, in the order in which its datagrams arrived. While a call blocks, that worker
/// serves no other client. A panic drops the reply, and is counted and logged.
///
/// A sender can forge its address. A reply that is much larger than its request lets an attacker flood the owner of
/// that address (RFC 8085, section 6.2).
pub trait Datagram: Send + Sync + 'static {
    /// A datagram of 0 to [`DATAGRAM`](crate::config::DATAGRAM) bytes has arrived. The reply has room for
    /// `DATAGRAM` bytes.
    ///
    /// # Errors
    /// The server drops the reply, and counts and logs the error.
    fn receive(&self, packet: &[u8], from: SocketAddr, reply: &mut Reply) -> io::Result<Answer>;

    /// A datagram of more than [`DATAGRAM`](crate::config::DATAGRAM) bytes has arrived. The kernel has discarded all
    /// but its first `DATAGRAM` bytes, `start`. The default sends nothing.
    ///
    /// # Errors
    /// As for [`receive`](Datagram::receive).
    fn oversized(&self, start: &[u8], from: SocketAddr, reply: &mut Reply) -> io::Result<Answer> {
        let _ = (start, from, reply);
        Ok(Answer::Silence)
    }

    /// True promises that no call of this service waits, as
    /// [`Service::never_blocks`](crate::Service::never_blocks) says in full.
    fn never_blocks(&self) -> bool {
        false
    }
}

/// A datagram service made of a closure. The adapter ignores datagrams of more than
/// [`DATAGRAM`](crate::config::DATAGRAM) bytes.
///
/// ```
/// use lastorders::{Answer, Datagrams};
///
/// let echo = Datagrams::new(|packet, _from, reply| {
///     reply.push(packet);
///     Ok(Answer::Reply)
/// });
/// # let _ = echo;
/// ```
pub struct Datagrams<F>(F);

impl<F> Datagrams<F>
where
    F: Fn(&[u8], SocketAddr, &mut Reply) -> io::Result<Answer> + Send + Sync + 'static,
{
    /// A datagram service that calls `answer` with each datagram, its sender, and the buffer for the reply. A worker
    /// calls `answer`, whose errors are those of [`Datagram::receive`].
    pub fn new(answer: F) -> Datagrams<F> {
        Datagrams(answer)
    }
}

impl<F> fmt::Debug for Datagrams<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Datagrams(..)")
    }
}

impl<F> Datagram for Datagrams<F>
where
    F: Fn(&[u8], SocketAddr, &mut Reply) -> io::Result<Answer> + Send + Sync + 'static,
{
    fn receive(&self, packet: &[u8], from: SocketAddr, reply: &mut Reply) -> io::Result<Answer> {
        (self.0)(packet, from, reply)
    }
}
