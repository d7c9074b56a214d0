//! Socket activation: sockets that systemd, or another supervisor, has bound before it started the daemon.
//!
//! In come the sockets with their names, out goes the service of each. A socket unit's `FileDescriptorName=` names
//! the service, as in `echo`. Without it systemd uses the unit's own name, so `echo.socket` and
//! `lastorders-echo.socket` name that service too.

use super::services::Services;
use super::settings::Protocol;
use crate::daemon::action::Failure;
use crate::server::activation::{Socket, sockets};

/// Takes the sockets that the supervisor has passed to this process, each with the service that its name stands for.
///
/// # Errors
/// When a variable has a wrong form, a socket is not of the kind that its service needs, or no service has its name.
pub(crate) fn take(services: &Services) -> Result<Vec<(&'static str, Socket)>, Failure> {
    let named = sockets()?.into_iter().map(|inherited| match service(services, &inherited.name, &inherited.socket) {
        Ok(name) => Ok((name, inherited.socket)),
        Err(problem) => Err(format!("descriptor {} is named {:?}: {problem}", inherited.number, inherited.name).into()),
    });
    named.collect()
}

/// The service that a name stands for.
fn service(services: &Services, name: &str, socket: &Socket) -> Result<&'static str, String> {
    let short = name.strip_suffix(".socket").unwrap_or(name);
    let short = short.strip_prefix("lastorders-").unwrap_or(short);
    let (tcp, udp) = (services.find(Protocol::Tcp, short), services.find(Protocol::Udp, short));
    match (socket, tcp, udp) {
        (Socket::Tcp(_), Some(name), _) | (Socket::Udp(_), _, Some(name)) => Ok(name),
        (Socket::Udp(_), Some(_), None) => {
            Err(format!("it is a UDP socket, but {short} is served over TCP (systemd: ListenStream=)"))
        }
        (Socket::Tcp(_), None, Some(_)) => {
            Err(format!("it is a TCP socket, but {short} answers datagrams (systemd: ListenDatagram=)"))
        }
        (_, None, None) => Err(format!(
            "no such service; name it after one (systemd: FileDescriptorName={}): {}, {}",
            services.first(Protocol::Tcp),
            services.names(Protocol::Tcp),
            services.names(Protocol::Udp)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    fn tcp() -> Socket {
        Socket::Tcp(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    fn udp() -> Socket {
        Socket::Udp(UdpSocket::bind("127.0.0.1:0").unwrap())
    }

    fn service_of(name: &str, socket: &Socket) -> Result<&'static str, String> {
        service(&Services::sample(), name, socket)
    }

    #[test]
    fn a_name_stands_for_its_service_with_or_without_the_unit_around_it() {
        for name in ["upper-lines", "upper-lines.socket", "lastorders-upper-lines.socket", "lastorders-upper-lines"] {
            assert_eq!(service_of(name, &tcp()), Ok("upper-lines"));
        }
        assert_eq!(service_of("lastorders-time.socket", &udp()), Ok("time"));
    }

    #[test]
    fn an_error_for_any_other_name_says_what_would_be_right() {
        for (name, socket, parts) in [
            ("unknown", tcp(), ["FileDescriptorName=echo", "upper-lines, time"]),
            ("lastorders.socket", tcp(), ["no such service", "echo, upper"]),
            ("", udp(), ["no such service", "time"]),
            ("echo, upper-lines", tcp(), ["no such service", "echo"]),
            ("echo", udp(), ["UDP", "ListenStream="]),
            ("time", tcp(), ["TCP", "ListenDatagram="]),
        ] {
            let error = service_of(name, &socket).unwrap_err();
            assert!(parts.iter().all(|part| error.contains(part)), "{name}: {error}");
        }
    }
}
