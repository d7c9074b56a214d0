//! Sockets and descriptors that the program was started with: systemd's socket activation, and single ones that
//! an option names.
//!
//! In come the variables of sd_listen_fds(3), and the numbers of open descriptors; out go sockets that a
//! [`Builder`](crate::Builder) takes, each with its name. Nothing here happens unless it is asked for. Ask early:
//! a descriptor without close-on-exec counts as inherited, and one that the program has opened itself must have it.
//!
//! ```no_run
//! use lastorders::activation::{self, Socket};
//! use lastorders::builtin::Echo;
//! use lastorders::{Builder, Error};
//!
//! # fn main() -> Result<(), Error> {
//! let mut builder = Builder::new().service(Echo);
//! for inherited in activation::sockets()? {
//!     if let Socket::Tcp(listener) = inherited.socket {
//!         builder = builder.listener(listener);
//!     }
//! }
//! builder.build()?.run()?;
//! # Ok(())
//! # }
//! ```

use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::sockopt::{self, AcceptConn};
use nix::sys::socket::{AddressFamily, SockType, SockaddrLike, SockaddrStorage, getsockname, getsockopt};

use crate::error::Error;
use crate::sys::take_inherited;

pub use super::environment::names;

/// The number of the first descriptor that is passed (`SD_LISTEN_FDS_START`).
const FIRST: RawFd = 3;

/// A socket that the program was started with.
#[derive(Debug)]
#[non_exhaustive]
pub struct Inherited {
    /// The number of its descriptor.
    pub number: RawFd,
    /// The name that the passing program gave it: with systemd `FileDescriptorName=`, or else the socket unit's name,
    /// as in `echo.socket`. `unknown` when it was passed without a name.
    pub name: String,
    /// The socket.
    pub socket: Socket,
}

/// An internet socket that is ready to be served.
#[derive(Debug)]
#[non_exhaustive]
pub enum Socket {
    /// It listens.
    Tcp(TcpListener),
    /// It is bound.
    Udp(UdpSocket),
}

/// Takes all sockets that were passed to this process with `LISTEN_FDS`, in their order (sd_listen_fds(3)), and
/// closes them for programs that it starts. Without that variable, or when `LISTEN_PID` is another process, there
/// are none. A second call is an error, for they can be taken once only.
///
/// The variables stay in the environment: a child process of this one sees by `LISTEN_PID` that they are
/// not for it.
///
/// # Errors
/// [`Error::Environment`] when a variable is not what it should be, and [`Error::Inherited`] for the first
/// descriptor that is not a listening TCP socket or a bound UDP socket, of IPv4 or IPv6.
pub fn sockets() -> Result<Vec<Inherited>, Error> {
    let read = |name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    let (pid, count, list) = (read("LISTEN_PID"), read("LISTEN_FDS"), read("LISTEN_FDNAMES"));
    let names = names(std::process::id(), pid.as_deref(), count.as_deref(), list.as_deref())?;
    let take = |(number, name): (RawFd, String)| match take_inherited(number).and_then(adopt) {
        Ok(socket) => Ok(Inherited { number, name, socket }),
        Err(source) => Err(Error::Inherited { number, name, source }),
    };
    (FIRST..).zip(names).map(take).collect()
}

/// Takes one descriptor that the program was started with, such as the one that s6 and OpenRC wait at for news of
/// readiness, and closes it for programs that this one starts.
///
/// # Errors
/// [`InvalidInput`](io::ErrorKind::InvalidInput) for standard input, output and error, and when the descriptor
/// has close-on-exec: then it was opened by this program, or is taken already. Otherwise what fcntl(2) says of it.
pub fn descriptor(number: RawFd) -> io::Result<OwnedFd> {
    take_inherited(number)
}

fn adopt(fd: OwnedFd) -> io::Result<Socket> {
    let wrong = |problem| Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    let kind = match getsockopt(&fd, sockopt::SockType) {
        Err(Errno::ENOTSOCK) => return wrong("it is not a socket"),
        kind => kind?,
    };
    let address: SockaddrStorage = getsockname(fd.as_raw_fd())?;
    if !matches!(address.family(), Some(AddressFamily::Inet | AddressFamily::Inet6)) {
        return wrong("it is not an internet socket; pass one of an IPv4 or IPv6 address");
    }
    match kind {
        SockType::Stream if getsockopt(&fd, AcceptConn)? => Ok(Socket::Tcp(fd.into())),
        SockType::Stream => wrong("it does not listen; pass the listening socket (systemd: Accept=no)"),
        SockType::Datagram => {
            let socket = UdpSocket::from(fd);
            if socket.local_addr()?.port() == 0 { wrong("it is not bound to a port") } else { Ok(Socket::Udp(socket)) }
        }
        _ => wrong("it is neither a TCP nor a UDP socket"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn refusal(fd: impl Into<OwnedFd>) -> String {
        adopt(fd.into()).unwrap_err().to_string()
    }

    #[test]
    fn listening_and_bound_sockets_are_adopted_as_what_they_are() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            assert!(matches!(adopt(listener.into()), Ok(Socket::Tcp(_))));
            assert!(matches!(adopt(UdpSocket::bind(address).unwrap().into()), Ok(Socket::Udp(_))));
        }
    }

    #[test]
    fn anything_else_is_refused_with_what_would_be_right() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connection = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(refusal(connection).contains("Accept=no"));
        let (stream, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(refusal(stream).contains("IPv4 or IPv6"));
        let path = std::env::temp_dir().join(format!("lastorders-unix-{}", std::process::id()));
        let unix = UnixListener::bind(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        assert!(refusal(unix).contains("IPv4 or IPv6"));
        assert_eq!(refusal(std::fs::File::open("/dev/null").unwrap()), "it is not a socket");
        let flags = nix::sys::socket::SockFlag::SOCK_CLOEXEC;
        let free = nix::sys::socket::socket(AddressFamily::Inet, SockType::Datagram, flags, None).unwrap();
        assert_eq!(refusal(free), "it is not bound to a port");
    }
}
