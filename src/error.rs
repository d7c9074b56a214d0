//! Why a server could not start or run: one variant per step, with what was tried and what to do.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;

use crate::sys::{Seconds, SignalName};

/// A server could not start, or had to stop.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A limit is out of its range.
    Limit {
        /// The limit, as its command-line option is called.
        name: &'static str,
        /// What was asked for.
        value: String,
        /// What would be right.
        expected: String,
    },
    /// The server has no address to listen on.
    NoListener,
    /// More addresses, or TCP services, than one server can have.
    TooManyListeners {
        /// How many were given.
        count: usize,
        /// How many are possible.
        most: usize,
    },
    /// An address was given before a service that could be offered there.
    NoService(&'static str),
    /// An address could not be listened on.
    Listen {
        /// The address.
        address: SocketAddr,
        /// The service that was to be offered there.
        service: String,
        /// What the kernel said last.
        source: io::Error,
        /// For how long it was tried: zero without [`Builder::bind_retry`](crate::Builder::bind_retry).
        tried: Duration,
    },
    /// A signal to stop was received while an address could not be listened on yet.
    Stopped {
        /// The signal's number.
        signal: i32,
        /// The address.
        address: SocketAddr,
        /// The service that was to be offered there.
        service: String,
    },
    /// The control socket could not be made.
    Control {
        /// Its path.
        path: PathBuf,
        /// What the kernel said, or what stands there.
        source: io::Error,
    },
    /// The limits need more descriptors than the process may have.
    Descriptors {
        /// Descriptors that the limits need at most.
        needed: u64,
        /// The hard limit of `RLIMIT_NOFILE`.
        allowed: u64,
    },
    /// The limits need more memory than the machine has.
    Memory {
        /// Bytes that the limits need at most.
        needed: u64,
        /// Bytes that there are.
        available: u64,
    },
    /// The kernel does not give the process the memory that the limits need: `RLIMIT_AS`, `RLIMIT_DATA` or strict
    /// overcommitting. Bytes.
    MemoryRefused(u64),
    /// The worker threads could not be started.
    Threads {
        /// How many were asked for.
        workers: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// What was asked for cannot be had with one process per connection.
    Forking {
        /// What the program asked for.
        what: String,
        /// Why not.
        reason: &'static str,
    },
    /// A forking server was to run in a process with more than one thread.
    Threaded(u64),
    /// A signal cannot have an action.
    Signal {
        /// Its number.
        number: i32,
        /// Why not.
        reason: &'static str,
    },
    /// Another server of the process handles signals already.
    SignalsTaken,
    /// A variable that another program has set for this one is not what it should be.
    Environment {
        /// Its name.
        name: &'static str,
        /// Its value.
        value: String,
        /// What would be right.
        expected: String,
    },
    /// A descriptor that the program was started with cannot be served.
    Inherited {
        /// Its number.
        number: i32,
        /// The name that the supervisor gave it.
        name: String,
        /// What the kernel said, or what is wrong with it.
        source: io::Error,
    },
    /// A descriptor that the engine itself needs could not be made.
    Setup {
        /// What was being made.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A listener broke while the server ran. Clients were given notice before this was returned.
    Accept {
        /// The listener's address.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Error {
    /// Names the step that failed, for `map_err`.
    pub(crate) fn setup<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> Error {
        move |source| Error::Setup { step, source: source.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Limit { name, value, expected } => {
                write!(f, "{name} {value} is out of range; choose {expected}")
            }
            Error::NoListener => write!(f, "no address to listen on; give at least one"),
            Error::TooManyListeners { count, most } => {
                write!(f, "{count} addresses or services; at most {most} are possible")
            }
            Error::NoService(kind) => write!(f, "an address without a {kind} service; add the service before it"),
            Error::Listen { address, service, source, tried } => {
                write!(f, "cannot listen on {address} ({service})")?;
                if !tried.is_zero() {
                    write!(f, ", tried for {} seconds", Seconds(*tried))?;
                }
                write!(f, ": {source}; {}", advice(source))
            }
            Error::Stopped { signal, address, service } => {
                write!(f, "{} received while waiting to listen on {address} ({service})", SignalName(*signal))
            }
            Error::Control { path, source } => {
                write!(f, "cannot listen on the control socket {}: {source}; {}", path.display(), path_advice(source))
            }
            Error::Descriptors { needed, allowed } => write!(
                f,
                "{needed} file descriptors are needed but RLIMIT_NOFILE allows {allowed}; \
                 lower the number of connections or raise the limit (ulimit -n)"
            ),
            Error::Memory { needed, available } => write!(
                f,
                "{} KiB of memory may be needed but the machine has {}; lower the number of connections or the buffer",
                needed / 1024,
                available / 1024
            ),
            Error::MemoryRefused(needed) => write!(
                f,
                "{} KiB of memory may be needed but the kernel refuses them; lower the number of connections or the \
                 buffer, or raise the limit (ulimit -v, ulimit -d)",
                needed / 1024
            ),
            Error::Threads { workers, source } => {
                write!(f, "cannot start {workers} workers: {source}; lower the number of workers or their stack size")
            }
            Error::Forking { what, reason } => {
                write!(f, "{what} cannot be had with one process per connection: {reason}")
            }
            Error::Threaded(threads) => {
                write!(f, "the process has {threads} threads, but can be forked only while it has one")
            }
            Error::Signal { number, reason } => {
                write!(f, "no action possible on {}: {reason}", SignalName(*number))
            }
            Error::SignalsTaken => write!(
                f,
                "another server of this process handles signals; drop that one first, or build one that neither handles \
                 signals nor forks"
            ),
            Error::Environment { name, value, expected } => write!(f, "{name} {value:?}: expected {expected}"),
            Error::Inherited { number, name, source } => {
                write!(f, "cannot serve the inherited descriptor {number} ({name:?}): {source}")
            }
            Error::Setup { step, source } => match shortage(source) {
                Some(remedy) => write!(f, "cannot {step}: {source}; {remedy}"),
                None => write!(f, "cannot {step}: {source}"),
            },
            Error::Accept { address, source } => write!(f, "cannot accept on {address} any more: {source}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Listen { source, .. }
            | Error::Control { source, .. }
            | Error::Threads { source, .. }
            | Error::Inherited { source, .. }
            | Error::Setup { source, .. }
            | Error::Accept { source, .. } => Some(source),
            _ => None,
        }
    }
}

fn path_advice(source: &io::Error) -> &'static str {
    shortage(source).unwrap_or(match source.kind() {
        io::ErrorKind::NotFound => "make its directory first",
        io::ErrorKind::PermissionDenied => "choose a directory that the server's user may write to",
        _ => "choose another path, or stop the server there",
    })
}

fn advice(source: &io::Error) -> &'static str {
    shortage(source).unwrap_or(match source.kind() {
        io::ErrorKind::AddrInUse => "stop the program that listens there, or choose another port",
        io::ErrorKind::PermissionDenied => "ports below 1024 need root or CAP_NET_BIND_SERVICE; choose 1024 to 65535",
        io::ErrorKind::InvalidInput => "check its form and its range",
        io::ErrorKind::AddrNotAvailable => "choose an address that an interface of this machine has",
        _ => "choose another address",
    })
}

/// What to do when it is not the address or path that is wrong, but the machine or its policy.
fn shortage(source: &io::Error) -> Option<&'static str> {
    match Errno::from_raw(source.raw_os_error()?) {
        Errno::EMFILE => Some("raise the process's limit of descriptors (ulimit -n)"),
        Errno::ENFILE => Some("the machine is out of descriptors; raise fs.file-max"),
        Errno::ENOBUFS | Errno::ENOMEM => Some("the machine is out of memory; stop something else"),
        // What lacks a privilege is EACCES for bind(2), and for a path.
        Errno::EPERM => Some("a sandbox or a security policy forbids it"),
        _ => None,
    }
}
