//! What `benches/micro.rs` measures from inside: the queue, the lead, parking, and a connection without a socket.
//!
//! Only with `--cfg lastorders_bench`; no part of the library's interface.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use bytes::BytesMut;
use nix::sys::epoll::EpollTimeout;

use super::ownership::{Idle, Occupant, Owned, Ready, Slots};
use super::poller::Poller;
use super::queue::{self, Job, Returned, Work};
use crate::config::Limits;
use crate::connection::{Client, Connection, Context, Interest, Link, Transport};
use crate::error::Error;
use crate::sys::Event;

/// The ready queue of workers that may block, so a vacant lead is offered to those asleep.
#[derive(Debug)]
pub struct Queue(queue::Queue);

impl Queue {
    /// An empty one.
    ///
    /// # Errors
    /// When the kernel refuses an event.
    pub fn new() -> Result<Queue, Error> {
        let event = || Event::new().map(Arc::new).map_err(Error::setup("make an event"));
        Ok(Queue(queue::Queue::new(64, Work::MayBlock, event()?, event()?)))
    }

    /// Queues a slot, as the accept loop does.
    pub fn push(&self, token: u16) {
        self.0.push(Ready::stand_in(token));
    }

    /// A worker's next job, blocking while another one leads. True when it is a slot, false when it is the lead.
    pub fn next(&self) -> bool {
        matches!(self.0.next::<1>(Returned::Nothing), Job::Serve(_))
    }

    /// The leader comes back with a slot that it found. True when it is given a slot.
    pub fn return_found(&self, found: u16) -> bool {
        let mut found: heapless::Vec<Ready, 1> = [Ready::stand_in(found)].into_iter().collect();
        matches!(self.0.next(Returned::Found(&mut found)), Job::Serve(_))
    }
}

/// Nothing in a slot.
#[derive(Debug, Default)]
struct Empty;

impl Occupant for Empty {
    fn socket(&self) -> Option<std::os::fd::RawFd> {
        None
    }

    fn mark_hung_up(&mut self) {}

    fn abandon(&mut self) {}
}

/// A slot, and the poller that watches its socket.
#[derive(Debug)]
pub struct Parking {
    slots: Slots<Empty>,
    poller: Poller,
    /// It lives as long as the poller.
    _leader: Event,
}

impl Parking {
    /// Watches a socket.
    ///
    /// # Errors
    /// When the poller cannot be made, or does not take the socket.
    pub fn new(socket: impl AsFd) -> Result<Parking, Error> {
        let event = || Event::new().map_err(Error::setup("make an event"));
        let leader = event()?;
        let poller = Poller::new(&leader)?;
        poller.watch(socket, 0, Interest::Input, &mut None).map_err(Error::setup("watch a socket"))?;
        let slots = Slots::new(0, vec![Empty], Arc::new(event()?));
        Ok(Parking { slots, poller, _leader: leader })
    }

    /// Claims the parked slot as an edge does, and parks it again. True when it was parked.
    pub fn claim_and_park(&self) -> bool {
        self.park(self.slots.edge(0))
    }

    /// Takes what is ready from the poller, claims it, and parks it again. True when there was something.
    pub fn poll(&self) -> bool {
        let mut found = None;
        self.poller.wait(EpollTimeout::ZERO, |_| found = self.slots.edge(0));
        self.park(found)
    }

    fn park(&self, ready: Option<Ready>) -> bool {
        let owned: Option<Owned<'_, Empty>> = ready.map(|ready| self.slots.own(ready));
        owned.is_some_and(|owned| owned.park(Idle::No, None).is_none())
    }
}

/// A client that sends nothing and takes everything.
struct Sink;

impl Transport for Sink {
    fn receive(&mut self, _: &mut [u8]) -> io::Result<Option<usize>> {
        Ok(None)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        Ok(Some(bytes.len()))
    }

    fn pending(&mut self) -> u32 {
        0
    }

    fn has_ended(&mut self) -> io::Result<bool> {
        Ok(false)
    }

    fn finish_sending(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn abort(&mut self) {}
}

/// A connection of the default size without a socket, so that a service can be called as the engine calls it.
///
/// # Errors
/// When what connections share cannot be made.
pub fn connection() -> Result<Connection, Error> {
    let context = Arc::new(Context::new(Limits::default())?);
    let size = context.limits.buffer;
    let client =
        Client { share: None, link: Link::Scripted(Box::new(Sink)), peer: ([127, 0, 0, 1], 7).into(), service: 0 };
    let mut connection = Connection::new(context, client, 0);
    connection.blocks().into_iter().for_each(|block| *block = BytesMut::zeroed(size));
    Ok(connection)
}

/// What a client has sent arrives, and what was sent to it before is gone.
pub fn receive(connection: &mut Connection, bytes: &[u8]) {
    connection.output().reset();
    connection.input().space()[..bytes.len()].copy_from_slice(bytes);
    connection.input().filled(bytes.len());
}
