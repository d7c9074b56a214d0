//! What `benches/micro.rs` measures from inside: the queue, the lead, parking, and a connection without a socket.
//!
//! Only with `--cfg lastorders_bench`; no part of the library's interface.

use std::sync::Arc;

use bytes::BytesMut;

use super::parked;
use super::queue::{self, Bring, Job};
use super::state::{Edge, Release, State};
use crate::config::Limits;
use crate::connection::Context;
use crate::connection::{Connection, Interest};
use crate::error::Error;

/// The ready queue of workers that serve anything, so a vacant lead is offered to those asleep.
#[derive(Debug)]
pub struct Queue(queue::Queue);

impl Queue {
    /// An empty one.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Queue {
        Queue(queue::Queue::new(64, false))
    }

    /// Queues a slot, as the accept loop does.
    pub fn push(&self, token: u16) {
        self.0.push(token);
    }

    /// A worker's next job, blocking while another one leads. True when it is a slot, false when it is the lead.
    pub fn next(&self) -> bool {
        matches!(self.0.next(Bring::Nothing).0, Job::Serve(_))
    }

    /// The leader comes back with what it found. True when it is given a slot.
    pub fn bring(&self, found: &[u16]) -> bool {
        matches!(self.0.next(Bring::Ready(found)).0, Job::Serve(_))
    }
}

/// A slot's state, and the poller that watches its socket.
#[derive(Debug)]
pub struct Parked {
    state: State,
    poller: parked::Parked,
}

impl Parked {
    /// Watches a socket.
    ///
    /// # Errors
    /// When the poller cannot be made, or does not take the socket.
    pub fn new(socket: impl std::os::fd::AsFd) -> Result<Parked, Error> {
        let (state, poller) = (State::free(), parked::Parked::new()?);
        state.occupy();
        poller.watch(socket, 0, Interest::Input, None).map_err(Error::setup("watch a socket"))?;
        Ok(Parked { state, poller })
    }

    /// Lets go of the slot. True when nothing had come meanwhile.
    pub fn park(&self) -> bool {
        self.state.release() == Release::Parked
    }

    /// Claims the slot, as an edge does. True when it was parked.
    pub fn claim(&self) -> bool {
        self.state.edge() == Edge::Claimed
    }

    /// Takes what is ready from the poller, and claims it. True when there was something.
    pub fn poll(&self) -> bool {
        let mut claimed = false;
        self.poller.poll(false, |_| claimed |= self.claim());
        claimed
    }
}

/// A connection of the default size without a socket, so that a service can be called as the engine calls it.
///
/// # Errors
/// When what connections share cannot be made.
pub fn connection() -> Result<Connection, Error> {
    let limits = Limits::default();
    let block = || BytesMut::zeroed(limits.buffer);
    let (input, output) = (block(), block());
    Ok(Connection::new(Arc::new(Context::new(limits, false)?), input, output))
}

/// What a client has sent arrives, and what was sent to it before is gone.
pub fn receive(connection: &mut Connection, bytes: &[u8]) {
    connection.output().reset();
    connection.input().arrive(bytes);
}
