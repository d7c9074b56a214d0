//! How a server is put together: services, addresses, limits; checked and bound all at once.

use std::fmt;
use std::io;
use std::net::{TcpListener, ToSocketAddrs, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::actions::Actions;
use super::budget::{Budget, Sockets};
use super::hooks::Hooks;
use super::retry::Retry;
use super::server::{Parts, Server};
use super::sockets::{Bound, Source, Wanted};
use crate::config::{CHILDREN, LISTENERS, Limits, WhenFull, check_timeout};
use crate::connection::Context;
use crate::connection::Tuning;
use crate::control::Control;
use crate::datagram::{Datagram, Group, Memberships};
use crate::engine::Engine;
use crate::error::Error;
use crate::process::Children;
use crate::service::{ErasedService, Service, WithSessions};

/// A server in the making: services, each followed by where it is offered, and limits.
///
/// [`Server::builder`] makes one with a first TCP service; one of datagrams alone starts empty:
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
pub struct Builder {
    limits: Limits,
    hosts: Vec<Box<dyn ErasedService>>,
    /// What the TCP services are called.
    host_names: Vec<String>,
    datagrams: Vec<Box<dyn Datagram>>,
    datagram_names: Vec<String>,
    /// The service added last is one for datagrams.
    datagram_last: bool,
    wanted: Vec<Wanted>,
    signals: bool,
    bind_retry: Duration,
    freebind: bool,
    control: Option<PathBuf>,
    children: Option<usize>,
    memory: usize,
    actions: Actions,
    pub(crate) hooks: Hooks,
}

impl Builder {
    /// A server without a service yet.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Adds a TCP service. Addresses to listen on that are given from here on are its.
    pub fn service(mut self, service: impl Service) -> Builder {
        self.host_names.push(name_of(&service));
        self.hosts.push(Box::new(WithSessions::new(service)));
        self.datagram_last = false;
        self
    }

    /// Adds a datagram service. Addresses to bind to that are given from here on are its.
    pub fn datagram(mut self, service: impl Datagram) -> Builder {
        self.datagram_names.push(name_of(&service));
        self.datagrams.push(Box::new(service));
        self.datagram_last = true;
        self
    }

    /// Names the service added last, for log lines and errors.
    pub fn name(mut self, name: &str) -> Builder {
        let names = if self.datagram_last { &mut self.datagram_names } else { &mut self.host_names };
        if let Some(last) = names.last_mut() {
            *last = name.to_string();
        }
        self
    }

    /// Listens on an address once the server is built; port 0 picks a free one. The service is the TCP service
    /// added last. An IPv6 address serves IPv6 only.
    ///
    /// # Errors
    /// When `address` is text that is not an address. A host name is looked up, which may block.
    pub fn listen(mut self, address: impl ToSocketAddrs) -> io::Result<Builder> {
        for address in address.to_socket_addrs()? {
            self.want(Source::Address(address));
        }
        Ok(self)
    }

    /// Serves on a socket that listens already, for the TCP service added last.
    pub fn listener(mut self, listener: TcpListener) -> Builder {
        self.want(Source::Ready(listener));
        self
    }

    /// Receives datagrams at an address once the server is built; port 0 picks a free one. The service is the
    /// datagram service added last. An IPv6 address serves IPv6 only.
    ///
    /// On a machine with several addresses, bind to each rather than to `0.0.0.0` or `[::]`: there the route to
    /// the sender, not the address that it has sent to, chooses the address that the reply comes from.
    ///
    /// # Errors
    /// When `address` is text that is not an address. A host name is looked up, which may block.
    pub fn bind(mut self, address: impl ToSocketAddrs) -> io::Result<Builder> {
        for address in address.to_socket_addrs()? {
            self.want(Source::Datagrams(address));
        }
        Ok(self)
    }

    /// Receives datagrams on a socket that is bound already, for the datagram service added last.
    pub fn socket(mut self, socket: UdpSocket) -> Builder {
        self.want(Source::ReadyDatagrams(socket));
        self
    }

    /// Receives what is sent to a multicast group, for the datagram service added last; other servers on the
    /// machine may do so too.
    ///
    /// The server starts whether or not the group can be joined at that moment. It joins as soon as there is
    /// such an interface, and again whenever one of the machine's interfaces, addresses or routes has changed.
    /// The socket is bound to the group, and so gets nothing else; but for an IPv6 group of a node or a link
    /// (ff01::/16, ff02::/16 and their kin) it gets all that is sent to the port.
    pub fn join(mut self, group: Group) -> Builder {
        self.want(Source::Group(group));
        self
    }

    fn want(&mut self, source: Source) {
        let services = if source.is_tcp() { self.hosts.len() } else { self.datagrams.len() };
        self.wanted.push(Wanted { source, service: services.checked_sub(1) });
    }

    /// Tries again, for that long in all and at most a day, what cannot be bound yet: an address that the machine
    /// does not have (`EADDRNOTAVAIL`), that is taken (`EADDRINUSE`), or whose interface is missing (`ENODEV`).
    /// [`build`](Builder::build) blocks meanwhile; the first failure of each address is logged. Addresses bound
    /// before that one let clients connect; they wait for [`Server::run`].
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
    /// counters. Without this and [`on_signal`](Builder::on_signal) the library touches no signal. The handlers
    /// are installed by [`build`](Builder::build) and are the whole process's.
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
    /// [`when_full`](Builder::when_full) decides; [`WhenFull::Shed`] cannot, for the server does not see which client is idle.
    /// Requests that a child serves are counted when it ends.
    ///
    /// [`Server::run`] must then be called while the process has one thread. The server handles SIGCHLD, reaps
    /// every child of the process, and makes those it starts ignore the signals of
    /// [`handle_signals`](Builder::handle_signals), which are for it to hear.
    pub fn forking(mut self, max_children: usize) -> Builder {
        self.children = Some(max_children);
        self
    }

    /// Calls `action` once, as soon as every socket is bound and every worker has started. Clients are served from
    /// then on. It runs on the thread of [`Server::run`], which accepts no client until it returns. Several actions run
    /// in the order in which they were given.
    pub fn on_ready(mut self, action: impl FnOnce() + Send + 'static) -> Builder {
        self.hooks.on_ready(Box::new(action));
        self
    }

    /// Calls `action` once, when the shutdown begins and before the first client is told. It runs on the accept
    /// loop, which does nothing else until it returns. Several actions run in the order in which they were given.
    pub fn on_drain(mut self, action: impl FnOnce() + Send + 'static) -> Builder {
        self.hooks.on_drain(Box::new(action));
        self
    }

    /// Calls `beat` every `interval`, from the accept loop, for as long as that and the workers come forward: for
    /// a supervisor that starts the program anew when it hears nothing (`WatchdogSec=` of systemd.service(5), or
    /// watchdog(7)). Take half of the time that it allows.
    ///
    /// The workers stand still when, from one look to the next, something waits for one of them, and none has
    /// begun a turn, served a request or a datagram, or had a stream handler that receives, sends or waits for its
    /// client. So a service that is stuck silences this within twice the interval, once it has taken every worker; what a
    /// client does, or does not do, cannot. While they stand still they are looked at four times as often, and the first
    /// sign of life is a beat. A forking server has no workers to look at.
    ///
    /// An idle server wakes for this alone, and without it not at all. [`build`](Builder::build) refuses an interval
    /// below 1 ms or above [`MAX_TIMEOUT`](crate::config::MAX_TIMEOUT) with [`Error::Limit`].
    pub fn watchdog(mut self, interval: Duration, beat: impl FnMut() + Send + 'static) -> Builder {
        self.hooks.watch(interval, Box::new(beat));
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
    /// forking one hears; for those that no program can go on after; and for numbers that are no signal's.
    pub fn on_signal(mut self, signal: i32, action: impl FnMut() + Send + 'static) -> Result<Builder, Error> {
        self.actions.set(signal, Box::new(action))?;
        Ok(self)
    }

    /// What the server will use at most.
    ///
    /// # Errors
    /// When a limit is out of range, or the machine does not have that much.
    pub fn budget(&self) -> Result<Budget, Error> {
        self.limits.validate()?;
        self.hooks.check()?;
        check_timeout("bind-retry", self.bind_retry, Duration::ZERO)?;
        if self.wanted.len() > LISTENERS {
            return Err(Error::TooManyListeners { count: self.wanted.len(), most: LISTENERS });
        }
        let session = self.hosts.iter().map(|host| host.session_size()).sum();
        let count = |fits: fn(&Source) -> bool| self.wanted.iter().filter(|wanted| fits(&wanted.source)).count();
        let sockets = Sockets {
            listeners: count(Source::is_tcp),
            ports: count(|source| !source.is_tcp()),
            groups: count(|source| matches!(source, Source::Group(_))),
        };
        let budget = match self.children {
            None => Budget::new(&self.limits, sockets, session, self.memory),
            Some(children) => {
                self.check_forking(children, sockets)?;
                Budget::forking(&self.limits, sockets, session, children, self.memory)
            }
        };
        budget.claim(self.memory)?;
        Ok(budget)
    }

    fn check_forking(&self, children: usize, sockets: Sockets) -> Result<(), Error> {
        if !CHILDREN.contains(&children) {
            let expected = format!("{} to {}", CHILDREN.start(), CHILDREN.end());
            return Err(Error::Limit { name: "max-children", value: children.to_string(), expected });
        }
        if self.limits.when_full == WhenFull::Shed {
            let reason = "the server does not see which client is idle; choose wait or reject";
            return Err(Error::Forking { what: "shedding idle clients".into(), reason });
        }
        if sockets.ports > 0 {
            let reason = "no process has a connection to serve them for; use another server";
            return Err(Error::Forking { what: "receiving datagrams".into(), reason });
        }
        match self.hosts.iter().position(|host| host.shares_state()) {
            Some(index) => Err(Error::Forking {
                what: format!("the service {}", self.host_names[index]),
                reason: "its clients share what it keeps, and each process would have its own copy",
            }),
            None => Ok(()),
        }
    }

    /// Checks the limits, allocates everything, and binds. Clients can connect from here on; they are served
    /// once [`Server::run`] is called.
    ///
    /// # Errors
    /// One variant of [`Error`] per step that can fail, with the address where there is one. [`Error::Stopped`]
    /// when a signal to stop ended the wait that [`bind_retry`](Builder::bind_retry) allows.
    pub fn build(self) -> Result<Server, Error> {
        if self.wanted.is_empty() {
            return Err(Error::NoListener);
        }
        self.budget()?;
        let signals = Server::route_signals(self.signals, self.children.is_some(), &self.actions)?;
        let mut actions = self.actions;
        let mut retry = Retry::new(self.bind_retry, signals.as_ref(), &mut actions);
        let mut bound = Bound::new(Tuning::new(&self.limits, self.freebind));
        for wanted in self.wanted {
            let names = if wanted.source.is_tcp() { &self.host_names } else { &self.datagram_names };
            bound.add(wanted, names, &mut retry)?;
        }
        let Bound { listeners, ports, groups, names, tuning } = bound;
        tuning.report();
        let control = match self.control {
            Some(path) => Some(Control::bind(&path).map_err(|source| Error::Control { path, source })?),
            None => None,
        };
        let limits = match self.children {
            None => self.limits,
            // Nothing of the pool is allocated.
            Some(_) => Limits { workers: 0, connections: 0, queue: 1, ..self.limits },
        };
        let context = Arc::new(Context::new(limits, self.children.is_some())?);
        let children = self.children.map(|limit| Children::new(&context, limit));
        let (hosts, datagrams) = (self.hosts.into_boxed_slice(), self.datagrams.into_boxed_slice());
        let engine = Engine::new(context, hosts, self.children, datagrams, ports)?;
        Server::new(Parts {
            engine,
            listeners,
            memberships: Memberships::new(groups),
            names,
            signals,
            actions,
            hooks: self.hooks,
            control,
            children,
        })
    }
}

impl Server {
    /// A server of `service`, with the default [`Limits`](crate::Limits) and no address yet.
    pub fn builder(service: impl Service) -> Builder {
        Builder::new().service(service)
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// What a service is called unless it is named: its type, without path and parameters.
fn name_of<S>(service: &S) -> String {
    let name = std::any::type_name_of_val(service);
    let name = name.split('<').next().and_then(|path| path.rsplit("::").next()).unwrap_or(name);
    name.to_ascii_lowercase()
}
