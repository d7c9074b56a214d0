//! A bound UDP socket: datagrams come in and go out one by one, and nothing here ever waits.
//!
//! One `recvmsg(2)` per datagram. `recvmmsg(2)` would save some of the calls at the price of a buffer for every
//! datagram of a batch on every socket, and the safe wrapper of it cannot be kept from one batch to the next.

use std::io::{self, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::sockopt::{Ipv6V6Only, ReuseAddr};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrStorage, bind, recvmsg, sendto, setsockopt, socket,
};

use super::group::is_scoped;
use crate::tuning::Tuning;

#[derive(Debug)]
pub(crate) struct Port {
    socket: UdpSocket,
    pub(crate) address: SocketAddr,
    /// Which of the server's datagram services answers here.
    pub(crate) service: usize,
}

/// One datagram, whose bytes are in the buffer that it was received into.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) length: usize,
    /// False when the datagram was longer than the buffer.
    pub(crate) whole: bool,
    pub(crate) from: SocketAddr,
}

impl Port {
    /// Binds. An IPv6 address serves IPv6 only, as it does for listeners.
    pub(crate) fn bind(address: SocketAddr, service: usize, tuning: &mut Tuning) -> io::Result<Port> {
        Port::adopt(open(address, false, tuning)?, service)
    }

    /// Binds to a group, which other programs on the machine may do too.
    pub(crate) fn bind_group(group: SocketAddr, service: usize, tuning: &mut Tuning) -> io::Result<Port> {
        // Linux delivers to a socket what is addressed to the address that it is bound to: bound to the group,
        // it gets nothing else. A group whose scope is one link can be bound only together with an interface,
        // which would be lost when the interface goes; so everything for the port is received instead.
        let address = if is_scoped(group) { SocketAddr::from((Ipv6Addr::UNSPECIFIED, group.port())) } else { group };
        let mut port = Port::adopt(open(address, true, tuning)?, service)?;
        port.address = SocketAddr::new(group.ip(), port.address.port());
        Ok(port)
    }

    /// Takes a socket that is bound already.
    pub(crate) fn adopt(socket: UdpSocket, service: usize) -> io::Result<Port> {
        Ok(Port { address: socket.local_addr()?, socket, service })
    }

    /// Receives a datagram. `None` when there is none.
    ///
    /// # Errors
    /// What the network said about an earlier datagram (udp(7)), or want of memory. The next call may succeed.
    pub(crate) fn receive(&self, into: &mut [u8]) -> nix::Result<Option<Packet>> {
        let room = into.len();
        let mut parts = [IoSliceMut::new(into)];
        match recvmsg::<SockaddrStorage>(self.socket.as_raw_fd(), &mut parts, None, MsgFlags::MSG_DONTWAIT) {
            Ok(message) => {
                let whole = !message.flags.contains(MsgFlags::MSG_TRUNC);
                // Nobody else's datagrams than those of UDP get here, and these have a sender.
                let from = message.address.as_ref().and_then(peer).ok_or(Errno::EAFNOSUPPORT)?;
                Ok(Some(Packet { length: message.bytes.min(room), whole, from }))
            }
            Err(Errno::EAGAIN) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends a datagram, or drops it when it cannot be sent at once.
    pub(crate) fn send(&self, bytes: &[u8], to: SocketAddr) -> nix::Result<()> {
        sendto(self.socket.as_raw_fd(), bytes, &SockaddrStorage::from(to), MsgFlags::MSG_DONTWAIT).map(drop)
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The address of a sender.
pub(super) fn peer(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|address| SocketAddrV4::from(*address).into());
    v4.or_else(|| address.as_sockaddr_in6().map(|address| SocketAddrV6::from(*address).into()))
}

fn open(address: SocketAddr, shared: bool, tuning: &mut Tuning) -> io::Result<UdpSocket> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // Not for a unicast address: two servers there would share its datagrams without noticing.
    if shared {
        setsockopt(&socket, ReuseAddr, &true)?;
    }
    if address.is_ipv6() {
        setsockopt(&socket, Ipv6V6Only, &true)?;
    }
    tuning.before_bind(&socket);
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(UdpSocket::from(socket))
}
