//! What the accept loop does with new clients: admit, wait, shed or refuse, and pause a listener whose accept fails.

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
            self.refuse(&client);
            return ControlFlow::Continue(());
        }
        // The share is taken first, so that no connection is closed for a client over its share.
        match self.accepting.take_share(client.peer) {
            Ok(share) => {
                client.share = share;
                return self.admit(listener, admission, client);
            }
            Err(AtLimit) if self.stopping.phase() != Phase::Running => self.refuse(&client),
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
            self.refuse(&client);
            let name = self.serving.services().tcp(service).name();
            info!("Closing connection from {} ({}): the server is full", Text(&client.peer), name);
            if let Some((wait, error)) = pause {
                self.pause_for(listener, wait, &error);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    /// Answers a client for which there is no place, and logs that. The caller then closes the socket.
    fn refuse(&self, client: &Client) {
        if let Some(left_out) = self.accepting.refusal_lines.event() {
            let reason = if self.stopping.phase() == Phase::Running { "is full" } else { "shuts down" };
            warn!(
                "Client {} refused: the server {} ({} refusals before this one not logged)",
                Text(&client.peer),
                reason,
                left_out
            );
        }
        self.answer(client);
    }

    /// Answers a client that is refused.
    fn answer(&self, client: &Client) {
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
            self.refuse(&client);
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

    /// Admits the deferred clients that may come in now, and refuses those whose time is over.
    pub(super) fn revisit_deferred(&mut self) {
        let mut index = 0;
        while index < self.accepting.deferred.len() {
            let now = self.now();
            let admission = match self.stopping.phase() {
                Phase::Running => self.admission_or_wake(now),
                _ => Admission::Reject,
            };
            let pending = &self.accepting.deferred[index];
            let share = match admission {
                Admission::Admit | Admission::Shed => self.accepting.take_share(pending.client.peer),
                Admission::Wait | Admission::Reject => Err(AtLimit),
            };
            if share.is_err() && admission != Admission::Reject && !pending.until.reached(now) {
                index += 1;
                continue;
            }
            let Pending { mut client, listener, .. } = self.accepting.deferred.remove(index);
            match share {
                Ok(share) => {
                    client.share = share;
                    _ = self.admit(listener, admission, client);
                }
                Err(AtLimit) if admission == Admission::Reject => self.refuse(&client),
                Err(AtLimit) => self.refuse_over_share(&client),
            }
        }
    }

    fn refuse_over_share(&self, client: &Client) {
        self.context().counters.over_share.add(1);
        if let Some(left_out) = self.accepting.share_lines.event() {
            let share = self.context().limits.per_client.unwrap_or_default();
            warn!(
                "Client {} refused: {} has its share of {} connections ({} refusals before this one not logged)",
                Text(&client.peer),
                Text(&Origin::from(client.peer.ip())),
                share,
                left_out
            );
        }
        self.answer(client);
    }
}
