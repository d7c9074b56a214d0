//! What the accept loop does with new clients: admit, wait, shed or refuse, and pause a listener whose accept fails.

use std::fmt;
use std::fs::File;
use std::io;
use std::net::Shutdown;
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv, send};

use super::accepting::{AtLimit, Pending};
use super::server::Server;
use crate::access::{Admission, Failure, Load, Origin, ReadyQueue, classify};
use crate::config::{ACCEPTS, BACKLOG, BUSY, DEFER_TIMEOUT};
use crate::connection::Client;
use crate::engine::Refused;
use crate::error::Error;
use crate::log::{Text, info, warn};
use crate::shutdown::{Phase, Trigger};
use crate::sys::Tick;

impl Server {
    /// What becomes of the next client. If that may change, a wake-up of a worker or a deadline of
    /// [`next_deadline`](Server::next_deadline) says when to ask again.
    pub(super) fn admission_or_wake(&mut self, now: Tick) -> Admission {
        match self.stopping.phase() {
            Phase::Running => {}
            // Clients that connected before the shutdown get their requests answered. Later ones get only the notice.
            Phase::Draining { .. } if self.serving.has_slot_or_wake() => return Admission::Admit,
            Phase::Draining { .. } if self.context().is_draining() => return Admission::Reject,
            Phase::Draining { .. } | Phase::Closing { .. } | Phase::Finished => return Admission::Wait,
        }
        let when_full = self.context().limits.when_full;
        let slot_free = self.serving.has_slot_or_wake();
        let queue_room = self.serving.has_queue_room_or_wake();
        let queue = if queue_room { ReadyQueue::HasRoom } else { self.accepting.queue.full_at(now) };
        self.accepting.queue = queue;
        let admission = Load { slot_free, queue, when_full }.admission();
        // With no idle connection to close, a new client waits.
        match admission {
            Admission::Shed if !self.serving.has_idle_or_wake() => Admission::Wait,
            admission => admission,
        }
    }

    /// Accepts what waits at one listener, up to a bound, so that signals and the other listeners get their turn. Breaks
    /// off when there is no more to do in this round: the backlog is empty, or the listener pauses.
    pub(super) fn accept_batch(&mut self, index: usize) -> ControlFlow<()> {
        let mut lost = 0;
        for _ in 0..ACCEPTS {
            let now = self.now();
            let admission = self.admission_or_wake(now);
            if admission == Admission::Wait {
                return ControlFlow::Break(());
            }
            let Some(listener) = self.accepting.listeners.get_mut(index) else { return ControlFlow::Break(()) };
            match listener.accept() {
                Ok(client) => {
                    listener.resume();
                    self.receive_client(index, admission, client)?;
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
                    return ControlFlow::Break(());
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// Accepts all clients that the kernel has connected already.
    pub(super) fn empty_backlog(&mut self) {
        for index in 0..self.accepting.listeners.len() {
            _ = (0..BACKLOG as usize / ACCEPTS).try_for_each(|_| self.accept_batch(index));
        }
    }

    fn receive_client(&mut self, listener: usize, admission: Admission, mut client: Client) -> ControlFlow<()> {
        if admission == Admission::Reject {
            self.refuse_full(&client);
            return ControlFlow::Continue(());
        }
        // The share is taken first, so that no connection is closed for a client over its share.
        match self.accepting.take_share(client.peer) {
            Ok(share) => {
                client.share = share;
                return self.admit(listener, admission, client);
            }
            Err(AtLimit) if self.stopping.phase() != Phase::Running => self.refuse_full(&client),
            Err(AtLimit) => {
                let until = self.now().after(DEFER_TIMEOUT);
                if let Err(Pending { client, .. }) = self.accepting.defer(Pending { client, listener, until }) {
                    self.refuse_over_share(&client);
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// Gives a place to a client.
    fn admit(&mut self, listener: usize, admission: Admission, client: Client) -> ControlFlow<()> {
        if admission == Admission::Shed {
            self.serving.shed();
        }
        let service = usize::from(client.service);
        info!("Starting connection from {} ({})", Text(&client.peer), self.serving.services().tcp(service).name());
        let (accepting, control) = (&mut self.accepting, &mut self.control);
        let mut release = || {
            accepting.release();
            if let Some(control) = control.take() {
                control.leave();
            }
        };
        if let Err(Refused { client, pause }) = self.serving.admit(client, &mut release) {
            let reason: &dyn fmt::Display = match &pause {
                Some((_, error)) => error,
                None => &"the server is full",
            };
            self.refuse(&client, reason);
            let name = self.serving.services().tcp(service).name();
            info!("Closing connection from {} ({}): {}", Text(&client.peer), name, Text(reason));
            if let Some((wait, error)) = pause {
                self.pause_for(listener, wait, &error);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    /// Refuses a client because every place is taken, or because the server shuts down.
    fn refuse_full(&self, client: &Client) {
        let running = self.stopping.phase() == Phase::Running;
        self.refuse(client, &if running { "the server is full" } else { "the server shuts down" });
    }

    fn refuse_over_share(&self, client: &Client) {
        self.context().counters.over_share.add(1);
        let (origin, share) = (Origin::from(client.peer.ip()), self.context().limits.per_client.unwrap_or_default());
        self.refuse(client, &format_args!("{origin} has its share of {share} connections"));
    }

    /// Answers a client that gets no place, and logs why, a line a second. The caller then closes the socket.
    fn refuse(&self, client: &Client, reason: &dyn fmt::Display) {
        if let Some(left_out) = self.accepting.refusal_lines.event() {
            warn!(
                "Client {} refused: {} ({} refusals before this one not logged)",
                Text(&client.peer),
                Text(reason),
                left_out
            );
        }
        let Some(socket) = client.link.socket() else { return };
        let text = match self.stopping.phase() {
            Phase::Running => BUSY,
            _ => self.serving.services().tcp(client.service.into()).notice(),
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
        if let Ok(client) = self.accepting.listeners[index].accept() {
            self.refuse(&client, error);
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
        self.stopping.failure = Some(Error::Accept { address, source });
        let action = self.stopping.shutdown.drain(Trigger::Failure, None, self.now());
        self.apply(action);
    }

    /// Admits the deferred clients that may come in now, and refuses those whose time is over. A client whose address has
    /// room for it again waits on while the server is full, as others do in the kernel's backlog.
    pub(super) fn revisit_deferred(&mut self) {
        let mut index = 0;
        while let Some(Pending { client, until, .. }) = self.accepting.deferred.get(index) {
            let now = self.now();
            let (peer, is_late) = (client.peer, until.reached(now));
            if client.share.is_none()
                && let Ok(share) = self.accepting.take_share(peer)
            {
                self.accepting.deferred[index].client.share = share;
            }
            let has_share = self.accepting.deferred[index].client.share.is_some();
            let admission = match self.stopping.phase() {
                Phase::Running => self.admission_or_wake(now),
                _ => Admission::Reject,
            };
            let waits = match admission {
                Admission::Admit | Admission::Shed => !has_share && !is_late,
                Admission::Wait => has_share || !is_late,
                Admission::Reject => false,
            };
            if waits {
                index += 1;
                continue;
            }
            let Pending { client, listener, .. } = self.accepting.deferred.remove(index);
            if admission == Admission::Reject {
                self.refuse_full(&client);
            } else if has_share {
                _ = self.admit(listener, admission, client);
            } else {
                self.refuse_over_share(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builtin::Echo;
    use crate::connection::Link;
    use std::net::TcpStream;

    /// The address of a client that waited for a share has room again, and the server is full: the client is not refused,
    /// wakes nothing, and gets the next place.
    #[test]
    fn a_client_with_its_share_waits_for_a_place() {
        let builder = Server::builder(Echo).connections(1).per_client(1).listen("127.0.0.1:0").unwrap();
        let mut server = builder.build().unwrap();
        let address = server.addresses().next().unwrap();
        let _first = TcpStream::connect(address).unwrap();
        while server.stats().accepted == 0 {
            _ = server.accept_batch(0);
        }
        let link = Link::Socket(TcpStream::connect(address).unwrap());
        let client = Client { share: None, link, peer: ([192, 0, 2, 1], 1).into(), service: 0 };
        let until = server.now();
        assert!(server.accepting.defer(Pending { client, listener: 0, until }).is_ok());
        server.revisit_deferred();
        assert_eq!((server.stats().over_share, server.accepting.deferred.len()), (0, 1));
        assert_eq!(server.accepting.deadline(until), None);
        server.serving.shed();
        server.revisit_deferred();
        assert_eq!((server.stats().accepted, server.accepting.deferred.len()), (2, 0));
    }
}
