//! Where a client waits for a moment whose address has its share of connections.
//!
//! A client that closes a connection and opens another at once may be heard in the other order: the close by a
//! worker, or a process, that gets to it later than the accept loop to the new one. So who is over the share waits
//! here, accepted and unserved, until an earlier connection of the address has ended or a short time is over. The
//! places are few, and fewer for each address; without one it is refused at once.

use std::net::{SocketAddr, TcpStream};

use heapless::Vec as Fixed;

use super::server::Server;
use crate::access::Origin;
use crate::access::Verdict;
use crate::config::{LOBBY, LOBBY_PATIENCE};
use crate::log::{Text, warn};
use crate::shutdown::Phase;
use crate::sys::Tick;

#[derive(Debug, Default)]
pub(super) struct Lobby(Fixed<Guest, LOBBY>);

#[derive(Debug)]
struct Guest {
    socket: TcpStream,
    peer: SocketAddr,
    listener: usize,
    service: usize,
    until: Tick,
}

impl Lobby {
    /// When somebody's time is over.
    pub(super) fn deadline(&self) -> Option<Tick> {
        // They wait equally long.
        self.0.first().map(|guest| guest.until)
    }

    /// Closes a child process's copies.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    fn has_place(&self, origin: Origin) -> bool {
        let of_same = self.0.iter().filter(|guest| Origin::from(guest.peer.ip()) == origin).count();
        !self.0.is_full() && of_same < LOBBY / 4
    }
}

impl Server {
    /// Lets a client wait whose address has its share.
    pub(super) fn seat(&mut self, listener: usize, socket: TcpStream, peer: SocketAddr) {
        let service = self.listeners[listener].service;
        if self.ladder.phase != Phase::Running {
            return self.turn_away(socket, service);
        }
        let guest = Guest { socket, peer, listener, service, until: self.now().after(LOBBY_PATIENCE) };
        let seated = if self.lobby.has_place(peer.ip().into()) { self.lobby.0.push(guest) } else { Err(guest) };
        if let Err(guest) = seated {
            self.refuse_share(guest);
        }
    }

    /// Admits who waits and may come in now, and refuses whose time is over.
    pub(super) fn revisit_lobby(&mut self) {
        let mut index = 0;
        while let Some(guest) = self.lobby.0.get(index) {
            let (peer, until) = (guest.peer, guest.until);
            let now = self.now();
            let verdict = if self.ladder.phase == Phase::Running { self.verdict(now) } else { Verdict::Reject };
            match verdict {
                Verdict::Admit | Verdict::Shed if self.engine.enter(peer) => {
                    let guest = self.lobby.0.remove(index);
                    self.welcome(guest.listener, verdict, guest.socket, peer);
                }
                Verdict::Reject => {
                    let guest = self.lobby.0.remove(index);
                    self.turn_away(guest.socket, guest.service);
                }
                _ if until.reached(now) => {
                    let guest = self.lobby.0.remove(index);
                    self.refuse_share(guest);
                }
                _ => index += 1,
            }
        }
    }

    fn refuse_share(&mut self, guest: Guest) {
        self.engine.context.counters.over_share.add(1);
        if let Some(left_out) = self.share_lines.event() {
            let share = self.engine.context.limits.per_client.unwrap_or_default();
            warn!(
                "Client {} refused: {} has its share of {} connections ({} refusals before this one not logged)",
                Text(&guest.peer),
                Text(&Origin::from(guest.peer.ip())),
                share,
                left_out
            );
        }
        self.turn_away(guest.socket, guest.service);
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
        let (mut lobby, until) = (Lobby::default(), Clock::start().now());
        let seats = (0..20).map(|host| {
            let seated = (0..LOBBY).take_while(|port| {
                let peer = SocketAddr::from(([192, 0, 2, host], *port as u16));
                let place = lobby.has_place(peer.ip().into());
                if place {
                    let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                    lobby.0.push(Guest { socket, peer, listener: 0, service: 0, until }).unwrap();
                }
                place
            });
            seated.count()
        });
        assert_eq!(seats.collect::<Vec<_>>()[..5], [4, 4, 4, 4, 0]);
    }
}
