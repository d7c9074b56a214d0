//! The services of the program, by name: the only list there is.
//!
//! The program fills this list. The help, the errors for unknown names, the names of inherited sockets and the default
//! socket come from it. `attach` makes a service when the server gets a socket of that name.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

use super::settings::{Protocol, Settings, Socket};
use crate::error::Error;
use crate::server::Builder;

/// Adds a service to a server.
pub(crate) type Add = Box<dyn FnMut(&Settings, Builder) -> Result<Builder, Error>>;

#[derive(Default)]
pub(crate) struct Services {
    entries: Vec<Entry>,
    /// The TCP service that the server got last. The next sockets of this service share it.
    last_tcp: &'static str,
}

struct Entry {
    protocol: Protocol,
    name: &'static str,
    add: Add,
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.entries.iter().map(|entry| (entry.protocol, entry.name))).finish()
    }
}

impl Services {
    /// The services of the unit tests and the fuzzer.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn sample() -> Services {
        let mut services = Services::default();
        for (protocol, name) in [(Protocol::Tcp, "echo"), (Protocol::Tcp, "upper-lines"), (Protocol::Udp, "time")] {
            services.add(protocol, name, Box::new(|_, builder| Ok(builder)));
        }
        services
    }

    pub(crate) fn add(&mut self, protocol: Protocol, name: &'static str, add: Add) {
        self.entries.push(Entry { protocol, name, add });
    }

    fn of(&self, protocol: Protocol) -> impl Iterator<Item = &'static str> {
        self.entries.iter().filter(move |entry| entry.protocol == protocol).map(|entry| entry.name)
    }

    /// The service of this name, if there is one.
    pub(crate) fn find(&self, protocol: Protocol, name: &str) -> Option<&'static str> {
        self.of(protocol).find(|known| *known == name)
    }

    /// A name to show in an example.
    pub(crate) fn first(&self, protocol: Protocol) -> &'static str {
        self.of(protocol).next().unwrap_or("SERVICE")
    }

    /// All names, as a help text or an error lists them.
    pub(crate) fn names(&self, protocol: Protocol) -> String {
        self.of(protocol).collect::<Vec<_>>().join(", ")
    }

    /// A value of `--tcp` or `--udp` that would be right. For `--tcp` it is the default, which the server gets when
    /// neither the command line nor the supervisor names a socket.
    pub(crate) fn example(&self, protocol: Protocol) -> String {
        let port = if protocol == Protocol::Tcp { 9999 } else { 5006 };
        format!("{}=127.0.0.1:{port}", self.first(protocol))
    }

    /// Reads `SERVICE=ADDRESS`.
    pub(crate) fn socket(&self, protocol: Protocol, text: &str) -> Result<Socket, String> {
        let form = || format!("expected SERVICE=ADDRESS, as in {}", self.example(protocol));
        let (name, address) = text.split_once('=').ok_or_else(form)?;
        let (other, option) = match protocol {
            Protocol::Tcp => (Protocol::Udp, "--udp"),
            Protocol::Udp => (Protocol::Tcp, "--tcp"),
        };
        let unknown = || match self.find(other, name) {
            Some(name) => format!("{name} is a service of {option}; choose {}", self.names(protocol)),
            None => format!("unknown service {name:?}; choose {}", self.names(protocol)),
        };
        let name = self.find(protocol, name).ok_or_else(unknown)?;
        let known = socket_address(address);
        let address = known.ok_or_else(|| format!("{address:?} is not an address with a port; {}", form()))?;
        Ok(Socket::Service { protocol, name, address })
    }

    /// Adds a service to the server. The socket that the caller adds next is a socket of that service.
    ///
    /// # Errors
    /// When the service cannot be made, for example because one of its limits is out of range.
    pub(crate) fn attach(
        &mut self,
        protocol: Protocol,
        name: &'static str,
        settings: &Settings,
        builder: Builder,
    ) -> Result<Builder, Error> {
        let shared = protocol == Protocol::Tcp && std::mem::replace(&mut self.last_tcp, name) == name;
        match self.entries.iter_mut().find(|entry| entry.protocol == protocol && entry.name == name) {
            Some(entry) if !shared => Ok((entry.add)(settings, builder)?.name(name)),
            _ => Ok(builder),
        }
    }
}

/// Reads an address with a port. Besides numbers there are `localhost`, and `*` or nothing for every IPv4 address: any
/// other name would have to be looked up, which blocks the start.
fn socket_address(text: &str) -> Option<SocketAddr> {
    let (host, port) = text.rsplit_once(':')?;
    let host = match host {
        "localhost" => Ipv4Addr::LOCALHOST,
        "" | "*" => Ipv4Addr::UNSPECIFIED,
        _ => return text.parse().ok(),
    };
    // As in an address, a port has digits only.
    format!("{host}:{port}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_number_or_one_of_three_names() {
        for (text, address) in [
            ("127.0.0.1:7", "127.0.0.1:7"),
            ("[::1]:7", "[::1]:7"),
            ("localhost:7", "127.0.0.1:7"),
            (":7", "0.0.0.0:7"),
            ("*:7", "0.0.0.0:7"),
        ] {
            assert_eq!(socket_address(text), address.parse().ok(), "{text}");
        }
        for text in ["", ":", "7", "localhost", "localhost:", "localhost:+7", "*:65536", "example.org:7", "::1:7"] {
            assert_eq!(socket_address(text), None, "{text}");
        }
    }

    #[test]
    fn the_first_tcp_service_is_the_default() {
        let services = Services::default();
        assert!(services.socket(Protocol::Tcp, &services.example(Protocol::Tcp)).is_err());
        assert_eq!(Services::sample().example(Protocol::Tcp), "echo=127.0.0.1:9999");
    }
}
