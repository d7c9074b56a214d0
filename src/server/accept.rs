//! What the accept loop does with new clients: admit, wait, shed or refuse, and pause a listener whose accept fails.

use std::fs::File;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv, send};

use super::accepting::{Accept, AtLimit, ReadyQueue};
use super::deferred::Pending;
use super::server::Server;
use crate::access::{Admission, Failure, Load, Origin, classify};
use crate::config::{ACCEPTS, BUSY, DEFER_TIMEOUT};
use crate::connection::{Client, Link};
use crate::engine::Refused;
use crate::error::Error;
use crate::log::{Text, info, warn};
use crate::shutdown::Phase;
use crate::sys::Tick;

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
            match listener.socket.accept() {
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
        if let Ok((socket, _)) = listener.socket.accept() {
            self.refuse(&socket, listener.service);
        }
        self.accepting.reserve = File::open("/dev/null").ok();
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
