//! Datagrams: what a user implements to answer UDP packets, and the sockets and groups that they come from.
//!
//! A datagram is a whole request: nothing of its sender is kept, and whoever answers has at most one datagram to
//! say. [`socket`] binds, receives and sends, [`group`] says where a multicast group is joined, [`membership`]
//! keeps it joined, and [`links`] tells when it may have to be joined again. Who serves a socket, and when, is
//! the engine's.

mod group;
mod links;
mod membership;
mod socket;

use std::io;
use std::net::SocketAddr;

use crate::service::Reply;

pub use group::{Group, Interface};
pub(crate) use membership::Memberships;
pub(crate) use socket::{Packet, Port};

/// What becomes of the reply after a call of a datagram service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Send what is in the reply to the sender, be it an empty datagram.
    Reply,
    /// Send nothing.
    Silence,
}

/// A protocol of single datagrams, shared by all its sockets and by all workers.
///
/// One worker at a time serves one socket, in the order in which its datagrams arrived. The sender's address is
/// what the packet says: anybody can write anybody's there, so an answer much larger than its request makes the
/// server a weapon against others (RFC 8085, section 6.2).
pub trait Datagram: Send + Sync + 'static {
    /// A datagram of up to [`DATAGRAM`](crate::config::DATAGRAM) bytes has arrived, perhaps an empty one. The
    /// reply has room for as many bytes.
    ///
    /// # Errors
    /// An error drops the reply, and is counted and logged. So is a panic.
    fn receive(&self, packet: &[u8], from: SocketAddr, reply: &mut Reply) -> io::Result<Answer>;

    /// A longer one has arrived; the kernel has thrown away all but its `start`. The default ignores it.
    ///
    /// # Errors
    /// As for [`receive`](Datagram::receive).
    fn oversized(&self, start: &[u8], from: SocketAddr, reply: &mut Reply) -> io::Result<Answer> {
        let _ = (start, from, reply);
        Ok(Answer::Silence)
    }

    /// True promises that no call of this service ever waits; see
    /// [`Service::never_blocks`](crate::Service::never_blocks).
    fn never_blocks(&self) -> bool {
        false
    }
}

/// A datagram service made of a closure: packet and sender in, at most one reply to the sender out. Datagrams
/// that are too long are ignored.
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
pub struct Datagrams<F> {
    answer: F,
}

impl<F> Datagrams<F>
where
    F: Fn(&[u8], SocketAddr, &mut Reply) -> io::Result<Answer> + Send + Sync + 'static,
{
    /// A datagram service that calls `answer` with each datagram, its sender, and an output to answer into.
    pub fn new(answer: F) -> Datagrams<F> {
        Datagrams { answer }
    }
}

impl<F> Datagram for Datagrams<F>
where
    F: Fn(&[u8], SocketAddr, &mut Reply) -> io::Result<Answer> + Send + Sync + 'static,
{
    fn receive(&self, packet: &[u8], from: SocketAddr, reply: &mut Reply) -> io::Result<Answer> {
        (self.answer)(packet, from, reply)
    }
}
