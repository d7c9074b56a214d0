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
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::sockopt::{self, AcceptConn};
use nix::sys::socket::{AddressFamily, SockType, SockaddrLike, SockaddrStorage, getsockname, getsockopt};

use crate::config::LISTENERS;
use crate::error::Error;
use crate::sys::take_inherited;

/// The number of the first descriptor that is passed (`SD_LISTEN_FDS_START`).
const FIRST: RawFd = 3;

/// What a descriptor is called when it was passed without a name (sd_listen_fds(3)).
const UNNAMED: &str = "unknown";

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

/// The names of the descriptors that were passed to process `own`, the first of which has the number 3: what
/// [`sockets`](sockets) makes of `LISTEN_PID`, `LISTEN_FDS` and `LISTEN_FDNAMES`. There are none
/// when one of the first two is unset, or when `LISTEN_PID` is another process.
///
/// # Errors
/// [`Error::Environment`] with the variable, its value and what would be right.
pub fn names(
    own: u32,
    listen_pid: Option<&str>,
    listen_fds: Option<&str>,
    listen_fdnames: Option<&str>,
) -> Result<Vec<String>, Error> {
    let (Some(pid), Some(count)) = (listen_pid, listen_fds) else { return Ok(vec![]) };
    let wrong = |name, value: &str, expected: String| Error::Environment { name, value: value.into(), expected };
    let is_own = pid.parse().map(|pid: NonZeroU32| pid.get() == own);
    if !is_own.map_err(|_| wrong("LISTEN_PID", pid, "the number of a process".into()))? {
        return Ok(vec![]);
    }
    let expected = || format!("a number of sockets, 0 to {LISTENERS}");
    let count = match count.parse() {
        Ok(number) if number <= LISTENERS => number,
        _ => return Err(wrong("LISTEN_FDS", count, expected())),
    };
    match listen_fdnames {
        // Nothing separates no names from a single empty one.
        _ if count == 0 => Ok(vec![]),
        None => Ok(vec![UNNAMED.into(); count]),
        Some(list) if list.split(':').count() == count => Ok(list.split(':').map(Into::into).collect()),
        Some(list) => {
            let expected = format!("{count} names, as LISTEN_FDS says, with colons between them");
            Err(wrong("LISTEN_FDNAMES", list, expected))
        }
    }
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

    fn read(pid: &str, fds: &str, list: Option<&str>) -> Result<Vec<String>, String> {
        names(7, Some(pid), Some(fds), list).map_err(|error| error.to_string())
    }

    #[test]
    fn descriptors_have_the_names_they_were_passed_with() {
        assert_eq!(read("7", "2", Some("echo:time.socket")).unwrap(), ["echo", "time.socket"]);
        assert_eq!(read("7", "2", None).unwrap(), ["unknown", "unknown"]);
        assert_eq!(read("7", "1", Some("")).unwrap(), [""]);
        assert!(read("7", "0", Some("")).unwrap().is_empty());
        assert_eq!(read("7", "32", None).unwrap().len(), 32);
    }

    #[test]
    fn what_is_not_for_this_process_is_none_of_its_business() {
        assert!(read("8", "many", Some(":::")).unwrap().is_empty());
        assert!(names(7, None, Some("2"), None).unwrap().is_empty());
        assert!(names(7, Some("7"), None, Some("echo")).unwrap().is_empty());
    }

    #[test]
    fn a_value_that_cannot_be_is_shown_with_what_could() {
        for (pid, fds, list, parts) in [
            ("", "1", None, ["LISTEN_PID \"\"", "process"]),
            ("0", "1", None, ["LISTEN_PID \"0\"", "process"]),
            ("-7", "1", None, ["LISTEN_PID \"-7\"", "process"]),
            ("7", "two", None, ["LISTEN_FDS \"two\"", "0 to 32"]),
            ("7", "-1", None, ["LISTEN_FDS \"-1\"", "0 to 32"]),
            ("7", "33", None, ["LISTEN_FDS \"33\"", "0 to 32"]),
            ("7", "99999999999999999999", None, ["LISTEN_FDS", "0 to 32"]),
            ("7", "2", Some("echo"), ["LISTEN_FDNAMES \"echo\"", "2 names"]),
            ("7", "1", Some("a\n:b"), ["LISTEN_FDNAMES \"a\\n:b\"", "1 names"]),
        ] {
            let error = read(pid, fds, list).unwrap_err();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
    }
}
