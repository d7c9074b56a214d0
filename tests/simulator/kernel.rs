//! The kernel, as far as a server sees it: descriptors, sockets with bounded buffers, epoll, events, time.
//!
//! What a call does is written here after its manual page; what the network and the clients do comes from
//! [`clients`](crate::clients). A thread that has to wait leaves a [`Waiter`]; each change looks for those whose wait is
//! over. Nothing here schedules: [`calls`](crate::calls) does, at each call.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use nix::libc;
use shuttle::sync::mpsc::Sender;

use crate::connections::{Connection, Id};
use crate::dice::Dice;

/// Descriptors of the simulation begin here; lower ones are real.
pub(crate) const BASE: i32 = 1_000_000;
/// The pipe that signal handlers write to. The process makes it once, so it outlives each simulation.
pub(crate) const PIPE: [i32; 2] = [BASE, BASE + 1];

pub(crate) const MS: u64 = 1_000_000;

pub(crate) type Outcome = Result<usize, i32>;

#[derive(Debug)]
pub(crate) enum File {
    /// Not listening yet, or for datagrams.
    Unbound,
    Listener {
        address: SocketAddr,
        backlog: VecDeque<Id>,
    },
    Stream(Id),
    Datagrams {
        address: SocketAddr,
        arrived: VecDeque<(Vec<u8>, SocketAddr)>,
    },
    Event(u64),
    Epoll {
        watched: BTreeMap<i32, Watch>,
        ready: VecDeque<i32>,
    },
    Pipe(VecDeque<u8>),
    PipeWriter,
}

/// One descriptor in an epoll instance, edge-triggered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch {
    pub(crate) events: u32,
    pub(crate) data: u64,
}

/// A thread that waits, and for what.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) task: usize,
    /// True says that a signal has come.
    pub(crate) wake: Sender<bool>,
    /// In nanoseconds of the simulated clock.
    pub(crate) until: Option<u64>,
    pub(crate) what: Wait,
    /// A signal ends the wait.
    pub(crate) interruptible: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Wait {
    Poll(Vec<(i32, i16)>),
    Epoll(i32),
    Sleep,
}

/// How often a call fails, one in so many; 0 is never.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) accept: u64,
    /// The listener itself breaks.
    pub(crate) listener: u64,
    pub(crate) epoll_ctl: u64,
    pub(crate) datagram: u64,
    pub(crate) wait: u64,
}

#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) dice: Dice,
    /// Nanoseconds of CLOCK_MONOTONIC.
    pub(crate) now: u64,
    pub(crate) files: Vec<Option<File>>,
    pub(crate) connections: Vec<Connection>,
    pub(crate) waiters: Vec<Waiter>,
    /// Waits that are over. The next call or the world wakes them.
    pub(crate) woken: Vec<(Sender<bool>, bool)>,
    /// Edges that the network has caused and no epoll instance knows of yet.
    pub(crate) late: VecDeque<(i32, u32)>,
    /// Replies to datagrams, and to whom.
    pub(crate) answered: Vec<(Vec<u8>, SocketAddr)>,
    /// Those whose replies found no room.
    pub(crate) dropped: Vec<SocketAddr>,
    pub(crate) faults: Faults,
    pub(crate) last_accept_fault: Option<u64>,
    /// The listeners have broken, which ends the server.
    pub(crate) has_broken: bool,
    /// How often a thread has turned to another connection.
    pub(crate) turns: u64,
    /// Calls that have waited and come back.
    pub(crate) wakes: u64,
    next_port: u16,
}

const IN: u32 = libc::EPOLLIN as u32;
const OUT: u32 = libc::EPOLLOUT as u32;
const HUNG_UP: u32 = (libc::EPOLLRDHUP) as u32;
const URGENT: u32 = libc::EPOLLPRI as u32;
const BROKEN: u32 = (libc::EPOLLERR | libc::EPOLLHUP) as u32;

impl Kernel {
    pub(crate) fn new(dice: Dice, now: u64) -> Kernel {
        Kernel {
            dice,
            now,
            files: vec![Some(File::Pipe(VecDeque::new())), Some(File::PipeWriter)],
            connections: vec![],
            waiters: vec![],
            woken: vec![],
            late: VecDeque::new(),
            answered: vec![],
            dropped: vec![],
            faults: Faults::default(),
            last_accept_fault: None,
            has_broken: false,
            turns: 0,
            wakes: 0,
            next_port: 10_000,
        }
    }

    /// Opens the lowest free descriptor, as every kernel does: the number of a closed one comes back soon.
    pub(crate) fn open(&mut self, file: File) -> i32 {
        let free = self.files.iter().position(Option::is_none).unwrap_or(self.files.len());
        if free == self.files.len() {
            self.files.push(None);
        }
        self.files[free] = Some(file);
        BASE + free as i32
    }

    pub(crate) fn file(&mut self, fd: i32) -> Result<&mut File, i32> {
        self.files.get_mut((fd - BASE) as usize).and_then(Option::as_mut).ok_or(libc::EBADF)
    }

    /// The connection behind a descriptor.
    pub(crate) fn stream(&mut self, fd: i32) -> Result<&mut Connection, i32> {
        match self.file(fd)? {
            File::Stream(id) => {
                let id = *id;
                Ok(&mut self.connections[id])
            }
            _ => Err(libc::ENOTSOCK),
        }
    }

    pub(crate) fn bind(&mut self, fd: i32, mut address: SocketAddr, is_datagram: bool) -> Outcome {
        if address.port() == 0 {
            self.next_port += 1;
            address.set_port(self.next_port);
        }
        *self.file(fd)? = match is_datagram {
            true => File::Datagrams { address, arrived: VecDeque::new() },
            false => File::Listener { address, backlog: VecDeque::new() },
        };
        Ok(0)
    }

    pub(crate) fn local_address(&mut self, fd: i32) -> Result<SocketAddr, i32> {
        match self.file(fd)? {
            File::Listener { address, .. } | File::Datagrams { address, .. } => Ok(*address),
            _ => Err(libc::EOPNOTSUPP),
        }
    }

    /// A client connects: the kernel does, before any accept.
    pub(crate) fn connect(&mut self, listener: i32, peer: SocketAddr) -> Option<Id> {
        let id = self.connections.len();
        let File::Listener { backlog, .. } = self.file(listener).ok()? else { return None };
        if backlog.len() >= 64 {
            return None;
        }
        backlog.push_back(id);
        let connection = Connection::new(peer, self.now, &mut self.dice);
        self.connections.push(connection);
        self.changed();
        Some(id)
    }

    pub(crate) fn accept(&mut self, fd: i32) -> Result<(i32, SocketAddr), i32> {
        const LOST: [i32; 4] = [libc::ECONNABORTED, libc::EPROTO, libc::ENETDOWN, libc::EHOSTUNREACH];
        const EXHAUSTED: [i32; 4] = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
        let (times, now) = (self.faults.accept, self.now);
        self.has_broken |= self.fails(self.faults.listener);
        if self.has_broken {
            return Err(libc::EINVAL);
        }
        let fault = self.fails(times);
        let fault = fault.then(|| self.dice.pick(&[LOST[0], LOST[1], LOST[2], LOST[3], libc::EPERM, libc::EINTR]));
        let exhausted = self.fails(times);
        let exhausted = exhausted.then(|| EXHAUSTED[self.dice.index(4)]);
        let File::Listener { backlog, .. } = self.file(fd)? else { return Err(libc::ENOTSOCK) };
        if backlog.is_empty() {
            return Err(libc::EAGAIN);
        }
        if let Some(error) = exhausted.or(fault) {
            let lost = LOST.contains(&error).then(|| backlog.pop_front()).flatten();
            if let Some(id) = lost {
                self.connections[id].reset(now);
            }
            self.last_accept_fault = Some(now);
            return Err(error);
        }
        let Some(id) = backlog.pop_front() else { return Err(libc::EAGAIN) };
        let fd = self.open(File::Stream(id));
        let now = self.now;
        self.connections[id].accepted(fd, now);
        Ok((fd, self.connections[id].peer))
    }

    pub(crate) fn shut_down(&mut self, fd: i32, how: i32) -> Outcome {
        let now = self.now;
        let connection = self.stream(fd)?;
        if connection.is_reset {
            return Err(libc::ENOTCONN);
        }
        connection.end_sending(now);
        if how != libc::SHUT_WR {
            connection.end_input();
            self.edge(fd, IN | HUNG_UP);
        }
        self.changed();
        Ok(0)
    }

    /// Closes a descriptor.
    pub(crate) fn close(&mut self, fd: i32) -> Outcome {
        let now = self.now;
        let file = self.files.get_mut((fd - BASE) as usize).and_then(Option::take).ok_or(libc::EBADF)?;
        match file {
            File::Stream(id) => self.connections[id].close(now),
            File::Listener { backlog, .. } => backlog.into_iter().for_each(|id| self.connections[id].reset(now)),
            _ => {}
        }
        for file in self.files.iter_mut().flatten() {
            if let File::Epoll { watched, ready } = file {
                watched.remove(&fd);
                ready.retain(|other| *other != fd);
            }
        }
        self.late.retain(|(other, _)| *other != fd);
        self.changed();
        Ok(0)
    }

    /// What poll(2) and epoll(7) would report about a descriptor.
    pub(crate) fn readiness(&self, fd: i32) -> u32 {
        let set = |bits: u32, is_set: bool| if is_set { bits } else { 0 };
        match self.files.get((fd - BASE) as usize).and_then(Option::as_ref) {
            Some(File::Listener { backlog, .. }) => set(IN, !backlog.is_empty()),
            Some(File::Datagrams { arrived, .. }) => OUT | set(IN, !arrived.is_empty()),
            Some(File::Event(sum)) => OUT | set(IN, *sum > 0),
            Some(File::Pipe(bytes)) => set(IN, !bytes.is_empty()),
            Some(File::Epoll { watched, ready }) => {
                let is_ready = |fd: &i32| watched.get(fd).is_some_and(|watch| self.reported(*fd, *watch) != 0);
                set(IN, ready.iter().any(is_ready))
            }
            Some(File::Stream(id)) => {
                let connection = &self.connections[*id];
                set(IN, connection.is_readable())
                    | set(OUT, connection.is_writable())
                    | set(HUNG_UP, connection.input_has_ended())
                    | set(URGENT, connection.has_urgent())
                    | set(BROKEN, connection.is_reset)
            }
            Some(File::Unbound | File::PipeWriter) | None => OUT,
        }
    }

    fn reported(&self, fd: i32, watch: Watch) -> u32 {
        self.readiness(fd) & (watch.events | BROKEN)
    }

    /// Something has happened at a descriptor: each epoll instance that watches it for that notes it.
    fn edge(&mut self, fd: i32, key: u32) {
        let turns = self.turns;
        if let (true, Ok(connection)) = (key & IN != 0, self.stream(fd))
            && connection.is_readable()
        {
            connection.noticed.get_or_insert(turns);
        }
        for file in self.files.iter_mut().flatten() {
            if let File::Epoll { watched, ready } = file
                && watched.get(&fd).is_some_and(|watch| key & (watch.events | BROKEN) != 0)
                && !ready.contains(&fd)
            {
                ready.push_back(fd);
            }
        }
    }

    /// The same, caused by the network: the edge may come a while after what it tells of.
    pub(crate) fn edge_soon(&mut self, fd: i32, key: u32) {
        if self.dice.once_in(2) {
            self.late.push_back((fd, key));
        } else {
            self.edge(fd, key);
        }
        self.changed();
    }

    /// Gives one late edge, of any that wait. False when none does.
    pub(crate) fn deliver_edge(&mut self) -> bool {
        if self.late.is_empty() {
            return false;
        }
        let which = self.dice.index(self.late.len());
        if let Some((fd, key)) = self.late.remove(which) {
            self.edge(fd, key);
            self.changed();
        }
        true
    }

    /// An edge without a cause: epoll gives one for each packet, also when the thread has received all by then.
    pub(crate) fn give_spurious_edge(&mut self) {
        let streams = self.files.iter().enumerate().filter(|(_, file)| matches!(file, Some(File::Stream(_))));
        let fds: Vec<i32> = streams.map(|(index, _)| BASE + index as i32).collect();
        if !fds.is_empty() {
            let fd = self.dice.pick(&fds);
            self.edge(fd, IN);
            self.changed();
        }
    }

    pub(crate) fn epoll_ctl(&mut self, epoll: i32, op: i32, fd: i32, watch: Option<Watch>) -> Outcome {
        if op != libc::EPOLL_CTL_DEL && self.fails(self.faults.epoll_ctl) {
            return Err(libc::ENOMEM);
        }
        let File::Epoll { watched, ready } = self.file(epoll)? else { return Err(libc::EINVAL) };
        match (op, watch) {
            (libc::EPOLL_CTL_ADD, _) if watched.contains_key(&fd) => return Err(libc::EEXIST),
            (libc::EPOLL_CTL_MOD | libc::EPOLL_CTL_DEL, _) if !watched.contains_key(&fd) => return Err(libc::ENOENT),
            (libc::EPOLL_CTL_ADD | libc::EPOLL_CTL_MOD, Some(watch)) => {
                watched.insert(fd, watch);
                // What is ready already is an edge, too.
                if self.reported(fd, watch) != 0 {
                    self.edge(fd, !0);
                }
            }
            _ => {
                watched.remove(&fd);
                ready.retain(|other| *other != fd);
            }
        }
        self.changed();
        Ok(0)
    }

    /// Takes up to `most` events.
    pub(crate) fn take_events(&mut self, epoll: i32, most: usize) -> Result<Vec<(u32, u64)>, i32> {
        let File::Epoll { watched, ready } = self.file(epoll)? else { return Err(libc::EINVAL) };
        let (mut events, mut candidates, watched) = (vec![], std::mem::take(ready), watched.clone());
        while events.len() < most
            && let Some(fd) = candidates.pop_front()
        {
            let Some(watch) = watched.get(&fd) else { continue };
            let reported = self.reported(fd, *watch);
            if reported != 0 {
                events.push((reported, watch.data));
            }
        }
        if let File::Epoll { ready, .. } = self.file(epoll)? {
            *ready = candidates;
        }
        Ok(events)
    }

    /// How many of these are ready, with what they are ready for.
    pub(crate) fn poll(&self, fds: &[(i32, i16)]) -> Vec<i16> {
        let one = |(fd, events): &(i32, i16)| (self.readiness(*fd) & (*events as u32 | BROKEN)) as i16;
        fds.iter().map(one).collect()
    }

    fn is_over(&self, waiter: &Waiter) -> bool {
        waiter.until.is_some_and(|until| until <= self.now)
            || match &waiter.what {
                Wait::Poll(fds) => self.poll(fds).iter().any(|events| *events != 0),
                Wait::Epoll(fd) => self.readiness(*fd) != 0,
                Wait::Sleep => false,
            }
    }

    /// Ends the waits that are over.
    pub(crate) fn changed(&mut self) {
        let mut index = 0;
        while index < self.waiters.len() {
            if self.is_over(&self.waiters[index]) {
                let waiter = self.waiters.remove(index);
                self.woken.push((waiter.wake, false));
            } else {
                index += 1;
            }
        }
    }

    /// Ends the waits that a signal interrupts: those of the thread that does not block it.
    pub(crate) fn interrupt(&mut self) {
        if let Some(index) = self.waiters.iter().position(|waiter| waiter.interruptible) {
            let waiter = self.waiters.remove(index);
            self.woken.push((waiter.wake, true));
        }
    }

    /// Lets time pass.
    pub(crate) fn advance(&mut self, to: u64) {
        self.now = self.now.max(to);
        self.changed();
    }

    /// The bytes of an event or a pipe.
    pub(crate) fn read(&mut self, fd: i32, into: &mut [u8]) -> Outcome {
        match self.file(fd)? {
            File::Event(0) => Err(libc::EAGAIN),
            File::Event(sum) => {
                into[..8].copy_from_slice(&std::mem::take(sum).to_ne_bytes());
                Ok(8)
            }
            File::Pipe(bytes) if bytes.is_empty() => Err(libc::EAGAIN),
            File::Pipe(bytes) => {
                let count = bytes.len().min(into.len());
                for (place, byte) in into.iter_mut().zip(bytes.drain(..count)) {
                    *place = byte;
                }
                Ok(count)
            }
            _ => Err(libc::EINVAL),
        }
    }

    pub(crate) fn write(&mut self, fd: i32, bytes: &[u8]) -> Outcome {
        let written = match self.file(fd)? {
            File::Event(sum) => {
                *sum += u64::from_ne_bytes(bytes.try_into().map_err(|_| libc::EINVAL)?);
                self.edge(fd, IN);
                bytes.len()
            }
            File::PipeWriter => match self.file(PIPE[0])? {
                File::Pipe(held) if held.len() + bytes.len() <= 65_536 => {
                    held.extend(bytes);
                    bytes.len()
                }
                _ => return Err(libc::EAGAIN),
            },
            _ => return Err(libc::EINVAL),
        };
        self.changed();
        Ok(written)
    }

    /// Takes a datagram: how much of it there was room for, whether that is all, and the sender.
    pub(crate) fn receive_datagram(&mut self, fd: i32, into: &mut [u8]) -> Result<(usize, bool, SocketAddr), i32> {
        let fails = self.fails(self.faults.datagram);
        let File::Datagrams { arrived, .. } = self.file(fd)? else { return Err(libc::ENOTSOCK) };
        if fails && !arrived.is_empty() {
            // What the network said about a reply.
            return Err(libc::ECONNREFUSED);
        }
        let (bytes, from) = arrived.pop_front().ok_or(libc::EAGAIN)?;
        let count = bytes.len().min(into.len());
        into[..count].copy_from_slice(&bytes[..count]);
        Ok((count, count == bytes.len(), from))
    }

    /// One in so many calls fails.
    pub(crate) fn fails(&mut self, times: u64) -> bool {
        times > 0 && self.dice.once_in(times)
    }

    /// A datagram arrives; the kernel drops it when there is no room.
    pub(crate) fn send_datagram_to(&mut self, fd: i32, bytes: Vec<u8>, from: SocketAddr) -> bool {
        let Ok(File::Datagrams { arrived, .. }) = self.file(fd) else { return false };
        if arrived.len() >= 16 {
            return false;
        }
        arrived.push_back((bytes, from));
        self.edge_soon(fd, IN);
        true
    }
}

/// What the network does to a connection, with the edges that it causes.
impl Kernel {
    pub(crate) fn arrive(&mut self, id: Id, bytes: &[u8]) -> usize {
        let (taken, fd) = (self.connections[id].arrive(bytes), self.connections[id].fd);
        if taken > 0
            && let Some(fd) = fd
        {
            self.edge_soon(fd, IN);
        }
        taken
    }

    pub(crate) fn half_close(&mut self, id: Id) {
        self.connections[id].end_input();
        if let Some(fd) = self.connections[id].fd {
            self.edge_soon(fd, IN | HUNG_UP);
        }
    }

    /// The client makes the next byte urgent, and sends it.
    pub(crate) fn arrive_urgent(&mut self, id: Id, byte: u8) {
        self.connections[id].arrive_urgent(byte);
        if let Some(fd) = self.connections[id].fd {
            self.edge_soon(fd, IN | URGENT);
        }
    }

    pub(crate) fn break_off(&mut self, id: Id) {
        let now = self.now;
        self.connections[id].reset(now);
        if let Some(fd) = self.connections[id].fd {
            self.edge_soon(fd, IN | OUT | HUNG_UP | BROKEN);
        }
    }

    /// The client reads some of what was sent to it.
    pub(crate) fn client_reads(&mut self, id: Id, most: usize) -> usize {
        let connection = &mut self.connections[id];
        let before = connection.is_writable();
        let count = connection.client_reads(most);
        let fd = connection.fd.filter(|_| !before && connection.is_writable() && connection.wants_room);
        if let Some(fd) = fd {
            self.edge_soon(fd, OUT);
        }
        count
    }
}
