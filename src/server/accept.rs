//! What the accept loop does with new clients: admit, wait, shed or refuse, and pause a listener whose accept fails.

use std::fs::File;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv, send};

use super::deferred::{Deferred, Pending};
use super::listener::{Listener, open_reserve};
use super::server::Server;
use crate::access::{Admission, Failure, Load, Origin, Share, Shares, classify};
use crate::config::{ACCEPTS, BUSY, DEFER_TIMEOUT, Limits, QUEUE_FULL_TIMEOUT};
use crate::connection::{Client, Link};
use crate::engine::Refused;
use crate::error::Error;
use crate::log::{Text, info, warn};
use crate::shutdown::Phase;
use crate::sys::{Event, RateLimit, Tick};

/// What the accept loop accepts with.
pub(super) struct Accepting {
    pub(super) listeners: Vec<Listener>,
    /// With a limit per client only.
    shares: Option<Arc<Shares>>,
    /// Clients that wait until their address has fewer connections.
    pub(super) deferred: Deferred,
    queue: ReadyQueue,
    /// Closed to have a descriptor to answer with when there is no other.
    reserve: Option<File>,
    failure_lines: RateLimit,
    share_lines: RateLimit,
}

/// What the accept loop knows of the ready queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadyQueue {
    HasRoom,
    FullSince(Tick),
    /// It has been full for longer than a burst explains. The time is dropped here, before it is too old to compare.
    Stuck,
}

impl ReadyQueue {
    /// The state after the queue was found full at `now`.
    fn full_at(self, now: Tick) -> ReadyQueue {
        match self {
            ReadyQueue::HasRoom => ReadyQueue::FullSince(now),
            ReadyQueue::FullSince(since) if since.after(QUEUE_FULL_TIMEOUT).reached(now) => ReadyQueue::Stuck,
            full => full,
        }
    }
}

/// What a listener does after a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accept {
    Another,
    /// No more in this round: the backlog is empty, or the listener pauses.
    NoMore,
}

impl Accepting {
    /// Accepts for `places` connections at a time. `wake` wakes the accept loop.
    ///
    /// # Errors
    /// When the reserve descriptor cannot be opened.
    pub(super) fn new(
        listeners: Vec<Listener>,
        limits: &Limits,
        places: usize,
        wake: &Arc<Event>,
    ) -> Result<Accepting, Error> {
        let reserve = open_reserve().map_err(Error::setup("open /dev/null as the reserve descriptor"))?;
        Ok(Accepting {
            listeners,
            shares: limits.per_client.map(|limit| Arc::new(Shares::new(limit, places, wake.clone()))),
            deferred: Deferred::default(),
            queue: ReadyQueue::HasRoom,
            reserve: Some(reserve),
            failure_lines: RateLimit::new(Duration::from_secs(1)),
            share_lines: RateLimit::new(Duration::from_secs(1)),
        })
    }

    /// Closes a child process's copies, which would keep the addresses taken.
    pub(super) fn release(&mut self) {
        self.listeners.clear();
        self.reserve.take();
        self.deferred.clear();
    }

    /// The next time at which the accept loop must come back.
    pub(super) fn deadline(&self, now: Tick) -> Option<Tick> {
        let queue_full_until = match self.queue {
            ReadyQueue::FullSince(since) => Some(since.after(QUEUE_FULL_TIMEOUT)).filter(|tick| !tick.reached(now)),
            ReadyQueue::HasRoom | ReadyQueue::Stuck => None,
        };
        let resumes = self.listeners.iter().filter_map(|listener| listener.resumes);
        resumes
            .chain(queue_full_until)
            .chain(self.deferred.deadline())
            .fold(None, |first, next| Tick::earlier(first, Some(next)))
    }

    /// A share for one more connection of an address; `None` in it where there is no limit.
    fn take_share(&self, peer: SocketAddr) -> Result<Option<Share>, AtLimit> {
        match &self.shares {
            None => Ok(None),
            Some(shares) => shares.take(peer.ip()).map(Some).ok_or(AtLimit),
        }
    }
}

/// The address has as many connections as it may.
struct AtLimit;

impl Server {
    /// True when the listeners are to be polled. If not, a wake-up or a deadline of
    /// [`next_deadline`](Server::next_deadline) says when to ask again.
    pub(super) fn can_accept_or_wake(&mut self, now: Tick) -> bool {
        match self.stopping.phase() {
            Phase::Running => !matches!(self.admission_or_wake(now), Admission::Wait | Admission::Hold),
            Phase::Draining { .. } => true,
            Phase::Closing { .. } | Phase::Finished => false,
        }
    }

    /// What becomes of the next client. If that may change, a worker wakes the accept loop when it does.
    fn admission_or_wake(&mut self, now: Tick) -> Admission {
        let when_full = self.context().limits.when_full;
        let slot_free = self.serving.has_slot_or_wake();
        let queue_room = self.serving.has_queue_room_or_wake();
        let queue = &mut self.accepting.queue;
        *queue = if queue_room { ReadyQueue::HasRoom } else { queue.full_at(now) };
        let queue_stuck = *queue == ReadyQueue::Stuck;
        let admission = Load { slot_free, queue_room, queue_stuck, when_full }.admission();
        // With no idle connection to close, a new client waits.
        match admission {
            Admission::Shed if !self.serving.has_idle_or_wake() => Admission::Wait,
            admission => admission,
        }
    }

    /// Accepts what waits at one listener, up to a bound, so that signals and the other listeners get their turn.
    pub(super) fn accept_batch(&mut self, index: usize) -> Accept {
        let mut lost = 0;
        for _ in 0..ACCEPTS {
            let now = self.now();
            let admission = match self.stopping.phase() {
                Phase::Running => self.admission_or_wake(now),
                // Clients that connected before the shutdown get their requests answered. Later ones get only the
                // notice.
                Phase::Draining { .. } if self.serving.has_slot_or_wake() => Admission::Admit,
                Phase::Draining { .. } if self.context().is_draining() => Admission::Reject,
                Phase::Draining { .. } => Admission::Wait,
                Phase::Closing { .. } | Phase::Finished => return Accept::NoMore,
            };
            if matches!(admission, Admission::Wait | Admission::Hold) {
                return Accept::NoMore;
            }
            let Some(listener) = self.accepting.listeners.get_mut(index) else { return Accept::NoMore };
            match listener.accept() {
                Ok((socket, peer)) => {
                    listener.resume();
                    if self.receive_client(index, admission, socket, peer) == Accept::NoMore {
                        return Accept::NoMore;
                    }
                }
                Err(error) => {
                    match classify(&error) {
                        Failure::Empty => {}
                        Failure::Retry => {
                            self.context().counters.accept_retried.add(1);
                            lost += 1;
                            if lost < ACCEPTS {
                                continue;
                            }
                            // So many failures in a row mean that accept(2) does not consume the client (a security
                            // module that answers EPERM), so back off.
                            self.pause(index, &error);
                        }
                        Failure::Exhausted => self.answer_from_reserve(index, &error),
                        Failure::Fatal => self.fail(index, error),
                    }
                    return Accept::NoMore;
                }
            }
        }
        Accept::Another
    }

    fn receive_client(&mut self, index: usize, admission: Admission, socket: TcpStream, peer: SocketAddr) -> Accept {
        let service = self.accepting.listeners[index].service;
        if admission == Admission::Reject {
            self.refuse(&socket, service);
            return Accept::Another;
        }
        // The share is taken first, so that no connection is closed for a client over its share.
        match self.accepting.take_share(peer) {
            Ok(share) => {
                let client = Client { share, link: Link::Socket(socket), peer, service: service as u16 };
                self.admit(index, admission, client)
            }
            Err(AtLimit) => {
                self.defer(Pending { socket, peer, listener: index, service, until: self.now().after(DEFER_TIMEOUT) });
                Accept::Another
            }
        }
    }

    /// Gives a place to a client.
    fn admit(&mut self, index: usize, admission: Admission, client: Client) -> Accept {
        if admission == Admission::Shed {
            self.serving.shed();
        }
        info!("Starting connection from {}", Text(&client.peer));
        let (accepting, control) = (&mut self.accepting, &mut self.control);
        let mut release = || {
            accepting.release();
            if let Some(control) = control.take() {
                control.leave();
            }
        };
        let Err(Refused { client, pause }) = self.serving.admit(client, &mut release) else { return Accept::Another };
        if let Some(socket) = client.link.socket() {
            self.refuse(socket, client.service.into());
        }
        info!("Closing connection from {}", Text(&client.peer));
        let Some((wait, error)) = pause else { return Accept::Another };
        self.pause_for(index, wait, &error);
        Accept::NoMore
    }

    /// Answers a client for which there is no place. The caller then closes the socket.
    fn refuse(&self, socket: &TcpStream, service: usize) {
        let text = match self.stopping.phase() {
            Phase::Running => BUSY,
            _ => self.serving.services().tcp(service).notice(),
        };
        self.context().counters.refused.add(1);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let _ = send(socket.as_raw_fd(), text, flags);
        let _ = socket.shutdown(Shutdown::Write);
        // Input that is left unread would turn the close into a reset, which may destroy the answer.
        let _ = recv(socket.as_raw_fd(), &mut [0; 1024], MsgFlags::MSG_DONTWAIT);
    }

    /// Out of descriptors or memory: answers one client from the reserve, and pauses the listener.
    fn answer_from_reserve(&mut self, index: usize, error: &io::Error) {
        self.context().counters.accept_exhausted.add(1);
        drop(self.accepting.reserve.take());
        let listener = &self.accepting.listeners[index];
        if let Ok((socket, _)) = listener.accept() {
            self.refuse(&socket, listener.service);
        }
        self.accepting.reserve = open_reserve().ok();
        self.pause(index, error);
    }

    /// Pauses a listener for a time that grows with each failure.
    fn pause(&mut self, index: usize, error: &io::Error) {
        let wait = self.accepting.listeners[index].backoff.next();
        self.pause_for(index, wait, error);
    }

    fn pause_for(&mut self, index: usize, wait: Duration, error: &io::Error) {
        let now = self.now();
        let listener = &mut self.accepting.listeners[index];
        listener.resumes = Some(now.after(wait));
        if let Some(left_out) = self.accepting.failure_lines.event() {
            warn!(
                "Cannot accept on {}: {}; new clients wait ({} failures before this one not logged)",
                Text(&listener.address),
                Text(error),
                left_out
            );
        }
    }

    fn fail(&mut self, index: usize, source: io::Error) {
        self.context().counters.accept_failed.add(1);
        let address = self.accepting.listeners.remove(index).address;
        let action = self.stopping.fail(Error::Accept { address, source }, self.now());
        self.apply(action);
    }

    /// Lets a client wait whose address has all of its shares, if there is a place for it.
    fn defer(&mut self, pending: Pending) {
        if self.stopping.phase() != Phase::Running {
            self.refuse(&pending.socket, pending.service);
        } else if let Err(pending) = self.accepting.deferred.push(pending) {
            self.refuse_over_share(&pending);
        }
    }

    /// Admits the deferred clients that may come in now, and refuses those whose time is over.
    pub(super) fn revisit_deferred(&mut self) {
        let mut index = 0;
        while let Some(pending) = self.accepting.deferred.get(index) {
            let (peer, until) = (pending.peer, pending.until);
            let now = self.now();
            let admission = match self.stopping.phase() {
                Phase::Running => self.admission_or_wake(now),
                _ => Admission::Reject,
            };
            let share = match admission {
                Admission::Admit | Admission::Shed => self.accepting.take_share(peer),
                Admission::Wait | Admission::Hold | Admission::Reject => Err(AtLimit),
            };
            match share {
                Ok(share) => {
                    let Pending { socket, peer, listener, service, .. } = self.accepting.deferred.remove(index);
                    let client = Client { share, link: Link::Socket(socket), peer, service: service as u16 };
                    self.admit(listener, admission, client);
                }
                Err(AtLimit) if admission == Admission::Reject => {
                    let pending = self.accepting.deferred.remove(index);
                    self.refuse(&pending.socket, pending.service);
                }
                Err(AtLimit) if until.reached(now) => {
                    let pending = self.accepting.deferred.remove(index);
                    self.refuse_over_share(&pending);
                }
                Err(AtLimit) => index += 1,
            }
        }
    }

    fn refuse_over_share(&mut self, pending: &Pending) {
        self.context().counters.over_share.add(1);
        if let Some(left_out) = self.accepting.share_lines.event() {
            let share = self.context().limits.per_client.unwrap_or_default();
            warn!(
                "Client {} refused: {} has its share of {} connections ({} refusals before this one not logged)",
                Text(&pending.peer),
                Text(&Origin::from(pending.peer.ip())),
                share,
                left_out
            );
        }
        self.refuse(&pending.socket, pending.service);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_is_full_for_long_is_stuck_and_stays_so_half_a_range_later() {
        let start = Tick::from_raw(u32::MAX - 50).unwrap();
        let queue = ReadyQueue::HasRoom.full_at(start);
        assert_eq!(queue.full_at(start.after(QUEUE_FULL_TIMEOUT / 2)), ReadyQueue::FullSince(start));
        let stuck = queue.full_at(start.after(QUEUE_FULL_TIMEOUT));
        assert_eq!(stuck, ReadyQueue::Stuck);
        assert_eq!(stuck.full_at(Tick::from_raw(u32::MAX / 2).unwrap()), ReadyQueue::Stuck);
    }
}
