//! The sockets of a server: what was asked for, and the binding of it, in the order of asking.
//!
//! A wanted socket comes in with the number of its service; out go listeners, datagram sockets and groups,
//! and a list of all addresses that are really bound. An address that cannot be bound is an error with its name.

use std::net::{SocketAddr, TcpListener, UdpSocket};

use super::listener::Listener;
use super::retry::Retry;
use crate::connection::Tuning;
use crate::datagram::{Group, UdpEndpoint};
use crate::error::Error;
use crate::service::ErasedService;

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

impl Wanted {
    /// The socket, with the number and the name of its service.
    ///
    /// # Errors
    /// [`Error::NoService`] when no service of its kind was added before it.
    pub(crate) fn with_service<'a>(
        self,
        tcp: &'a [Box<dyn ErasedService>],
        udp_names: &'a [String],
    ) -> Result<(Source, usize, &'a str), Error> {
        let is_tcp = self.source.is_tcp();
        let service = self.service.ok_or(Error::NoService(if is_tcp { "TCP" } else { "datagram" }))?;
        let name = if is_tcp { tcp[service].name() } else { &udp_names[service] };
        Ok((self.source, service, name))
    }
}

impl Source {
    pub(crate) fn is_tcp(&self) -> bool {
        matches!(self, Source::Address(_) | Source::Ready(_))
    }
}

impl Bound {
    pub(crate) fn new(tuning: Tuning) -> Bound {
        Bound { listeners: vec![], endpoints: vec![], groups: vec![], names: vec![], tuning }
    }

    /// Makes a socket of the service with that number and name.
    pub(crate) fn add(
        &mut self,
        source: Source,
        service: usize,
        name: &str,
        retry: &mut Retry<'_>,
    ) -> Result<(), Error> {
        let is_tcp = source.is_tcp();
        let unusable = Error::setup("use the given socket");
        let tuning = &mut self.tuning;
        match source {
            Source::Address(address) => {
                let bind = || Listener::bind(address, service as u16, tuning);
                self.listeners.push(retry.attempt(address, name, bind)?);
            }
            Source::Ready(socket) => {
                self.listeners.push(Listener::adopt(socket, service as u16, tuning).map_err(unusable)?);
            }
            Source::Datagrams(address) => {
                let bind = || UdpEndpoint::bind(address, service, tuning);
                self.endpoints.push(retry.attempt(address, name, bind)?);
            }
            Source::ReadyDatagrams(socket) => {
                self.endpoints.push(UdpEndpoint::adopt(socket, service).map_err(unusable)?);
            }
            Source::Group(group) => {
                let address = group.address();
                let bind = || UdpEndpoint::bind_group(address, service, tuning);
                self.endpoints.push(retry.attempt(address, name, bind)?);
                self.groups.push(group);
            }
        }
        // The address that is really bound.
        let bound = match is_tcp {
            true => self.listeners.last().map(|listener| listener.address),
            false => self.endpoints.last().map(|endpoint| endpoint.address),
        };
        self.names.extend(bound.map(|address| (address, name.to_string())));
        Ok(())
    }
}
