//! The datagram sockets, and one turn of one: what is done with it from the moment a worker owns it until it is
//! let go.
//!
//! They are watched and queued as connections are, by the tokens above those of the slots, and a [`State`] of
//! the same kind says whose they are. A turn receives until nothing is left, for the poller is edge-triggered,
//! or until the others are to have theirs. No error ends a socket: the next datagram may be a good one.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::BytesMut;

use super::Engine;
use super::parked::Parked;
use super::queue::Token;
use super::settle::Outcome;
use super::state::{Release, State};
use super::sync::{Mutex, lock};
use crate::config::{DATAGRAM, DATAGRAMS};
use crate::connection::{Interest, Output};
use crate::datagram::{Answer, Datagram, Packet, UdpEndpoint};
use crate::error::Error;
use crate::log::{Text, warn};
use crate::sys::RateLimit;

/// All datagram sockets of a server.
pub(super) struct Ports {
    /// The token of the first one.
    first: usize,
    table: Box<[Place]>,
    services: Box<[Box<dyn Datagram>]>,
    lines: RateLimit,
}

/// A place for one datagram socket.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) state: State,
    /// Invariant: locked only by the owner of the place, so never contended.
    desk: Mutex<Desk>,
}

#[derive(Debug)]
struct Desk {
    /// `None` when the server is over, which a handle may survive.
    port: Option<UdpEndpoint>,
    packet: Box<[u8]>,
    reply: Output,
}

impl Ports {
    /// Takes the sockets, and watches them from here on.
    pub(super) fn new(
        services: Box<[Box<dyn Datagram>]>,
        ports: Vec<UdpEndpoint>,
        first: usize,
        parked: &Parked,
    ) -> Result<Ports, Error> {
        let place = |(index, port): (usize, UdpEndpoint)| {
            let state = State::free();
            state.occupy();
            let watched = parked.watch(&port, (first + index) as Token, Interest::Input, None);
            watched.map_err(Error::setup("watch a datagram socket"))?;
            state.release();
            let reply = Output::new(BytesMut::zeroed(DATAGRAM));
            Ok(Place { state, desk: Mutex::new(Desk { port: Some(port), packet: Box::new([0; DATAGRAM]), reply }) })
        };
        let table = ports.into_iter().enumerate().map(place).collect::<Result<_, Error>>()?;
        Ok(Ports { first, table, services, lines: RateLimit::new(Duration::from_secs(60)) })
    }

    /// The place with this token, or `None` when it is a connection's.
    pub(super) fn at(&self, token: Token) -> Option<&Place> {
        self.table.get(usize::from(token).checked_sub(self.first)?)
    }

    /// Closes those that wait for datagrams.
    pub(super) fn close_parked(&self) {
        self.table.iter().filter(|place| place.state.claim()).for_each(Place::close);
    }
}

impl Place {
    /// Closes an owned socket.
    pub(super) fn close(&self) {
        lock(&self.desk).port = None;
        self.state.vacate();
    }
}

/// What was done about one datagram.
enum Step {
    Served,
    /// The network, or the kernel, reported an error instead of a datagram.
    Failed,
    Empty,
}

impl Engine {
    /// Gives a datagram socket its turn, and lets go of it. True when it has more to do.
    pub(super) fn serve_port(&self, place: &Place) -> bool {
        let outcome = self.port_turn(&mut lock(&place.desk));
        match outcome {
            Outcome::Yield => true,
            Outcome::Park(_) => place.state.release() == Release::Again,
            Outcome::Closed => {
                place.close();
                false
            }
        }
    }

    fn port_turn(&self, desk: &mut Desk) -> Outcome {
        let mut failed = 0;
        for _ in 0..DATAGRAMS {
            if self.context.is_cut() {
                return Outcome::Closed;
            }
            match self.port_step(desk) {
                Step::Served => failed = 0,
                Step::Failed => failed += 1,
                Step::Empty => return Outcome::Park(None),
            }
        }
        // Receiving takes a pending error away. One that stays is not tried again until something arrives: the
        // workers shall not spin on it.
        if failed == DATAGRAMS { Outcome::Park(None) } else { Outcome::Yield }
    }

    fn port_step(&self, desk: &mut Desk) -> Step {
        let Desk { port: Some(port), packet: buffer, reply } = desk else { return Step::Empty };
        match port.receive(buffer) {
            Ok(Some(packet)) => {
                self.context.counters.datagrams.add(1);
                self.answer(port, &packet, buffer, reply);
                Step::Served
            }
            Ok(None) => Step::Empty,
            Err(error) => {
                self.context.counters.receive_errors.add(1);
                self.complain("Receiving on", &port.address, &error);
                Step::Failed
            }
        }
    }

    /// Lets the service see a datagram, and sends its reply.
    fn answer(&self, port: &UdpEndpoint, packet: &Packet, buffer: &[u8], reply: &mut Output) {
        let counters = &self.context.counters;
        let service = &self.ports.services[port.service];
        let bytes = &buffer[..packet.length];
        reply.reset();
        let call = || match packet.whole {
            true => service.receive(bytes, packet.from, reply),
            false => service.oversized(bytes, packet.from, reply),
        };
        let answer = catch_unwind(AssertUnwindSafe(call));
        counters.oversized.add(u64::from(!packet.whole));
        match answer {
            Ok(Ok(Answer::Silence)) => {}
            Ok(Ok(Answer::Reply)) => match port.send(reply.bytes(), packet.from) {
                Ok(()) => counters.replies.add(1),
                // No room, no route, forbidden, or no such port: a client that wants the answer asks again.
                Err(_) => counters.replies_dropped.add(1),
            },
            Ok(Err(error)) => {
                counters.datagrams_failed.add(1);
                self.complain("Datagram from", &packet.from, &error);
            }
            Err(payload) => {
                counters.datagrams_failed.add(1);
                self.driver.report_panic(&*payload, packet.from);
            }
        }
    }

    fn complain(&self, what: &str, address: &SocketAddr, error: &impl std::fmt::Display) {
        if let Some(left_out) = self.ports.lines.event() {
            warn!("{} {}: {} ({} errors before this one not logged)", what, Text(address), Text(error), left_out);
        }
    }
}
