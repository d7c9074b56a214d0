//! What the embedding program wants of a server: services, addresses, limits and hooks. The builder only records it;
//! [`build`](super::build) checks and binds all of it at once.

use std::fmt;
use std::io;
use std::net::{TcpListener, ToSocketAddrs, UdpSocket};
#[cfg(feature = "daemon")]
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use super::hooks::Hooks;
use super::sockets::{Source, Wanted};
use super::watchdog::Watchdog;
use crate::config::{Limits, WhenFull};
use crate::datagram::{Datagram, Group};
use crate::error::Error;
use crate::service::{ErasedService, Service, WithSessions, name_of};

/// A server in the making: services, each followed by where it is offered, and limits.
///
/// [`Server::builder`](crate::Server::builder) makes one with a first TCP service; one of datagrams alone starts empty:
///
/// ```
/// use lastorders::{Answer, Builder, Datagrams};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let echo = Datagrams::new(|packet, _from, reply| {
///     reply.push(packet);
///     Ok(Answer::Reply)
/// });
/// let server = Builder::new().datagram(echo).bind("127.0.0.1:0")?.build()?;
/// # let _ = server;
/// # Ok(())
/// # }
/// ```
#[derive(Default)]
#[must_use = "a builder does nothing until it is built"]
pub struct Builder {
    pub(super) limits: Limits,
    pub(super) tcp: Vec<Box<dyn ErasedService>>,
    pub(super) udp: Vec<Box<dyn Datagram>>,
    /// What the datagram services are called.
    pub(super) udp_names: Vec<String>,
    /// The service added last is a datagram service.
    last_is_udp: bool,
    pub(super) wanted: Vec<Wanted>,
    pub(super) signals: bool,
    pub(super) bind_retry: Duration,
    pub(super) freebind: bool,
    pub(super) control: Option<PathBuf>,
    pub(super) children: Option<usize>,
    pub(super) memory: usize,
    pub(super) hooks: Hooks,
}

impl Builder {
    /// A server without a service yet.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Adds a TCP service. Addresses to listen on that are given from here on are its.
    pub fn service(mut self, service: impl Service) -> Builder {
        self.tcp.push(Box::new(WithSessions::new(service)));
        self.last_is_udp = false;
        self
    }

    /// Adds a datagram service. Addresses to bind to that are given from here on are its.
    pub fn datagram(mut self, service: impl Datagram) -> Builder {
        self.udp_names.push(name_of(&service));
        self.udp.push(Box::new(service));
        self.last_is_udp = true;
        self
    }

    /// Names the service added last, for log lines and errors.
    pub fn name(mut self, name: &str) -> Builder {
        if self.last_is_udp {
            self.udp_names.pop();
            self.udp_names.push(name.to_string());
        } else if let Some(last) = self.tcp.last_mut() {
            last.rename(name);
        }
        self
    }

    /// Listens on an address once the server is built; port 0 picks a free one. The service is the TCP service
    /// added last. An IPv6 address serves IPv6 only.
    ///
    /// # Errors
    /// When `address` is text that is not an address. A host name is looked up, which may block.
    pub fn listen(self, address: impl ToSocketAddrs + fmt::Debug) -> io::Result<Builder> {
        Ok(resolve(address)?.map(Source::Address).fold(self, Builder::want))
    }

    /// Serves on a socket that listens already, for the TCP service added last.
    pub fn listener(self, listener: TcpListener) -> Builder {
        self.want(Source::Ready(listener))
    }

    /// Receives datagrams at an address once the server is built; port 0 picks a free one. The service is the
    /// datagram service added last. An IPv6 address serves IPv6 only.
    ///
    /// On a machine with several addresses, bind to each rather than to `0.0.0.0` or `[::]`: there the route to
    /// the sender, not the address that it has sent to, chooses the address that the reply comes from.
    ///
    /// # Errors
    /// When `address` is text that is not an address. A host name is looked up, which may block.
    pub fn bind(self, address: impl ToSocketAddrs + fmt::Debug) -> io::Result<Builder> {
        Ok(resolve(address)?.map(Source::Datagrams).fold(self, Builder::want))
    }

    /// Receives datagrams on a socket that is bound already, for the datagram service added last.
    pub fn socket(self, socket: UdpSocket) -> Builder {
        self.want(Source::ReadyDatagrams(socket))
    }

    /// Receives what is sent to a multicast group, for the datagram service added last; other servers on the
    /// machine may do so too.
    ///
    /// The server starts whether or not the group can be joined at that moment. It joins as soon as there is
    /// such an interface, and again whenever one of the machine's interfaces, addresses or routes has changed.
    /// The service gets what is sent to the group and nothing else.
    pub fn join(self, group: Group) -> Builder {
        self.want(Source::Group(group))
    }

    fn want(mut self, source: Source) -> Builder {
        let services = if source.is_tcp() { self.tcp.len() } else { self.udp.len() };
        self.wanted.push(Wanted { source, service: services.checked_sub(1) });
        self
    }

    /// Tries again, for that long in all and at most a day, what cannot be bound yet: an address that the machine
    /// does not have (`EADDRNOTAVAIL`), that is taken (`EADDRINUSE`), or whose interface is missing (`ENODEV`).
    /// [`build`](Builder::build) blocks meanwhile; the first failure of each address is logged. Addresses bound
    /// before that one let clients connect; they wait for [`Server::run`](crate::Server::run).
    pub fn bind_retry(mut self, time: Duration) -> Builder {
        self.bind_retry = time;
        self
    }

    /// Binds to addresses that the machine does not have yet, so that the server starts at once and serves each as
    /// soon as it is there (`IP_FREEBIND`, ip(7)). A mistyped address is then bound as well, and never served.
    pub fn freebind(mut self) -> Builder {
        self.freebind = true;
        self
    }

    /// Sets every limit at once.
    pub fn limits(mut self, limits: Limits) -> Builder {
        self.limits = limits;
        self
    }

    /// Worker threads; see [`Limits::workers`].
    pub fn workers(mut self, count: usize) -> Builder {
        self.limits.workers = count;
        self
    }

    /// Open connections; see [`Limits::connections`].
    pub fn connections(mut self, count: usize) -> Builder {
        self.limits.connections = count;
        self
    }

    /// The time clients have to leave after the notice; see [`Limits::grace`].
    pub fn grace(mut self, grace: Duration) -> Builder {
        self.limits.grace = grace;
        self
    }

    /// What happens to a new client when every slot is taken; see [`Limits::when_full`].
    pub fn when_full(mut self, when_full: WhenFull) -> Builder {
        self.limits.when_full = when_full;
        self
    }

    /// Open connections of one client address at most; see [`Limits::per_client`].
    pub fn per_client(mut self, count: usize) -> Builder {
        self.limits.per_client = Some(count);
        self
    }

    /// Handles SIGHUP, SIGINT, SIGTERM and SIGQUIT as requests to stop, and SIGUSR1 as one to log the
    /// counters. Without this and [`on_signal`](Builder::on_signal) the library touches no signal.
    ///
    /// The handlers are installed by [`build`](Builder::build), and are the whole process's. So one server of a process
    /// has them at a time: another `build` fails with [`Error::SignalsTaken`] until that server is dropped. A signal that
    /// comes from then on stops nothing: the handlers stay, and the next server drops what came before its `build`.
    pub fn handle_signals(mut self) -> Builder {
        self.signals = true;
        self
    }

    /// Answers `status` and `stop` on a Unix socket at `path` (mode 0600), even when every worker and slot is
    /// taken: one line in, a text out. A file left by a server that is gone is replaced; the file is removed at
    /// the end.
    pub fn control(mut self, path: impl Into<PathBuf>) -> Builder {
        self.control = Some(path.into());
        self
    }

    /// Serves each connection in a process of its own, at most that many at once; no worker is started.
    ///
    /// A service that crashes, leaks or is killed costs its own connection only; in return a connection costs a
    /// `fork(2)` and up to 256 KiB. The timeouts, the notice and the grace time hold as ever, and a child is
    /// killed together with its parent, however that ends. When all processes are taken,
    /// [`when_full`](Builder::when_full) decides; [`WhenFull::Shed`] is
    /// refused, for the server does not see which client is idle.
    /// Requests that a child serves are counted when it ends.
    ///
    /// [`Server::run`](crate::Server::run) must then be called while the process has one thread. The server handles
    /// SIGCHLD, reaps every child of the process, and makes those it starts ignore the signals of
    /// [`handle_signals`](Builder::handle_signals), which the parent handles.
    pub fn forking(mut self, max_children: usize) -> Builder {
        self.children = Some(max_children);
        self
    }

    /// Calls `action` once, as soon as every socket is bound and every worker has started. Clients are served from
    /// then on. It runs on the thread of [`Server::run`](crate::Server::run), which accepts no client until it returns.
    /// Several actions run in the order in which they were given.
    pub fn on_ready(mut self, action: impl FnOnce() + Send + 'static) -> Builder {
        self.hooks.ready.push(Box::new(action));
        self
    }

    /// Calls `action` once, when the shutdown begins and before the first client gets its notice. It runs on the accept
    /// loop, which does nothing else until it returns. Several actions run in the order in which they were given.
    pub fn on_drain(mut self, action: impl FnOnce() + Send + 'static) -> Builder {
        self.hooks.drain.push(Box::new(action));
        self
    }

    /// Calls `action` whenever `fd` is readable, which it must not be after that. It runs on the accept loop, which does
    /// nothing else until it returns.
    #[cfg(feature = "daemon")]
    pub(crate) fn on_readable(mut self, fd: OwnedFd, action: impl FnMut() + Send + 'static) -> Builder {
        self.hooks.readable = Some((fd, Box::new(action)));
        self
    }

    /// Calls `ping` every `interval`, from the accept loop, for as long as that loop and the workers make progress: for
    /// a supervisor that starts the program anew when no ping comes (`WatchdogSec=` of systemd.service(5), or
    /// watchdog(7)). Take half of the time that it allows.
    ///
    /// The workers stand still when, from one look to the next, something waits for one of them, and none has begun a
    /// turn, served a request or a datagram, or had a stream handler that receives, sends or waits for its client. So a
    /// service that is stuck silences this within twice the interval, once it has taken every worker; a client cannot.
    /// While the workers stand still the accept loop looks four times as often, and pings as soon as one moves. A
    /// forking server has no workers to look at.
    ///
    /// An idle server wakes for this alone, and without it not at all. [`build`](Builder::build) refuses an interval
    /// below 1 ms or above [`MAX_TIMEOUT`](crate::config::MAX_TIMEOUT) with [`Error::Limit`].
    pub fn watchdog(mut self, interval: Duration, ping: impl FnMut() + Send + 'static) -> Builder {
        self.hooks.watchdog = Some(Watchdog::new(interval, Box::new(ping)));
        self
    }

    /// Counts that many bytes of the program's own into the [`budget`](Builder::budget), such as
    /// [`Kv::memory`](crate::builtin::Kv::memory).
    pub fn memory(mut self, bytes: usize) -> Builder {
        self.memory += bytes;
        self
    }

    /// Calls `action` on a signal, by its number; signal(7) lists them. It runs on the accept loop, which accepts
    /// no client and reads no other signal until it returns, and not in a signal handler: it may do what any code
    /// may. Signals that arrive together may be reported once. A second action on a signal replaces the first,
    /// and one on SIGUSR1 replaces the logging of the counters.
    ///
    /// # Errors
    /// [`Error::Signal`] for SIGHUP, SIGINT, SIGTERM and SIGQUIT, which stop the server; for SIGCHLD, which a
    /// forking server handles; for those that no program can go on after; and for numbers that are no signal's.
    pub fn on_signal(mut self, signal: i32, action: impl FnMut() + Send + 'static) -> Result<Builder, Error> {
        self.hooks.actions.set(signal, Box::new(action))?;
        Ok(self)
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// The addresses that a text or another form of an address means.
///
/// # Errors
/// With the text, what is wrong with it, and what would be right.
fn resolve<A: ToSocketAddrs + fmt::Debug>(address: A) -> io::Result<A::Iter> {
    address.to_socket_addrs().map_err(|error| {
        let form = "expected an address and a port, as in 127.0.0.1:9999 or [::1]:9999";
        io::Error::new(error.kind(), format!("{address:?}: {error}; {form}"))
    })
}
