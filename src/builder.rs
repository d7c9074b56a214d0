//! How a server is put together: services, addresses, limits; checked and bound all at once.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::budget::Budget;
use crate::config::{CHILDREN, LISTENERS, Limits, WhenFull};
use crate::context::Context;
use crate::engine::Engine;
use crate::engine::listener::Listener;
use crate::error::Error;
use crate::fork::Children;
use crate::server::Server;
use crate::server::actions::Actions;
use crate::server::control::Control;
use crate::service::{Host, Hosted, Service};

/// A server in the making; see [`Server::builder`].
pub struct Builder {
    limits: Limits,
    hosts: Vec<Box<dyn Host>>,
    names: Vec<String>,
    listeners: Vec<Wanted>,
    signals: bool,
    control: Option<PathBuf>,
    children: Option<usize>,
    memory: usize,
    actions: Actions,
}

struct Wanted {
    source: Source,
    service: usize,
}

enum Source {
    Address(SocketAddr),
    Ready(TcpListener),
}

impl Builder {
    pub(crate) fn new(service: impl Service) -> Builder {
        let builder = Builder {
            limits: Limits::default(),
            hosts: vec![],
            names: vec![],
            listeners: vec![],
            signals: false,
            control: None,
            children: None,
            memory: 0,
            actions: Actions::default(),
        };
        builder.service(service)
    }

    /// Adds another service. Addresses given from here on are its.
    pub fn service(mut self, service: impl Service) -> Builder {
        let name = std::any::type_name_of_val(&service);
        let name = name.split('<').next().and_then(|path| path.rsplit("::").next()).unwrap_or(name);
        self.names.push(name.to_lowercase());
        self.hosts.push(Box::new(Hosted::new(service)));
        self
    }

    /// Names the service added last, for log lines and errors.
    pub fn name(mut self, name: &str) -> Builder {
        if let Some(last) = self.names.last_mut() {
            *last = name.to_string();
        }
        self
    }

    /// Listens on an address once the server is built; port 0 picks a free one. The service is the one added
    /// last. An IPv6 address serves IPv6 only.
    ///
    /// # Errors
    /// When `address` is text that is not an address. A host name is looked up, which may block.
    pub fn listen(mut self, address: impl ToSocketAddrs) -> io::Result<Builder> {
        for address in address.to_socket_addrs()? {
            self.listeners.push(Wanted { source: Source::Address(address), service: self.hosts.len() - 1 });
        }
        Ok(self)
    }

    /// Serves on a socket that listens already, for the service added last.
    pub fn listener(mut self, listener: TcpListener) -> Builder {
        self.listeners.push(Wanted { source: Source::Ready(listener), service: self.hosts.len() - 1 });
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
    /// [`when_full`](Builder::when_full) decides; [`WhenFull::Shed`] cannot, for the server does not see who is idle.
    /// Requests that a child serves are counted when it ends.
    ///
    /// [`Server::run`] must then be called while the process has one thread. The server handles SIGCHLD, reaps
    /// every child of the process, and makes those it starts ignore the signals of
    /// [`handle_signals`](Builder::handle_signals), which are for it to hear.
    pub fn forking(mut self, max_children: usize) -> Builder {
        self.children = Some(max_children);
        self
    }

    /// Counts that many bytes of the program's own into the [`budget`](Builder::budget), such as
    /// [`Kv::memory`](crate::services::Kv::memory).
    pub fn memory(mut self, bytes: usize) -> Builder {
        self.memory += bytes;
        self
    }

    /// Calls `action` on a signal, by its number; signal(7) lists them. It runs on the accept loop, which accepts
    /// nobody and hears no other signal until it returns, and not in a signal handler: it may do what any code
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
        if self.listeners.len() > LISTENERS {
            return Err(Error::TooManyListeners(self.listeners.len()));
        }
        let session = self.hosts.iter().map(|host| host.session_size()).sum();
        let budget = match self.children {
            None => Budget::new(&self.limits, self.listeners.len(), session, self.memory),
            Some(children) => {
                self.check_forking(children)?;
                Budget::forking(&self.limits, self.listeners.len(), session, children, self.memory)
            }
        };
        budget.claim()?;
        Ok(budget)
    }

    fn check_forking(&self, children: usize) -> Result<(), Error> {
        if !CHILDREN.contains(&children) {
            let expected = format!("{} to {}", CHILDREN.start(), CHILDREN.end());
            return Err(Error::Limit { name: "max-children", value: children.to_string(), expected });
        }
        if self.limits.when_full == WhenFull::Shed {
            let reason = "the server does not see which client is idle; choose wait or reject";
            return Err(Error::Forking { what: "shedding idle clients".into(), reason });
        }
        match self.hosts.iter().position(|host| host.shares_state()) {
            Some(index) => Err(Error::Forking {
                what: format!("the service {}", self.names[index]),
                reason: "its clients share what it keeps, and each process would have its own copy",
            }),
            None => Ok(()),
        }
    }

    /// Checks the limits, allocates everything, and binds. Clients can connect from here on; they are served
    /// once [`Server::run`] is called.
    ///
    /// # Errors
    /// One variant of [`Error`] per step that can fail, with the address where there is one.
    pub fn build(self) -> Result<Server, Error> {
        if self.listeners.is_empty() {
            return Err(Error::NoListener);
        }
        self.budget()?;
        let signals = Server::route_signals(self.signals, self.children.is_some(), &self.actions)?;
        let names = self.names;
        let bind = |wanted: Wanted| {
            let service = wanted.service;
            let (address, made) = match wanted.source {
                Source::Address(address) => (address, Listener::bind(address, service)),
                Source::Ready(socket) => {
                    let address = socket.local_addr().map_err(Error::setup("use the given listener"))?;
                    (address, Listener::adopt(socket, service))
                }
            };
            made.map_err(|source| Error::Listen { address, service: names[service].clone(), source })
        };
        let listeners = self.listeners.into_iter().map(bind).collect::<Result<Vec<_>, _>>()?;
        let control = match self.control {
            Some(path) => Some(Control::bind(&path).map_err(|source| Error::Control { path, source })?),
            None => None,
        };
        let limits = match self.children {
            None => self.limits,
            // Nothing of the pool is allocated.
            Some(_) => Limits { workers: 0, connections: 0, queue: 1, ..self.limits },
        };
        let context = Arc::new(Context::new(limits)?);
        let children = self.children.map(|limit| Children::new(&context, limit));
        let engine = Engine::new(context, self.hosts.into_boxed_slice(), self.children)?;
        Server::new(engine, listeners, names, signals, self.actions, control, children)
    }
}
