//! The socket options that a server asks for and can do without.
//!
//! In come sockets that are to be bound, or that listen; out they go tuned, and in the end one line names the
//! options that the kernel did not take, once for the whole server. An accepted socket has the options of its listener,
//! which saves the calls for each. An option that correctness rests on is set where the socket is made.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::sockopt::{
    IpFreebind, Ipv6V6Only, KeepAlive, TcpKeepCount, TcpKeepIdle, TcpKeepInterval, TcpNoDelay, TcpUserTimeout,
};
use nix::sys::socket::{AddressFamily, SetSockOpt, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket};

use crate::config::{KEEP_ALIVE_COUNT, KEEP_ALIVE_IDLE, KEEP_ALIVE_INTERVAL, Limits, VANISHED};
use crate::log::{Text, warn};

/// A socket of the family of `address`, which is not bound yet.
pub(crate) fn inet_socket(address: SocketAddr, kind: SockType) -> nix::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    socket(family, kind, SockFlag::SOCK_CLOEXEC, None)
}

#[derive(Debug)]
pub(crate) struct Tuning {
    /// Bind to addresses that the machine does not have. False unless it is set.
    pub(crate) freebind: bool,
    user_timeout: Duration,
    /// The options that the kernel did not take, and why.
    missing: String,
}

impl Tuning {
    pub(crate) fn new(limits: &Limits) -> Tuning {
        // The server itself times out a client that is there but does not read: Linux applies TCP_USER_TIMEOUT to it
        // too (tcp(7) speaks of data that "remains buffered but untransmitted, due to zero window size").
        let user_timeout = match limits.write_timeout {
            // The client may take as long as it likes, and the kernel gives up when its own retransmissions end.
            Duration::ZERO => Duration::ZERO,
            timeout => VANISHED.max(timeout),
        };
        Tuning { freebind: false, user_timeout, missing: String::new() }
    }

    /// Binds a socket. An IPv6 address serves IPv6 only, whatever the machine's default, so that `0.0.0.0` and `[::]`
    /// can be served side by side.
    pub(crate) fn bind(&mut self, socket: &OwnedFd, address: SocketAddr) -> nix::Result<()> {
        if address.is_ipv6() {
            setsockopt(socket, Ipv6V6Only, &true)?;
        }
        // IP_FREEBIND holds for IPv6 as well: Linux keeps one flag for both.
        if self.freebind {
            self.set(socket, "IP_FREEBIND", IpFreebind, &true);
        }
        bind(socket.as_raw_fd(), &SockaddrStorage::from(address))
    }

    /// For a listener: replies go out at once, and the kernel finds a client that has vanished, be it silent
    /// (keep-alive, RFC 9293, 3.8.4) or in the middle of a reply (user timeout, RFC 5482).
    pub(crate) fn listener(&mut self, socket: &impl AsFd) {
        let seconds = |time: Duration| time.as_secs() as u32;
        self.set(socket, "TCP_NODELAY", TcpNoDelay, &true);
        self.set(socket, "SO_KEEPALIVE", KeepAlive, &true);
        self.set(socket, "TCP_KEEPIDLE", TcpKeepIdle, &seconds(KEEP_ALIVE_IDLE));
        self.set(socket, "TCP_KEEPINTVL", TcpKeepInterval, &seconds(KEEP_ALIVE_INTERVAL));
        self.set(socket, "TCP_KEEPCNT", TcpKeepCount, &KEEP_ALIVE_COUNT);
        self.set(socket, "TCP_USER_TIMEOUT", TcpUserTimeout, &(self.user_timeout.as_millis() as u32));
    }

    /// Logs what the kernel lacks, if anything.
    pub(crate) fn report(&self) {
        if !self.missing.is_empty() {
            warn!("The kernel refuses socket options, and the server does without: {}", Text(&self.missing));
        }
    }

    fn set<O: SetSockOpt>(&mut self, socket: &impl AsFd, name: &'static str, option: O, value: &O::Val) {
        let Err(errno) = setsockopt(socket, option, value) else { return };
        if !self.missing.contains(name) {
            let comma = if self.missing.is_empty() { "" } else { ", " };
            self.missing += &format!("{comma}{name} ({errno:?})");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use nix::sys::socket::getsockopt;

    fn accepted(limits: &Limits) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut tuning = Tuning::new(limits);
        tuning.listener(&listener);
        assert_eq!(tuning.missing, "");
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        listener.accept().unwrap().0
    }

    #[test]
    fn an_accepted_socket_inherits_every_option() {
        let socket = accepted(&Limits::default());
        assert!(getsockopt(&socket, TcpNoDelay).unwrap() && getsockopt(&socket, KeepAlive).unwrap());
        assert_eq!(getsockopt(&socket, TcpKeepIdle), Ok(30));
        assert_eq!(getsockopt(&socket, TcpKeepInterval), Ok(10));
        assert_eq!(getsockopt(&socket, TcpKeepCount), Ok(3));
        assert_eq!(getsockopt(&socket, TcpUserTimeout), Ok(60_000));
    }

    #[test]
    fn a_client_that_does_not_read_is_closed_by_the_write_timeout_and_not_before() {
        let patient = Limits { write_timeout: Duration::from_secs(600), ..Limits::default() };
        assert_eq!(getsockopt(&accepted(&patient), TcpUserTimeout), Ok(600_000));
        let unlimited = Limits { write_timeout: Duration::ZERO, ..Limits::default() };
        assert_eq!(getsockopt(&accepted(&unlimited), TcpUserTimeout), Ok(0));
    }

    #[test]
    fn what_the_kernel_refuses_is_named_once() {
        // A datagram socket has none of the options of TCP.
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut tuning = Tuning::new(&Limits::default());
        tuning.listener(&socket);
        tuning.listener(&socket);
        let missing = tuning.missing;
        assert!(missing.starts_with("TCP_NODELAY (E") && !missing.contains("SO_KEEPALIVE"), "{missing}");
        assert_eq!(missing.matches("TCP_KEEPIDLE").count(), 1, "{missing}");
        assert_eq!(missing.split(", ").count(), 5, "{missing}");
    }
}
