//! The sockets of a server: what was asked for, and the binding of it, in the order of asking.
//!
//! A wanted socket comes in with the number of its service; out go listeners, datagram sockets and groups,
//! and a list of all addresses that are really bound. An address that cannot be bound is an error with its name.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use super::listener::Listener;
use super::retry::Retry;
use crate::connection::Tuning;
use crate::datagram::{Group, UdpEndpoint};
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
pub(crate) struct Bound {
    pub(crate) listeners: Vec<Listener>,
    pub(crate) endpoints: Vec<UdpEndpoint>,
    pub(crate) groups: Vec<Group>,
    pub(crate) names: Vec<(SocketAddr, String)>,
    pub(crate) tuning: Tuning,
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
    pub(crate) fn new(tuning: Tuning) -> Bound {
        Bound { listeners: vec![], endpoints: vec![], groups: vec![], names: vec![], tuning }
    }

    pub(crate) fn add(&mut self, wanted: Wanted, names: &[String], retry: &mut Retry<'_>) -> Result<(), Error> {
        let Wanted { source, service } = wanted;
        let kind = if source.is_tcp() { "TCP" } else { "datagram" };
        let service = service.ok_or(Error::NoService(kind))?;
        let name = &names[service];
        let unusable = || Error::setup("use the given socket");
        let address = source.address().map_err(unusable())?;
        let tuning = &mut self.tuning;
        // The address that is really bound.
        let bound = match source {
            Source::Address(_) => {
                let listener = retry.attempt(address, name, || Listener::bind(address, service, tuning))?;
                self.listen(listener)
            }
            Source::Ready(socket) => {
                let listener = Listener::adopt(socket, service, tuning).map_err(unusable())?;
                self.listen(listener)
            }
            Source::Datagrams(_) => {
                let endpoint = retry.attempt(address, name, || UdpEndpoint::bind(address, service, tuning))?;
                self.receive(endpoint)
            }
            Source::ReadyDatagrams(socket) => {
                let endpoint = UdpEndpoint::adopt(socket, service).map_err(unusable())?;
                self.receive(endpoint)
            }
            Source::Group(group) => {
                let endpoint = retry.attempt(address, name, || UdpEndpoint::bind_group(address, service, tuning))?;
                self.groups.push(group);
                self.receive(endpoint)
            }
        };
        self.names.push((bound, name.clone()));
        Ok(())
    }

    fn listen(&mut self, listener: Listener) -> SocketAddr {
        let address = listener.address;
        self.listeners.push(listener);
        address
    }

    fn receive(&mut self, endpoint: UdpEndpoint) -> SocketAddr {
        let address = endpoint.address;
        self.endpoints.push(endpoint);
        address
    }
}
