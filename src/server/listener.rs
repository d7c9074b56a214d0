//! A listening socket: bound as asked, its accepted sockets inheriting what every connection needs.

use std::io;
use std::net::{SocketAddr, TcpListener};

use nix::sys::socket::sockopt::ReuseAddr;
use nix::sys::socket::{Backlog, SockType, listen, setsockopt};

use crate::access::Backoff;
use crate::config::BACKLOG;
use crate::connection::{Client, Link, Tuning, inet_socket};
use crate::sys::Tick;

#[derive(Debug)]
pub(crate) struct Listener {
    pub(super) socket: TcpListener,
    pub(crate) address: SocketAddr,
    /// Which of the server's services its clients get.
    pub(crate) service: u16,
    pub(crate) backoff: Backoff,
    /// Not polled before then.
    pub(crate) resumes: Option<Tick>,
}

impl Listener {
    /// Binds and listens.
    pub(crate) fn bind(address: SocketAddr, service: u16, tuning: &mut Tuning) -> io::Result<Listener> {
        let socket = inet_socket(address, SockType::Stream)?;
        setsockopt(&socket, ReuseAddr, &true)?;
        tuning.bind(&socket, address)?;
        // nix refuses more than the C library's SOMAXCONN, which is 128 with musl. Then the kernel's own limit holds.
        listen(&socket, Backlog::new(BACKLOG).unwrap_or(Backlog::MAXALLOWABLE))?;
        Listener::adopt(TcpListener::from(socket), service, tuning)
    }

    /// Takes a socket that listens already.
    pub(crate) fn adopt(socket: TcpListener, service: u16, tuning: &mut Tuning) -> io::Result<Listener> {
        let address = socket.local_addr()?;
        // The accept loop drains the backlog; a client that gave up meanwhile must not make it wait.
        socket.set_nonblocking(true)?;
        tuning.listener(&socket);
        Ok(Listener { socket, address, service, backoff: Backoff::default(), resumes: None })
    }

    /// Polls the listener again once its pause is over. The time is forgotten then, before it can look like the future.
    pub(crate) fn resume_if_due(&mut self, now: Tick) {
        self.resumes = self.resumes.filter(|tick| !tick.reached(now));
    }

    /// A client was accepted: the listener need not pause, and the next failure is a first one.
    pub(super) fn resume(&mut self) {
        self.backoff.reset();
        self.resumes = None;
    }

    /// Accepts a client, which has no share of its address yet.
    pub(super) fn accept(&self) -> io::Result<Client> {
        let (socket, peer) = self.socket.accept()?;
        Ok(Client { share: None, link: Link::Socket(socket), peer, service: self.service })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;
    use std::time::Duration;

    /// The pause ends once, also when the clock goes on for half of its range and wraps.
    #[test]
    fn a_listener_that_resumed_is_not_paused_again_by_the_clock() {
        let mut tuning = Tuning::new(&Limits::default());
        let mut listener = Listener::bind(([127, 0, 0, 1], 0).into(), 0, &mut tuning).unwrap();
        let now = Tick::from_raw(u32::MAX - 100).unwrap();
        listener.resumes = Some(now.after(Duration::from_millis(500)));
        listener.resume_if_due(now);
        assert!(listener.resumes.is_some(), "not before its time");
        // 501 ms later, beyond the wrap.
        listener.resume_if_due(now.after(Duration::from_millis(500)));
        for half_a_range_later in [1 << 31, (1 << 31) + 1_000] {
            listener.resume_if_due(Tick::from_raw(half_a_range_later).unwrap());
            assert_eq!(listener.resumes, None);
        }
    }
}
