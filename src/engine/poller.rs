//! The parked connections: one edge-triggered epoll instance, in which the leader alone waits (epoll(7)).
//!
//! A socket is registered when it is first parked, and registered anew only when what it waits for turns from input to
//! room for output or back. Closing the socket removes it.

use std::os::fd::AsFd;
use std::thread;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::access::Backoff;
use crate::config::EVENTS;
use crate::connection::Interest;
use crate::error::Error;
use crate::log::{Text, debug};
use crate::sys::{Event, is_readable};

/// The number under which the leader's own event is registered: no slot has it.
const LEADER: u64 = u64::MAX;

#[derive(Debug)]
pub(super) struct Poller {
    epoll: Epoll,
}

/// What the poller reports about a socket.
#[derive(Clone, Copy, Debug)]
pub(super) enum Edge {
    Ready(u16),
    /// The peer has ended its sending direction or has sent urgent data. recv(2) stops before either, so a short count
    /// does not say that nothing more has arrived.
    HungUp(u16),
}

impl Poller {
    /// Makes a poller whose leader is called away by raising `leader`, which must live as long.
    pub(super) fn new(leader: &Event) -> Result<Poller, Error> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(Error::setup("make the poller"))?;
        // Edge-triggered, so that a call needs no read.
        let interest = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, LEADER);
        epoll.add(leader, interest).map_err(Error::setup("watch the leader's event"))?;
        Ok(Poller { epoll })
    }

    /// True when [`wait`](Poller::wait) would find something. Takes nothing away: an epoll instance can be polled.
    pub(super) fn is_ready(&self) -> bool {
        is_readable(&self.epoll.0)
    }

    /// Watches a socket for `wanted`; `watched` is what it is watched for so far, and is kept up to date. Readiness
    /// that is there already is reported too, so nothing is missed in between.
    ///
    /// # Errors
    /// `ENOMEM`, and `ENOSPC` beyond fs.epoll.max_user_watches.
    pub(super) fn watch(
        &self,
        socket: impl AsFd,
        token: u16,
        wanted: Interest,
        watched: &mut Option<Interest>,
    ) -> nix::Result<()> {
        let flags = match wanted {
            Interest::Input => EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLPRI,
            Interest::Output => EpollFlags::EPOLLOUT,
            Interest::Nothing => return Ok(()),
        };
        if *watched == Some(wanted) {
            return Ok(());
        }
        let mut event = EpollEvent::new(flags | EpollFlags::EPOLLET, token.into());
        match watched {
            None => self.epoll.add(socket, event)?,
            Some(_) => self.epoll.modify(socket, &mut event)?,
        }
        *watched = Some(wanted);
        Ok(())
    }

    /// Reports up to [`EVENTS`] edges, after waiting for the first one as long as `timeout` allows.
    pub(super) fn wait(&self, timeout: EpollTimeout, mut report: impl FnMut(Edge)) {
        let mut events = [EpollEvent::empty(); EVENTS];
        let count = match self.epoll.wait(&mut events, timeout) {
            Ok(count) => count,
            // Workers block all signals, but a debugger's stop and continue shows as EINTR too (signal(7)).
            Err(Errno::EINTR) => 0,
            Err(error) => {
                // No error is documented that could stay. If one does, the workers must not spin on it.
                debug!("epoll_wait: {}", Text(&error));
                thread::sleep(Backoff::FIRST);
                0
            }
        };
        let behind = EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLPRI | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
        for event in &events[..count] {
            let token = event.data() as u16;
            if event.data() != LEADER {
                let hung_up = event.events().intersects(behind);
                report(if hung_up { Edge::HungUp(token) } else { Edge::Ready(token) });
            }
        }
    }
}
