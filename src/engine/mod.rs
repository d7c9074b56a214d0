//! The engine: what the accept loop and the workers share, and what they do with it.
//!
//! One stage, one file: [`slots`] holds the connections
//! and [`state`] says whose they are, [`queue`] says what is next, [`parked`] waits for the silent ones,
//! [`deadlines`] waits for their deadlines, [`turn`] serves one, [`settle`] lets
//! go of it, [`farewell`] logs its end, [`ports`] does all this for datagram sockets, [`worker`] runs it all on the
//! pool, and [`pulse`] tells whether it does.

#[cfg(lastorders_bench)]
pub mod bench;
mod blocks;
mod deadlines;
mod farewell;
mod parked;
mod ports;
pub(crate) mod processes;
pub(crate) mod pulse;
mod queue;
mod settle;
mod slots;
mod state;
mod sync;
pub(crate) mod turn;
pub(crate) mod worker;

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::eventfd::EventFd;

use crate::access::Shares;
use crate::config::SWEEP_EVERY;
use crate::connection::{CloseReason, Connection, Fill};
use crate::connection::{Context, event, raise};
use crate::datagram::{Datagram, UdpEndpoint};
use crate::error::Error;
use crate::service::ErasedService;
use crate::stats::{Stats, Tally};
use crate::sys::Tick;
use deadlines::{Deadlines, Due, Parking};
use parked::Parked;
use ports::Ports;
use processes::Processes;
use queue::{Queue, Then, Token};
use settle::Outcome;
use slots::{Slot, Slots};
use state::Edge;
use turn::Driver;

pub(crate) struct Engine {
    pub(crate) context: Arc<Context>,
    pub(crate) driver: Driver,
    /// Wakes the accept loop.
    pub(crate) wake: EventFd,
    slots: Slots,
    /// With a limit per client only.
    shares: Option<Shares>,
    queue: Queue,
    ports: Ports,
    parked: Parked,
    deadlines: Deadlines,
    /// Requests served, by worker; the last is the accept loop's, which serves none but needs a place.
    served: Box<[Tally]>,
    /// The accept loop waits for an idle connection to shed.
    idle_wanted: AtomicBool,
    /// In a forking server, which has no slots.
    pub(crate) processes: Option<Processes>,
}

impl Engine {
    /// Allocates everything that the limits speak of. With `children`, that is for connections that are a process
    /// each, that many at most: there are no slots, and one session, of which each process has its own copy.
    pub(crate) fn new(
        context: Arc<Context>,
        mut hosts: Box<[Box<dyn ErasedService>]>,
        children: Option<usize>,
        datagrams: Box<[Box<dyn Datagram>]>,
        ports: Vec<UdpEndpoint>,
    ) -> Result<Engine, Error> {
        let sessions = if children.is_some() { 1 } else { context.limits.connections };
        hosts.iter_mut().for_each(|host| host.reserve(sessions));
        let parked = Parked::new()?;
        let prompt =
            hosts.iter().all(|host| host.never_blocks()) && datagrams.iter().all(|service| service.never_blocks());
        Ok(Engine {
            wake: event("make the accept loop's event")?,
            slots: Slots::new(&context),
            shares: context
                .limits
                .per_client
                .map(|limit| Shares::new(limit, children.unwrap_or(context.limits.connections))),
            queue: Queue::new(context.limits.queue, prompt),
            ports: Ports::new(datagrams, ports, context.limits.connections, &parked)?,
            parked,
            deadlines: Deadlines::new(),
            served: (0..=context.limits.workers).map(|_| Tally::default()).collect(),
            idle_wanted: AtomicBool::new(false),
            driver: Driver::new(context.clone(), hosts),
            processes: children.map(Processes::new).transpose()?,
            context,
        })
    }

    pub(crate) fn wake_accept_loop(&self) {
        raise(&self.wake);
    }

    pub(crate) fn stats(&self) -> Stats {
        let (queued, queued_max) = self.queue.lengths();
        let elsewhere = self.processes.as_ref().map_or(0, |processes| {
            self.context.gather_notices();
            processes.total_served()
        });
        Stats {
            open: self.open_connections() as u64,
            parked: self.slots.iter().filter(|(_, slot)| slot.state.is_parked()).count() as u64,
            queued: queued as u64,
            queued_max: queued_max as u64,
            served: self.served.iter().map(Tally::value).sum::<u64>() + elsewhere,
            ..self.context.counters.snapshot()
        }
    }

    pub(crate) fn open_connections(&self) -> usize {
        self.slots.open() + self.processes.as_ref().map_or(0, Processes::running)
    }

    /// True when a slot is free; if not and `want` is set, the accept loop is woken when one is.
    pub(crate) fn slot_free(&self, want: bool) -> bool {
        match &self.processes {
            // SIGCHLD wakes the accept loop in any case.
            Some(processes) => processes.has_room(),
            None => self.slots.has_free(want),
        }
    }

    /// True when one more accepted socket may wait for a worker; if not, the accept loop is woken when it may.
    pub(crate) fn queue_room(&self) -> bool {
        self.queue.has_room()
    }

    /// Counts a client's connection that is to be admitted. False when its address has its share; the accept loop is
    /// woken when that may have changed.
    pub(crate) fn enter(&self, peer: SocketAddr) -> bool {
        self.shares.as_ref().is_none_or(|shares| shares.enter(peer.ip().into()))
    }

    /// Counts the end of a connection that has [entered](Engine::enter). True when the accept loop waits for that.
    pub(crate) fn leave(&self, peer: SocketAddr) -> bool {
        self.shares.as_ref().is_some_and(|shares| shares.leave(peer.ip().into()))
    }

    /// Gives an accepted socket a slot, and begins or queues it. Hands it back when no slot is free.
    pub(crate) fn admit(&self, socket: TcpStream, peer: SocketAddr, service: usize) -> Option<TcpStream> {
        let Some(token) = self.slots.take() else { return Some(socket) };
        self.slots.get(token).start(socket, peer, service);
        self.context.counters.accepted.add(1);
        self.context.counters.open_max.raise(self.slots.open() as u64);
        if self.context.is_draining() {
            // Told and closed here: the workers may all be busy for as long as the grace time lasts.
            self.with_owned(token, |slot, connection| {
                let progress = self.driver.tell(slot.place(token, self.own_tally()), connection);
                self.settle(token, slot, connection, progress)
            });
        } else if self.driver.hosts[service].never_blocks() {
            // To begin it takes no longer than to wake a worker for it, which its first request does again.
            self.with_owned(token, |slot, connection| {
                let progress = self.driver.greet(slot.place(token, self.own_tally()), connection);
                self.settle(token, slot, connection, progress)
            });
        } else {
            self.follow_up(self.queue.push(token));
        }
        None
    }

    /// Does what a queue operation asks for, outside of its lock.
    fn follow_up(&self, then: Then) {
        if then.kick_leader {
            self.parked.kick();
        }
        if then.tell_accept_loop {
            self.wake_accept_loop();
        }
    }

    /// Closes the connection that has been idle longest, after its notice. False when none is idle.
    pub(crate) fn shed(&self) -> bool {
        // All idle deadlines lie equally far behind the last activity.
        let oldest = || {
            let deadlines = self.idle().filter_map(|(token, slot)| Some((token, slot.deadline.get()?)));
            deadlines.reduce(|best, next| if next.1.is_before(best.1) { next } else { best })
        };
        while let Some((token, _)) = oldest() {
            let mut closed = false;
            self.with_parked(token, |slot, connection| {
                // It has spoken just now: it is not idle, and the next one is looked at.
                if matches!(connection.fill(), Ok(Fill::Bytes | Fill::Ended)) {
                    return Outcome::Yield;
                }
                let place = slot.place(token, self.own_tally());
                if self.driver.notify(place, connection).is_ok() && connection.flush().is_ok() {
                    let _ = connection.finish_sending();
                }
                self.close(token, slot, connection, CloseReason::Shed);
                closed = true;
                Outcome::Closed
            });
            if closed {
                return true;
            }
        }
        false
    }

    /// True when there is a connection to [`shed`](Engine::shed). If not, the accept loop is woken when there is.
    pub(crate) fn has_idle(&self) -> bool {
        self.idle_wanted.store(false, Ordering::SeqCst);
        if self.idle().next().is_some() {
            return true;
        }
        // Again after saying so: a worker parks first and looks at this second, so one of the two is seen.
        self.idle_wanted.store(true, Ordering::SeqCst);
        self.idle().next().is_some()
    }

    /// A worker has parked a connection.
    fn parked_one(&self) {
        if self.idle_wanted.load(Ordering::SeqCst) && self.idle_wanted.swap(false, Ordering::SeqCst) {
            self.wake_accept_loop();
        }
    }

    fn idle(&self) -> impl Iterator<Item = (Token, &Slot)> {
        self.slots.iter().filter(|(_, slot)| slot.state.is_parked() && slot.idle.load(Ordering::Relaxed))
    }

    /// Acts on a parked connection. False when it is not parked.
    fn with_parked(&self, token: Token, act: impl FnOnce(&Slot, &mut Connection) -> Outcome) -> bool {
        let claimed = self.slots.get(token).state.claim();
        if claimed {
            self.with_owned(token, act);
        }
        claimed
    }

    /// Acts on a connection that the accept loop owns, and lets go of it.
    fn with_owned(&self, token: Token, act: impl FnOnce(&Slot, &mut Connection) -> Outcome) {
        if self.own(token, act) {
            self.follow_up(self.queue.push(token));
        }
    }

    /// Acts on a connection that the accept loop owns. True when there is more to do, and the slot still owned.
    fn own(&self, token: Token, act: impl FnOnce(&Slot, &mut Connection) -> Outcome) -> bool {
        let slot = self.slots.get(token);
        let outcome = act(slot, &mut self.slots.hold(token));
        match outcome {
            Outcome::Closed => false,
            Outcome::Yield => true,
            Outcome::Park(deadline) => self.let_go(slot, deadline),
        }
    }

    /// Parks an owned slot until its deadline. True when an edge came meanwhile, and the slot is owned still.
    fn let_go(&self, slot: &Slot, deadline: Option<Tick>) -> bool {
        let parking = self.deadlines.park(&slot.state, &slot.deadline, deadline);
        if parking == Parking::ParkedEarlier {
            self.wake_accept_loop();
        }
        parking == Parking::Again
    }

    fn own_tally(&self) -> &Tally {
        &self.served[self.context.limits.workers]
    }

    /// When the accept loop must call [`sweep`](Engine::sweep) next.
    pub(crate) fn next_sweep(&self) -> Option<Tick> {
        self.deadlines.next()
    }

    /// Closes, or moves on, every parked connection whose deadline has come.
    pub(crate) fn sweep(&self, now: Tick) {
        self.deadlines.begin();
        let mut earliest: Option<Tick> = None;
        for (token, slot) in self.slots.iter() {
            match self.deadlines.claim_due(&slot.state, &slot.deadline, now) {
                Due::Claimed => {
                    self.with_owned(token, |slot, connection| self.expire(token, slot, connection, now));
                }
                Due::Later(deadline) => {
                    let sooner = earliest.is_none_or(|earliest| deadline.is_before(earliest));
                    earliest = if sooner { Some(deadline) } else { earliest };
                }
                Due::Never => {}
            }
        }
        // Deadlines that lie close together are met together.
        let soonest = now.after(SWEEP_EVERY);
        self.deadlines.end(earliest.map(|tick| if tick.is_before(soonest) { soonest } else { tick }));
    }

    fn expire(&self, token: Token, slot: &Slot, connection: &mut Connection, now: Tick) -> Outcome {
        // An owner may have set another one between the look at it and the claim.
        let deadline = slot.deadline.get();
        if deadline.is_none_or(|deadline| !deadline.reached(now)) {
            return Outcome::Park(deadline);
        }
        let progress = self.driver.expire(slot.place(token, self.own_tally()), connection);
        self.settle(token, slot, connection, progress)
    }

    /// Starts the shutdown: gives the notice to every parked and queued client, and tells the owners of the
    /// others.
    pub(crate) fn start_draining(&self) {
        self.context.start_draining();
        // Clients leave as soon as they have the notice: a worker that waits at the poller would wake for each of them, and
        // take the processor from the notices of the others.
        self.follow_up(self.queue.pause());
        for (token, slot) in self.slots.iter() {
            let announce = |slot: &Slot, connection: &mut Connection| {
                let progress = self.driver.announce(slot.place(token, self.own_tally()), connection);
                self.settle(token, slot, connection, progress)
            };
            if slot.state.edge() == Edge::Claimed && self.own(token, announce) {
                self.queue.put(token);
            }
        }
        // The workers may all be busy for as long as the grace time lasts: queued clients are told here, and those that
        // has heard it is closed from here.
        for _ in 0..self.queue.lengths().0 {
            let Some(token) = self.queue.take() else { break };
            match self.ports.at(token) {
                // Datagrams have no notice, and are answered until the grace time is over.
                Some(_) => self.follow_up(self.queue.push(token)),
                None => self.with_owned(token, |slot, connection| self.drain(token, slot, connection)),
            }
        }
        self.queue.resume();
    }

    fn drain(&self, token: Token, slot: &Slot, connection: &mut Connection) -> Outcome {
        let progress = self.driver.drain(slot.place(token, self.own_tally()), connection);
        self.settle(token, slot, connection, progress)
    }

    /// Ends the grace time: every connection is cut, and the workers are told to come home.
    pub(crate) fn cut(&self) {
        self.context.cut();
        if self.queue.stop().kick_leader {
            self.parked.kick();
        }
        self.close_rest();
        self.slots.iter().for_each(|(_, slot)| slot.cut());
    }

    /// Closes what no worker has in hand.
    pub(crate) fn close_rest(&self) {
        let close = |slot: &Slot, connection: &mut Connection, token| {
            self.close(token, slot, connection, CloseReason::Forced);
            Outcome::Closed
        };
        while let Some(token) = self.queue.take() {
            match self.ports.at(token) {
                Some(place) => place.close(),
                None => self.with_owned(token, |slot, connection| close(slot, connection, token)),
            }
        }
        self.ports.close_parked();
        for (token, _) in self.slots.iter() {
            self.with_parked(token, |slot, connection| close(slot, connection, token));
        }
    }
}
