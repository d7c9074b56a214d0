//! Clients that wait for a moment because their address has its share of connections.
//!
//! When a client closes a connection and opens another at once, the accept loop may see the new one before a worker, or
//! a child process, sees the close. So a client over the share waits here, accepted and unserved, until an earlier
//! connection of the address has ended or a short time is over. The places are few, and fewer for each address; a
//! client that gets none is refused at once.

use std::net::{SocketAddr, TcpStream};

use heapless::Vec as Fixed;

use crate::access::Origin;
use crate::config::DEFERRED;
use crate::sys::Tick;

#[derive(Debug, Default)]
pub(super) struct Deferred(Fixed<Pending, DEFERRED>);

/// An accepted client that waits for a share of its address.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) socket: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) listener: usize,
    pub(super) service: usize,
    pub(super) until: Tick,
}

impl Deferred {
    /// When the time of the next client is over.
    pub(super) fn deadline(&self) -> Option<Tick> {
        // All wait equally long, so the first is the first to be due.
        self.0.first().map(|pending| pending.until)
    }

    /// Closes a child process's copies.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Keeps a client, or hands it back when there is no place, or none for its address.
    pub(super) fn push(&mut self, pending: Pending) -> Result<(), Pending> {
        let origin = Origin::from(pending.peer.ip());
        let of_same = self.0.iter().filter(|other| Origin::from(other.peer.ip()) == origin).count();
        if of_same < DEFERRED / 4 { self.0.push(pending) } else { Err(pending) }
    }

    pub(super) fn get(&self, index: usize) -> Option<&Pending> {
        self.0.get(index)
    }

    pub(super) fn remove(&mut self, index: usize) -> Pending {
        self.0.remove(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Clock;
    use std::net::TcpListener;

    #[test]
    fn an_address_has_a_quarter_of_the_places() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (mut deferred, until) = (Deferred::default(), Clock::default().now());
        let places = (0..20).map(|host| {
            let kept = (0..DEFERRED).take_while(|port| {
                let peer = SocketAddr::from(([192, 0, 2, host], *port as u16));
                let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                deferred.push(Pending { socket, peer, listener: 0, service: 0, until }).is_ok()
            });
            kept.count()
        });
        assert_eq!(places.collect::<Vec<_>>()[..5], [4, 4, 4, 4, 0]);
    }
}
