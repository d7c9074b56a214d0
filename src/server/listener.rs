//! A listening socket: bound as asked, its accepted sockets inheriting what every connection needs.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::sys::socket::sockopt::{Ipv6V6Only, ReuseAddr};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket};

use crate::access::Backoff;
use crate::config::BACKLOG;
use crate::connection::Tuning;
use crate::sys::Tick;

#[derive(Debug)]
pub(crate) struct Listener {
    socket: TcpListener,
    pub(crate) address: SocketAddr,
    /// Which of the server's services its clients get.
    pub(crate) service: usize,
    pub(crate) backoff: Backoff,
    /// Not polled before then.
    pub(crate) resumes: Option<Tick>,
}

impl Listener {
    /// Binds and listens. An IPv6 address serves IPv6 only, whatever the machine's default, so that `0.0.0.0`
    /// and `[::]` can be listened on side by side.
    pub(crate) fn bind(address: SocketAddr, service: usize, tuning: &mut Tuning) -> io::Result<Listener> {
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&socket, ReuseAddr, &true)?;
        if address.is_ipv6() {
            setsockopt(&socket, Ipv6V6Only, &true)?;
        }
        tuning.before_bind(&socket);
        bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
        listen(&socket, Backlog::new(BACKLOG)?)?;
        Listener::adopt(TcpListener::from(socket), service, tuning)
    }

    /// Takes a socket that listens already.
    pub(crate) fn adopt(socket: TcpListener, service: usize, tuning: &mut Tuning) -> io::Result<Listener> {
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

    pub(crate) fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.socket.accept()
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Opens a descriptor that is closed to have one with which to answer a client when there is no other.
pub(super) fn open_reserve() -> io::Result<File> {
    File::open("/dev/null")
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
