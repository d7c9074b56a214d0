//! The accept loop's way with new clients: admit, wait, shed or reject, and what to do when accepting fails.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv, send};

use super::deferred::Pending;
use super::listener::open_reserve;
use super::server::Server;
use crate::access::{Failure, Load, Origin, Verdict, classify};
use crate::config::{ACCEPTS, BUSY, DEFER_TIMEOUT, QUEUE_PATIENCE, WhenFull};
use crate::error::Error;
use crate::log::{Text, info, warn};
use crate::shutdown::{Phase, Trigger};
use crate::sys::Tick;

impl Server {
    /// Whether the listeners are to be polled. If not, a wake-up or [`next_deadline`](Server::next_deadline)
    /// says when to ask again.
    pub(super) fn admits(&mut self, now: Tick) -> bool {
        match self.ladder.phase {
            Phase::Running => !matches!(self.verdict(now), Verdict::Wait | Verdict::Hold),
            Phase::Draining { .. } => true,
            Phase::Closing { .. } | Phase::Over => false,
        }
    }

    pub(super) fn verdict(&mut self, now: Tick) -> Verdict {
        let when_full = self.engine.context.limits.when_full;
        let slot_free = self.engine.slot_free(when_full != WhenFull::Reject);
        let queue_room = self.engine.queue_room();
        if queue_room {
            self.queue_full_since = None;
        }
        let stuck = |since: &mut Tick| since.after(QUEUE_PATIENCE).reached(now);
        let queue_stuck = !queue_room && stuck(self.queue_full_since.get_or_insert(now));
        let verdict = Load { slot_free, queue_room, queue_stuck, when_full }.verdict();
        // With no idle connection to close, a new client waits.
        if verdict == Verdict::Shed && !self.engine.has_idle() { Verdict::Wait } else { verdict }
    }

    /// Accepts what waits at one listener, up to a bound, so that signals and the others are heard. True when
    /// more may wait.
    pub(super) fn accept_batch(&mut self, index: usize) -> bool {
        let mut lost = 0;
        for _ in 0..ACCEPTS {
            let now = self.now();
            let verdict = match self.ladder.phase {
                Phase::Running => self.verdict(now),
                // Clients that connected before the shutdown get their requests answered. Later ones get only the
                // notice.
                Phase::Draining { .. } if self.engine.slot_free(false) => Verdict::Admit,
                Phase::Draining { .. } if self.engine.context.is_draining() => Verdict::Reject,
                Phase::Draining { .. } => Verdict::Wait,
                Phase::Closing { .. } | Phase::Over => return false,
            };
            if matches!(verdict, Verdict::Wait | Verdict::Hold) {
                return false;
            }
            let Some(listener) = self.listeners.get(index) else { return false };
            match listener.accept() {
                Ok((socket, peer)) => {
                    self.listeners[index].backoff.reset();
                    self.listeners[index].resumes = None;
                    if !self.receive_client(index, verdict, socket, peer) {
                        return false;
                    }
                }
                Err(error) => match classify(&error) {
                    Failure::Empty => return false,
                    Failure::Retry => {
                        self.engine.context.counters.accept_retried.add(1);
                        lost += 1;
                        // So many failures in a row mean that accept(2) does not consume the client (a security module
                        // that answers EPERM), so back off.
                        if lost == ACCEPTS {
                            let wait = self.listeners[index].backoff.next();
                            self.pause(index, wait, &error);
                            return false;
                        }
                    }
                    Failure::Exhausted => {
                        self.back_off(index, &error);
                        return false;
                    }
                    Failure::Fatal => {
                        self.fail(index, error);
                        return false;
                    }
                },
            }
        }
        true
    }

    /// False when the listener is to be left alone.
    fn receive_client(&mut self, index: usize, verdict: Verdict, socket: TcpStream, peer: SocketAddr) -> bool {
        if verdict == Verdict::Reject {
            self.turn_away(socket, self.listeners[index].service);
            return true;
        }
        // Before anybody is closed for it.
        if !self.engine.enter(peer) {
            self.defer(index, socket, peer);
            return true;
        }
        self.welcome(index, verdict, socket, peer)
    }

    /// Gives a place to a client that has [entered](crate::engine::Engine::enter). False when the listener is to be
    /// left alone.
    pub(super) fn welcome(&mut self, index: usize, verdict: Verdict, socket: TcpStream, peer: SocketAddr) -> bool {
        if verdict == Verdict::Shed {
            self.engine.shed();
        }
        info!("Starting connection from {}", Text(&peer));
        if self.children.is_some() {
            return self.fork(index, socket, peer);
        }
        let service = self.listeners[index].service;
        if let Some(socket) = self.engine.admit(socket, peer, service) {
            self.engine.leave(peer);
            self.turn_away(socket, service);
        }
        true
    }

    /// Tells a client that there is no place for it, and closes.
    pub(super) fn turn_away(&self, socket: TcpStream, service: usize) {
        let text = match self.ladder.phase {
            Phase::Running => BUSY,
            _ => self.engine.driver.hosts[service].notice(),
        };
        self.engine.context.counters.refused.add(1);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let _ = send(socket.as_raw_fd(), text, flags);
        let _ = socket.shutdown(Shutdown::Write);
        // What it has sent already would turn the close into a reset, which may destroy the answer.
        let _ = recv(socket.as_raw_fd(), &mut [0; 1024], MsgFlags::MSG_DONTWAIT);
    }

    /// Out of descriptors or memory: answers one client from the reserve, and leaves the listener alone.
    fn back_off(&mut self, index: usize, error: &io::Error) {
        self.engine.context.counters.accept_exhausted.add(1);
        drop(self.reserve.take());
        if let Ok((socket, _)) = self.listeners[index].accept() {
            let service = self.listeners[index].service;
            self.turn_away(socket, service);
        }
        self.reserve = open_reserve().ok();
        let wait = self.listeners[index].backoff.next();
        self.pause(index, wait, error);
    }

    /// Leaves a listener alone for a while.
    pub(super) fn pause(&mut self, index: usize, wait: Duration, error: &io::Error) {
        self.listeners[index].resumes = Some(self.now().after(wait));
        if let Some(left_out) = self.accept_lines.event() {
            let address = &self.listeners[index].address;
            warn!(
                "Cannot accept on {}: {}; new clients wait ({} failures before this one not logged)",
                Text(address),
                Text(error),
                left_out
            );
        }
    }

    fn fail(&mut self, index: usize, source: io::Error) {
        self.engine.context.counters.accept_failed.add(1);
        let listener = self.listeners.remove(index);
        self.failure = Some(Error::Accept { address: listener.address, source });
        let action = self.ladder.drain(Trigger::Failure, self.now());
        self.act(action);
    }

    /// Lets a client wait whose address has its share.
    pub(super) fn defer(&mut self, listener: usize, socket: TcpStream, peer: SocketAddr) {
        let service = self.listeners[listener].service;
        if self.ladder.phase != Phase::Running {
            return self.turn_away(socket, service);
        }
        let pending = Pending { socket, peer, listener, service, until: self.now().after(DEFER_TIMEOUT) };
        let kept = if self.deferred.has_place(peer.ip().into()) { self.deferred.0.push(pending) } else { Err(pending) };
        if let Err(pending) = kept {
            self.refuse_share(pending);
        }
    }

    /// Admits the deferred clients that may come in now, and refuses those whose time is over.
    pub(super) fn revisit_deferred(&mut self) {
        let mut index = 0;
        while let Some(pending) = self.deferred.0.get(index) {
            let (peer, until) = (pending.peer, pending.until);
            let now = self.now();
            let verdict = if self.ladder.phase == Phase::Running { self.verdict(now) } else { Verdict::Reject };
            match verdict {
                Verdict::Admit | Verdict::Shed if self.engine.enter(peer) => {
                    let pending = self.deferred.0.remove(index);
                    self.welcome(pending.listener, verdict, pending.socket, peer);
                }
                Verdict::Reject => {
                    let pending = self.deferred.0.remove(index);
                    self.turn_away(pending.socket, pending.service);
                }
                _ if until.reached(now) => {
                    let pending = self.deferred.0.remove(index);
                    self.refuse_share(pending);
                }
                _ => index += 1,
            }
        }
    }

    fn refuse_share(&mut self, pending: Pending) {
        self.engine.context.counters.over_share.add(1);
        if let Some(left_out) = self.share_lines.event() {
            let share = self.engine.context.limits.per_client.unwrap_or_default();
            warn!(
                "Client {} refused: {} has its share of {} connections ({} refusals before this one not logged)",
                Text(&pending.peer),
                Text(&Origin::from(pending.peer.ip())),
                share,
                left_out
            );
        }
        self.turn_away(pending.socket, pending.service);
    }
}
