//! A bound UDP socket: datagrams come in and go out one by one, and no call here ever waits.
//!
//! Each datagram takes one `recvmsg(2)`. `recvmmsg(2)` would take fewer system calls, but every socket would need a
//! buffer for each datagram of a batch, and nix's safe wrapper cannot keep its headers from one batch to the next.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;

use bytes::BytesMut;
use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc::in6_pktinfo;
use nix::sys::socket::sockopt::{Ipv6RecvPacketInfo, ReuseAddr};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockType, SockaddrStorage, recvmsg, sendto, setsockopt};

use crate::config::DATAGRAM;
use crate::connection::{Output, Tuning, inet_socket};

#[derive(Debug)]
pub(crate) struct UdpEndpoint {
    pub(crate) socket: UdpSocket,
    /// The bound address. A multicast endpoint has the group's here, even if it is bound to the unspecified address.
    pub(crate) address: SocketAddr,
    /// The index of the datagram service that answers here.
    pub(crate) service: usize,
    /// The group of a link, which the socket cannot be bound to.
    link_group: Option<LinkGroup>,
    /// Where a datagram is received.
    packet: Box<[u8]>,
    /// The reply to the datagram at hand.
    reply: Output,
}

/// An IPv6 group of one node or link, and where the kernel writes what a datagram was sent to.
#[derive(Debug)]
struct LinkGroup {
    address: Ipv6Addr,
    control: Vec<u8>,
}

/// One datagram, and a place for the reply to it.
#[derive(Debug)]
pub(crate) struct Packet<'a> {
    pub(crate) bytes: &'a [u8],
    /// False when the datagram was longer than [`DATAGRAM`].
    pub(crate) is_whole: bool,
    /// False when the datagram was sent to another address than the endpoint's.
    pub(crate) is_addressed: bool,
    pub(crate) from: SocketAddr,
    pub(crate) reply: &'a mut Output,
}

impl UdpEndpoint {
    /// Binds a unicast address. An IPv6 address receives IPv6 only, as listeners do.
    ///
    /// The socket has no SO_REUSEADDR: a second server could then bind the same address, and would take part of the
    /// datagrams without an error on either side.
    pub(crate) fn bind(address: SocketAddr, service: usize, tuning: &mut Tuning) -> io::Result<UdpEndpoint> {
        let socket = inet_socket(address, SockType::Datagram)?;
        tuning.bind(&socket, address)?;
        UdpEndpoint::adopt(socket.into(), service)
    }

    /// Binds a multicast group. Other programs on the machine may bind it too.
    pub(crate) fn bind_group(group: SocketAddr, service: usize, tuning: &mut Tuning) -> io::Result<UdpEndpoint> {
        // Linux delivers to a socket only what is addressed to the address that it is bound to, so a socket bound to
        // the group receives nothing else. The kernel binds a group of one link only together with an interface, and
        // that binding is lost when the interface goes. For such a group the endpoint binds the unspecified address,
        // receives everything that is sent to its UDP port, and asks the kernel what each datagram was sent to.
        let address = if is_scoped(group) { SocketAddr::from((Ipv6Addr::UNSPECIFIED, group.port())) } else { group };
        let socket = inet_socket(address, SockType::Datagram)?;
        setsockopt(&socket, ReuseAddr, &true)?;
        tuning.bind(&socket, address)?;
        let mut endpoint = UdpEndpoint::adopt(socket.into(), service)?;
        endpoint.address = SocketAddr::new(group.ip(), endpoint.address.port());
        if let (true, IpAddr::V6(address)) = (is_scoped(group), group.ip()) {
            setsockopt(&endpoint.socket, Ipv6RecvPacketInfo, &true)?;
            endpoint.link_group = Some(LinkGroup { address, control: cmsg_space!(in6_pktinfo) });
        }
        Ok(endpoint)
    }

    /// Takes a socket that is bound already.
    pub(crate) fn adopt(socket: UdpSocket, service: usize) -> io::Result<UdpEndpoint> {
        let reply = Output::new(BytesMut::zeroed(DATAGRAM));
        let (address, packet) = (socket.local_addr()?, Box::new([0; DATAGRAM]));
        Ok(UdpEndpoint { socket, address, service, link_group: None, packet, reply })
    }

    /// Receives a datagram, or `None` when none has arrived.
    ///
    /// # Errors
    /// The kernel reports here what the network said about a datagram that was sent before (udp(7)), or that it has
    /// no memory. The next call may succeed.
    pub(crate) fn receive(&mut self) -> nix::Result<Option<Packet<'_>>> {
        let mut parts = [IoSliceMut::new(&mut self.packet)];
        let (group, control) = match &mut self.link_group {
            Some(LinkGroup { address, control }) => (Some(*address), Some(&mut control[..])),
            None => (None, None),
        };
        match recvmsg::<SockaddrStorage>(self.socket.as_raw_fd(), &mut parts, control, MsgFlags::MSG_DONTWAIT) {
            Ok(message) => {
                let is_addressed = group.is_none_or(|group| {
                    message.cmsgs().is_ok_and(|mut all| {
                        all.any(|one| {
                    matches!(one, ControlMessageOwned::Ipv6PacketInfo(info) if group.octets() == info.ipi6_addr.s6_addr)
                })
                    })
                });
                let is_whole = !message.flags.contains(MsgFlags::MSG_TRUNC);
                // An adopted socket may be of another family. A UDP datagram always has a sender.
                let from = message.address.as_ref().and_then(ip_address).ok_or(Errno::EAFNOSUPPORT)?;
                let length = message.bytes.min(DATAGRAM);
                self.reply.reset();
                let bytes = &self.packet[..length];
                Ok(Some(Packet { bytes, is_whole, is_addressed, from, reply: &mut self.reply }))
            }
            Err(Errno::EAGAIN) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends the reply as one datagram.
    ///
    /// # Errors
    /// The kernel cannot send it at once, or has no route; the datagram is lost.
    pub(crate) fn send_reply(&self, to: SocketAddr) -> nix::Result<()> {
        sendto(self.socket.as_raw_fd(), self.reply.bytes(), &SockaddrStorage::from(to), MsgFlags::MSG_DONTWAIT)
            .map(drop)
    }
}

/// The IPv4 or IPv6 address in what the kernel wrote.
pub(super) fn ip_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|address| SocketAddrV4::from(*address).into());
    v4.or_else(|| address.as_sockaddr_in6().map(|address| SocketAddrV6::from(*address).into()))
}

/// True for the IPv6 groups of one node or one link (RFC 4291, section 2.7), which have a meaning only together with
/// an interface.
fn is_scoped(group: SocketAddr) -> bool {
    matches!(group.ip(), IpAddr::V6(group) if group.is_multicast() && matches!(group.octets()[1] & 0x0f, 1 | 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_a_node_and_of_a_link_are_scoped() {
        for (group, scoped) in [("ff01::1", true), ("ff12::1", true), ("ff05::1", false), ("ff0e::1", false)] {
            assert_eq!(is_scoped(SocketAddr::new(group.parse().unwrap(), 7)), scoped, "{group}");
        }
        assert!(!is_scoped("224.0.0.1:7".parse().unwrap()));
    }
}
