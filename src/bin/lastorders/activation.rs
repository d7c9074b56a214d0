//! Socket activation: sockets that systemd, or another supervisor, has bound before the daemon was started, and
//! the service that the name of each stands for.
//!
//! A socket unit's `FileDescriptorName=` names the service, as in `echo`. Left unset it is the unit's own name, so
//! `echo.socket` and `lastorders-echo.socket` do too.

use lastorders::activation::{Inherited, Socket, sockets};

use crate::failure::{Failure, failure};
use crate::values::{self, TCP_SERVICES, UDP_SERVICES};

/// Takes the sockets that were passed to this process. Each is then named after its service, and is of its kind.
///
/// # Errors
/// When the variables are garbled, or a socket is not one that can be served.
pub fn take() -> Result<Vec<Inherited>, Failure> {
    let named = |inherited: Inherited| match service(&inherited.name, &inherited.socket) {
        Ok(name) => Ok(Inherited { name: name.into(), ..inherited }),
        Err(problem) => {
            Err(Failure::Run(format!("descriptor {} is named {:?}: {problem}", inherited.number, inherited.name)))
        }
    };
    sockets().map_err(failure)?.into_iter().map(named).collect()
}

/// The service that a name stands for.
fn service<'a>(name: &'a str, socket: &Socket) -> Result<&'a str, String> {
    let short = name.strip_suffix(".socket").unwrap_or(name);
    let short = short.strip_prefix("lastorders-").unwrap_or(short);
    let is_tcp = matches!(socket, Socket::Tcp(_));
    match (values::is_listed(short, TCP_SERVICES), values::is_listed(short, UDP_SERVICES)) {
        (true, _) if is_tcp => Ok(short),
        (_, true) if !is_tcp => Ok(short),
        (true, _) => Err(format!("it is a UDP socket, but {short} is served over TCP (systemd: ListenStream=)")),
        (_, true) => Err(format!("it is a TCP socket, but {short} answers datagrams (systemd: ListenDatagram=)")),
        (false, false) => Err(format!(
            "no such service; name it after one (systemd: FileDescriptorName=echo): {TCP_SERVICES}, {UDP_SERVICES}"
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

    #[test]
    fn a_name_stands_for_its_service_with_or_without_the_unit_around_it() {
        for name in ["upper-lines", "upper-lines.socket", "lastorders-upper-lines.socket", "lastorders-upper-lines"] {
            assert_eq!(service(name, &tcp()), Ok("upper-lines"));
        }
        assert_eq!(service("lastorders-time.socket", &udp()), Ok("time"));
    }

    #[test]
    fn a_name_without_a_service_of_that_kind_is_told_what_would_be_right() {
        for (name, socket, parts) in [
            ("unknown", tcp(), ["FileDescriptorName=echo", "kv, time"]),
            ("lastorders.socket", tcp(), ["no such service", "echo, upper"]),
            ("", udp(), ["no such service", "time"]),
            ("echo, upper", tcp(), ["no such service", "echo"]),
            ("echo", udp(), ["UDP", "ListenStream="]),
            ("time", tcp(), ["TCP", "ListenDatagram="]),
        ] {
            let error = service(name, &socket).unwrap_err();
            assert!(parts.iter().all(|part| error.contains(part)), "{name}: {error}");
        }
    }
}
