//! The sockets of a server: what was asked for, and the binding of it, in the order of asking.
//!
//! A wish comes in with the number of the service that it is for; out go listeners, datagram sockets and groups,
//! and a list of all addresses that are really bound. An address that cannot be bound is an error with its name.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use crate::datagram::{Group, Port};
use crate::engine::listener::Listener;
use crate::error::Error;

/// A socket, and the service that it is for: the one added last before it, of its kind.
pub(crate) struct Wanted {
    pub(crate) source: Source,
    pub(crate) service: Option<usize>,
}

pub(crate) enum Source {
    Address(SocketAddr),
    Ready(TcpListener),
    Datagrams(SocketAddr),
    ReadyDatagrams(UdpSocket),
    Group(Group),
}

/// The sockets of a server that is being built, in the order in which they were asked for.
#[derive(Default)]
pub(crate) struct Bound {
    pub(crate) listeners: Vec<Listener>,
    pub(crate) ports: Vec<Port>,
    pub(crate) groups: Vec<Group>,
    pub(crate) names: Vec<(SocketAddr, String)>,
}

impl Source {
    pub(crate) fn is_tcp(&self) -> bool {
        matches!(self, Source::Address(_) | Source::Ready(_))
    }

    /// The address that was asked for, for errors.
    fn address(&self) -> io::Result<SocketAddr> {
        match self {
            Source::Address(address) | Source::Datagrams(address) => Ok(*address),
            Source::Group(group) => Ok(group.address()),
            Source::Ready(socket) => socket.local_addr(),
            Source::ReadyDatagrams(socket) => socket.local_addr(),
        }
    }
}

impl Bound {
    pub(crate) fn add(&mut self, wanted: Wanted, names: &[String]) -> Result<(), Error> {
        let Wanted { source, service } = wanted;
        let kind = if source.is_tcp() { "TCP" } else { "datagram" };
        let service = service.ok_or(Error::NoService(kind))?;
        let name = &names[service];
        let address = source.address().map_err(Error::setup("use the given socket"))?;
        let bound = self.open(source, service);
        let bound = bound.map_err(|source| Error::Listen { address, service: name.clone(), source })?;
        self.names.push((bound, name.clone()));
        Ok(())
    }

    /// Returns the address that is really bound.
    fn open(&mut self, source: Source, service: usize) -> io::Result<SocketAddr> {
        match source {
            Source::Address(address) => Ok(self.listen(Listener::bind(address, service)?)),
            Source::Ready(socket) => Ok(self.listen(Listener::adopt(socket, service)?)),
            Source::Datagrams(address) => Ok(self.receive(Port::bind(address, service)?)),
            Source::ReadyDatagrams(socket) => Ok(self.receive(Port::adopt(socket, service)?)),
            Source::Group(group) => {
                let port = Port::bind_group(group.address(), service)?;
                self.groups.push(group);
                Ok(self.receive(port))
            }
        }
    }

    fn listen(&mut self, listener: Listener) -> SocketAddr {
        let address = listener.address;
        self.listeners.push(listener);
        address
    }

    fn receive(&mut self, port: Port) -> SocketAddr {
        let address = port.address;
        self.ports.push(port);
        address
    }
}
