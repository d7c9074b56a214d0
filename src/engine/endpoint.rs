//! What a slot holds: nothing, a client's connection, or a datagram socket.

use std::os::fd::{AsRawFd, RawFd};

use super::ownership::{Idle, Occupant};
use crate::connection::Connection;
use crate::datagram::UdpEndpoint;
use crate::sys::Tick;

/// One end of a conversation, which a driver moves on.
#[derive(Debug, Default)]
#[allow(clippy::large_enum_variant)] // Nearly every slot is for a connection.
pub(crate) enum Endpoint {
    #[default]
    Free,
    Tcp(Connection),
    Udp(UdpEndpoint),
}

impl Endpoint {
    /// Whether it may be closed to make room for another client.
    pub(super) fn idle(&self) -> Idle {
        match self {
            Endpoint::Tcp(connection) if connection.is_idle() => Idle::Yes,
            _ => Idle::No,
        }
    }

    /// When the accept loop must look at it, if it is still parked then.
    pub(super) fn deadline(&self) -> Option<Tick> {
        match self {
            Endpoint::Tcp(connection) => connection.deadline(),
            Endpoint::Free | Endpoint::Udp(_) => None,
        }
    }
}

impl Occupant for Endpoint {
    fn socket(&self) -> Option<RawFd> {
        match self {
            Endpoint::Tcp(connection) => connection.socket().map(AsRawFd::as_raw_fd),
            Endpoint::Free | Endpoint::Udp(_) => None,
        }
    }

    fn mark_hung_up(&mut self) {
        if let Endpoint::Tcp(connection) = self {
            connection.hung_up = true;
        }
    }

    fn abandon(&mut self) {
        if let Endpoint::Tcp(connection) = self {
            connection.context().counters.panics.add(1);
        }
    }
}
