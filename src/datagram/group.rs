//! A multicast group and the interface on which it is heard and spoken to (RFC 1112, RFC 3493).
//!
//! An interface is looked up anew each time: it may come, go, and come back with another number.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::str::FromStr;

use nix::ifaddrs::getifaddrs;
use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::net::if_::if_nametoindex;
use nix::sys::socket::sockopt::{IpMulticastTtl, Ipv6MulticastHops};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, SockaddrStorage, sendmsg, setsockopt, socket,
};

use super::socket::peer;

/// The longest name of an interface (`IFNAMSIZ` less its end).
const LONGEST_NAME: usize = 15;

/// A network interface, by its name or by an address that it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interface {
    /// As `ip link` shows it.
    Name(String),
    /// One of its addresses.
    Address(IpAddr),
}

impl Interface {
    /// # Errors
    /// There is no such interface now.
    fn name(&self) -> io::Result<String> {
        match self {
            Interface::Name(name) => Ok(name.clone()),
            Interface::Address(wanted) => find(|_, address| address == *wanted).map(|(name, _)| name),
        }
    }

    fn index(&self) -> io::Result<u32> {
        Ok(if_nametoindex(self.name()?.as_str())?)
    }

    /// Its first IPv4 address, by which IPv4 memberships name an interface.
    fn ipv4(&self) -> io::Result<Ipv4Addr> {
        let name = match self {
            Interface::Address(IpAddr::V4(address)) => return Ok(*address),
            other => other.name()?,
        };
        match find(|other, address| other == name && address.is_ipv4())? {
            (_, IpAddr::V4(address)) => Ok(address),
            (_, IpAddr::V6(_)) => Err(io::ErrorKind::AddrNotAvailable.into()),
        }
    }
}

impl FromStr for Interface {
    type Err = io::Error;

    /// Reads an address, or else a name.
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

/// A multicast group with a port, and the interface to use. Without one, IPv4 uses the interface that the
/// route to the group goes by, and IPv6 the one that the address names (`ff02::1%2`), or else its route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    address: SocketAddr,
    interface: Option<Interface>,
}

impl Group {
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) when `address` is not in 224.0.0.0/4 or ff00::/8.
    pub fn new(address: SocketAddr, interface: Option<Interface>) -> io::Result<Group> {
        match address.ip().is_multicast() {
            true => Ok(Group { address, interface }),
            false => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a multicast address")),
        }
    }

    /// The group and its port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends one datagram to the group, which is passed on by at most `hops` - 1 routers. It is heard on this
    /// machine too. Does not wait.
    ///
    /// # Errors
    /// There is no such interface, no route to the group, or the message is too long for one datagram.
    pub fn send(&self, message: &[u8], hops: u8) -> io::Result<()> {
        let socket = self.socket()?;
        let to = SockaddrStorage::from(self.address);
        let index = self.index()?;
        let message = [IoSlice::new(message)];
        let flags = MsgFlags::MSG_NOSIGNAL;
        let fd = socket.as_raw_fd();
        // The interface is named with the datagram, which takes its number for both families.
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

    /// Joins the group, until the socket that comes back is closed.
    ///
    /// It has no port and receives nothing: Linux delivers a group's datagrams to every socket that is bound to
    /// it, whichever socket of the machine has joined (`IP_MULTICAST_ALL` in ip(7)). So joining anew never
    /// touches the socket that is being served, and leaves no trace of an interface that is gone.
    pub(super) fn join(&self) -> io::Result<UdpSocket> {
        let socket = UdpSocket::from(self.socket()?);
        match self.address.ip() {
            IpAddr::V4(group) => {
                let interface = self.interface.as_ref().map(Interface::ipv4).transpose()?;
                socket.join_multicast_v4(&group, &interface.unwrap_or(Ipv4Addr::UNSPECIFIED))?;
            }
            IpAddr::V6(group) => socket.join_multicast_v6(&group, self.index()?)?,
        }
        Ok(socket)
    }

    fn socket(&self) -> nix::Result<OwnedFd> {
        let family = if self.address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
    }

    /// The number of the interface; 0 leaves it to the kernel.
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

/// True for the IPv6 groups that mean nothing without an interface: those of one node and of one link.
pub(super) fn is_scoped(group: SocketAddr) -> bool {
    matches!(group.ip(), IpAddr::V6(group) if group.is_multicast() && matches!(group.octets()[1] & 0x0f, 1 | 2))
}

/// The first interface and address that fit.
fn find(fits: impl Fn(&str, IpAddr) -> bool) -> io::Result<(String, IpAddr)> {
    let all = getifaddrs()?.filter_map(|one| Some((one.interface_name, peer(&one.address?)?.ip())));
    let found = all.into_iter().find(|(name, address)| fits(name, *address));
    found.ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))
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

    #[test]
    fn groups_of_a_node_and_of_a_link_are_scoped() {
        for (group, scoped) in [("ff01::1", true), ("ff12::1", true), ("ff05::1", false), ("ff0e::1", false)] {
            assert_eq!(is_scoped(SocketAddr::new(group.parse().unwrap(), 7)), scoped, "{group}");
        }
        assert!(!is_scoped("224.0.0.1:7".parse().unwrap()));
    }
}
