//! The parked connections: one edge-triggered epoll instance that the leader alone waits in (epoll(7)).
//!
//! A socket is registered once, when it is first parked, and re-registered only when what is waited for turns
//! from input to room for output or back. Closing the socket removes it.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;

use super::queue::Token;
use crate::config::EVENTS;
use crate::connection::Interest;
use crate::connection::{event, raise};
use crate::error::Error;

/// The token of the leader's own wake-up: no slot has it.
const KICK: u64 = u64::MAX;

#[derive(Debug)]
pub(super) struct Parked {
    epoll: Epoll,
    kick: EventFd,
}

/// A socket that is ready, and whether its peer has closed its sending side, or has sent urgent data: recv(2) stops
/// before that, so a short count does not say that nothing more has arrived.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ready {
    pub(super) token: Token,
    pub(super) hangup: bool,
}

impl Parked {
    pub(super) fn new() -> Result<Parked, Error> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(Error::setup("make the poller"))?;
        let kick = event("make the leader's event")?;
        // Edge-triggered, so that a kick needs no read; its counter has room for 2^64 of them.
        let interest = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, KICK);
        epoll.add(&kick, interest).map_err(Error::setup("watch the leader's event"))?;
        Ok(Parked { epoll, kick })
    }

    /// Wakes the leader.
    pub(super) fn kick(&self) {
        raise(&self.kick);
    }

    /// True when [`poll`](Parked::poll) would find something. Takes nothing away: a poller can be polled (epoll(7)).
    pub(super) fn is_ready(&self) -> bool {
        let mut fds = [PollFd::new(self.epoll.0.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|count| count > 0)
    }

    /// Watches a socket. Readiness that is there already is reported too, so nothing is missed in between.
    pub(super) fn watch(
        &self,
        socket: impl AsFd,
        token: Token,
        wanted: Interest,
        registered: Option<Interest>,
    ) -> nix::Result<()> {
        if registered == Some(wanted) {
            return Ok(());
        }
        let flags = match wanted {
            Interest::Input => EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLPRI,
            Interest::Output => EpollFlags::EPOLLOUT,
        };
        let mut event = EpollEvent::new(flags | EpollFlags::EPOLLET, token.into());
        match registered {
            None => self.epoll.add(socket, event),
            Some(_) => self.epoll.modify(socket, &mut event),
        }
    }

    /// Reports up to [`EVENTS`] ready sockets to `found`, after waiting for the first one if `wait` is set.
    pub(super) fn poll(&self, wait: bool, mut found: impl FnMut(Ready)) {
        let mut events = [EpollEvent::empty(); EVENTS];
        let timeout = if wait { EpollTimeout::NONE } else { EpollTimeout::ZERO };
        let count = match self.epoll.wait(&mut events, timeout) {
            Ok(count) => count,
            // Workers block all signals, but a debugger's stop and continue shows as EINTR too (signal(7)).
            Err(Errno::EINTR) => 0,
            Err(error) => {
                debug_assert!(false, "epoll_wait: {error}");
                0
            }
        };
        let behind = EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLPRI | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
        for event in &events[..count] {
            if event.data() != KICK {
                found(Ready { token: event.data() as Token, hangup: event.events().intersects(behind) });
            }
        }
    }
}
