//! A multicast group, and the interface that receives from it and sends to it (RFC 1112, RFC 3493).
//!
//! A group and an interface's name or address come in; a membership, or one sent datagram, comes out. Nothing here
//! keeps an interface's index: an interface may go, and come back with another index.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::str::FromStr;

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::net::if_::if_nametoindex;
use nix::sys::socket::sockopt::{IpMulticastTtl, Ipv6MulticastHops};
use nix::sys::socket::{ControlMessage, MsgFlags, SockType, SockaddrStorage, sendmsg, setsockopt};

use super::udp_endpoint::ip_address;
use crate::connection::inet_socket;

/// Bytes of the longest name of an interface (`IFNAMSIZ` without the NUL, netdevice(7)).
const LONGEST_NAME: usize = 15;

/// A network interface, by its name or by one of its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Interface {
    /// The name, as `ip link` shows it.
    Name(String),
    /// One of its addresses.
    Address(IpAddr),
}

impl Interface {
    /// # Errors
    /// `AddrNotAvailable` when no interface has this address now.
    fn name(&self) -> io::Result<String> {
        match self {
            Interface::Name(name) => Ok(name.clone()),
            Interface::Address(wanted) => {
                let name = find(|name, address| (address == *wanted).then(|| name.to_string()))?;
                name.ok_or_else(|| self.missing())
            }
        }
    }

    /// # Errors
    /// `AddrNotAvailable` when there is no such interface now.
    fn index(&self) -> io::Result<u32> {
        if_nametoindex(self.name()?.as_str()).map_err(|error| match error {
            // The C libraries ask through a socket, for which there may be no descriptor.
            Errno::ENODEV => self.missing(),
            error => error.into(),
        })
    }

    /// Its first IPv4 address, by which an IPv4 membership names its interface.
    fn ipv4(&self) -> io::Result<Ipv4Addr> {
        if let Interface::Address(IpAddr::V4(address)) = self {
            return Ok(*address);
        }
        let name = self.name()?;
        self.index()?;
        let address = find(|other, address| match address {
            IpAddr::V4(address) if other == name => Some(address),
            _ => None,
        })?;
        address.ok_or_else(|| io::Error::new(io::ErrorKind::AddrNotAvailable, "the interface has no IPv4 address"))
    }

    /// The error that says which interfaces there are instead.
    fn missing(&self) -> io::Error {
        let mut names: Vec<String> = getifaddrs().into_iter().flatten().map(|entry| entry.interface_name).collect();
        names.sort();
        names.dedup();
        let text = format!("no interface has the name or address {self}; there are {}", names.join(", "));
        io::Error::new(io::ErrorKind::AddrNotAvailable, text)
    }
}

impl FromStr for Interface {
    type Err = io::Error;

    /// Reads an address, or else a name.
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) when no interface can have that name. The interface need
    /// not exist yet.
    fn from_str(text: &str) -> io::Result<Interface> {
        if let Ok(address) = text.parse() {
            return Ok(Interface::Address(address));
        }
        let odd = |letter: char| letter == '/' || letter.is_whitespace() || letter.is_control();
        if text.is_empty() || text.len() > LONGEST_NAME || text.contains(odd) {
            let what = "expected the name of an interface, as in eth0, or one of its addresses";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        Ok(Interface::Name(text.into()))
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Interface::Name(name) => f.write_str(name),
            Interface::Address(address) => address.fmt(f),
        }
    }
}

/// A multicast group with a UDP port, and the interface to use.
///
/// If no interface is given, IPv6 uses the one in the address's scope (`ff02::1%2`). If there is none either, the
/// kernel chooses the interface by its route to the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    address: SocketAddr,
    interface: Option<Interface>,
}

impl Group {
    /// A group to receive from or to send to.
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) when `address` is not in 224.0.0.0/4 or ff00::/8.
    pub fn new(address: SocketAddr, interface: Option<Interface>) -> io::Result<Group> {
        if !address.ip().is_multicast() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a multicast address"));
        }
        Ok(Group { address, interface })
    }

    /// The group's address and UDP port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends one datagram to the group. At most `hops` - 1 routers forward it. Programs on this machine that have
    /// joined the group receive it too. The call does not wait for a receiver.
    ///
    /// # Errors
    /// There is no such interface, there is no route to the group, or the message is too long for one datagram.
    pub fn send(&self, message: &[u8], hops: u8) -> io::Result<()> {
        let socket = inet_socket(self.address, SockType::Datagram)?;
        let to = SockaddrStorage::from(self.address);
        let index = self.index()?;
        let message = [IoSlice::new(message)];
        let flags = MsgFlags::MSG_NOSIGNAL;
        let fd = socket.as_raw_fd();
        // The datagram's control message names the interface, by its index in both families.
        if self.address.is_ipv4() {
            setsockopt(&socket, IpMulticastTtl, &hops)?;
            let any = in_addr { s_addr: 0 };
            let info = in_pktinfo { ipi_ifindex: index.cast_signed(), ipi_spec_dst: any, ipi_addr: any };
            sendmsg(fd, &message, &[ControlMessage::Ipv4PacketInfo(&info)], flags, Some(&to))?;
        } else {
            setsockopt(&socket, Ipv6MulticastHops, &i32::from(hops))?;
            let info = in6_pktinfo { ipi6_addr: in6_addr { s6_addr: [0; 16] }, ipi6_ifindex: index };
            sendmsg(fd, &message, &[ControlMessage::Ipv6PacketInfo(&info)], flags, Some(&to))?;
        }
        Ok(())
    }

    /// Joins the group. The membership lasts until the returned socket is closed.
    ///
    /// That socket has no UDP port and receives nothing: Linux delivers a group's datagrams to every socket that is
    /// bound to the group, whichever socket has joined (`IP_MULTICAST_ALL` in ip(7)). So a new join leaves the socket
    /// that a worker serves alone, and a closed one takes its membership of a vanished interface with it.
    pub(crate) fn join(&self) -> io::Result<UdpSocket> {
        let socket = UdpSocket::from(inet_socket(self.address, SockType::Datagram)?);
        match self.address.ip() {
            IpAddr::V4(group) => {
                let interface = self.interface.as_ref().map(Interface::ipv4).transpose()?;
                socket.join_multicast_v4(&group, &interface.unwrap_or(Ipv4Addr::UNSPECIFIED))?;
            }
            IpAddr::V6(group) => socket.join_multicast_v6(&group, self.index()?)?,
        }
        Ok(socket)
    }

    /// The index of the interface; 0 leaves the choice to the kernel.
    fn index(&self) -> io::Result<u32> {
        match (&self.interface, self.address) {
            (Some(interface), _) => interface.index(),
            (None, SocketAddr::V6(address)) => Ok(address.scope_id()),
            (None, SocketAddr::V4(_)) => Ok(0),
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.interface {
            Some(interface) => write!(f, "{} on {interface}", self.address.ip()),
            None => self.address.ip().fmt(f),
        }
    }
}

/// What `choose` returns for the first name and address of an interface that it accepts.
fn find<T>(choose: impl Fn(&str, IpAddr) -> Option<T>) -> io::Result<Option<T>> {
    Ok(getifaddrs()?.find_map(|entry| choose(&entry.interface_name, ip_address(&entry.address?)?.ip())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_an_address_or_a_name() {
        assert_eq!("::1".parse::<Interface>().unwrap(), Interface::Address("::1".parse().unwrap()));
        assert_eq!("br-lan.7".parse::<Interface>().unwrap(), Interface::Name("br-lan.7".into()));
        for wrong in ["", "no such name", "a/b", "sixteen_letters_"] {
            assert!(wrong.parse::<Interface>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_multicast_addresses_are_groups() {
        for group in ["224.0.0.1:1", "239.255.255.255:0", "[ff02::1]:7", "[ff05::1:3]:7"] {
            assert!(Group::new(group.parse().unwrap(), None).is_ok(), "{group}");
        }
        for other in ["223.255.255.255:1", "240.0.0.0:1", "[fe80::1]:7", "[::]:7"] {
            assert!(Group::new(other.parse().unwrap(), None).is_err(), "{other}");
        }
    }
}
