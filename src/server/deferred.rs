//! Where a client waits for a moment whose address has its share of connections.
//!
//! A client that closes a connection and opens another at once may be heard in the other order: the close by a
//! worker, or a process, that gets to it later than the accept loop to the new one. So a client over the share waits
//! here, accepted and unserved, until an earlier connection of the address has ended or a short time is over. The
//! places are few, and fewer for each address; without one it is refused at once.

use std::net::{SocketAddr, TcpStream};

use heapless::Vec as Fixed;

use crate::access::Origin;
use crate::config::DEFERRED;
use crate::sys::Tick;

#[derive(Debug, Default)]
pub(super) struct Deferred(pub(super) Fixed<Pending, DEFERRED>);

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
        // They wait equally long.
        self.0.first().map(|pending| pending.until)
    }

    /// Closes a child process's copies.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// True when one more client of that address may wait.
    pub(super) fn has_place(&self, origin: Origin) -> bool {
        let of_same = self.0.iter().filter(|pending| Origin::from(pending.peer.ip()) == origin).count();
        !self.0.is_full() && of_same < DEFERRED / 4
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
        let (mut deferred, until) = (Deferred::default(), Clock::start().now());
        let places = (0..20).map(|host| {
            let kept = (0..DEFERRED).take_while(|port| {
                let peer = SocketAddr::from(([192, 0, 2, host], *port as u16));
                let place = deferred.has_place(peer.ip().into());
                if place {
                    let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                    deferred.0.push(Pending { socket, peer, listener: 0, service: 0, until }).unwrap();
                }
                place
            });
            kept.count()
        });
        assert_eq!(places.collect::<Vec<_>>()[..5], [4, 4, 4, 4, 0]);
    }
}
