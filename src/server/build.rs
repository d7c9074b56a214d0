//! From what is wanted to a server that is bound: the limits are checked, everything is allocated, and the sockets are
//! made in the order in which they were asked for.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::accepting::Accepting;
use super::budget::{Budget, Sockets};
use super::builder::Builder;
use super::retry::Retry;
use super::server::Server;
use super::sockets::{Bound, Source};
use super::stopping::Stopping;
use crate::config::{CHILDREN, LISTENERS, Limits, WhenFull, check_range, check_timeout};
use crate::connection::{Context, Tuning};
use crate::control::Control;
use crate::datagram::Memberships;
use crate::engine::{Pool, Services, Serving};
use crate::error::Error;
use crate::process::Children;
use crate::service::Service;
use crate::shutdown::Requests;
use crate::sys::{STOPPING, Signals};

impl Server {
    /// A server of `service`, with the default [`Limits`](crate::Limits) and no address yet.
    pub fn builder(service: impl Service) -> Builder {
        Builder::new().service(service)
    }
}

impl Builder {
    /// What the server will use at most.
    ///
    /// # Errors
    /// When a limit is out of range, or the machine does not have that much.
    pub fn budget(&self) -> Result<Budget, Error> {
        self.limits.validate()?;
        if let Some(watchdog) = &self.hooks.watchdog {
            check_timeout("watchdog", watchdog.interval, Duration::from_millis(1))?;
        }
        check_timeout("bind-retry", self.bind_retry, Duration::ZERO)?;
        // The status has room for so many services, too.
        let count = self.wanted.len().max(self.tcp.len());
        if count > LISTENERS {
            return Err(Error::TooManyListeners { count, most: LISTENERS });
        }
        let session = self.tcp.iter().map(|service| service.session_size()).sum();
        let count = |fits: fn(&Source) -> bool| self.wanted.iter().filter(|wanted| fits(&wanted.source)).count();
        let sockets = Sockets {
            listeners: count(Source::is_tcp),
            endpoints: count(|source| !source.is_tcp()),
            groups: count(|source| matches!(source, Source::Group(_))),
        };
        if let Some(children) = self.children {
            self.check_forking(children, sockets)?;
        }
        let budget = Budget::new(&self.limits, sockets, session, self.children, self.memory);
        budget.claim(self.memory)?;
        Ok(budget)
    }

    fn check_forking(&self, children: usize, sockets: Sockets) -> Result<(), Error> {
        check_range("max-children", children, CHILDREN)?;
        if self.limits.when_full == WhenFull::Shed {
            let reason = "the server does not see which client is idle; choose wait or reject";
            return Err(Error::Forking { what: "shedding idle clients".into(), reason });
        }
        if sockets.endpoints > 0 {
            let reason = "no process has a connection to serve them for; use another server";
            return Err(Error::Forking { what: "receiving datagrams".into(), reason });
        }
        match self.tcp.iter().position(|service| service.shares_state()) {
            Some(index) => Err(Error::Forking {
                what: format!("the service {}", self.tcp[index].name()),
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
        let signals = self.route_signals()?.map(Arc::new);
        let mut hooks = self.hooks;
        let mut retry = Retry::new(self.bind_retry, signals.as_deref(), &mut hooks.actions);
        let mut tuning = Tuning::new(&self.limits);
        tuning.freebind = self.freebind;
        let mut bound = Bound::new(tuning);
        for wanted in self.wanted {
            let (source, service, name) = wanted.with_service(&self.tcp, &self.udp_names)?;
            bound.add(source, service, name, &mut retry)?;
        }
        let Bound { listeners, endpoints, groups, names, tuning } = bound;
        tuning.report();
        let control = match self.control {
            Some(path) => Some(Control::bind(&path).map_err(|source| Error::Control { path, source })?),
            None => None,
        };
        let (tcp, udp) = (self.tcp.into_boxed_slice(), self.udp.into_boxed_slice());
        // Without SIGCHLD no child would be reaped, so a forking server always handles signals.
        let processes = self.children.zip(signals.clone());
        let (serving, places): (Box<dyn Serving>, usize) = match processes {
            None => {
                let connections = self.limits.connections;
                let services = Services::new(Arc::new(Context::new(self.limits)?), tcp, udp, connections);
                (Box::new(Pool::new(services, endpoints)?), connections)
            }
            Some((children, signals)) => {
                // One session, of which each process has its own copy.
                let context = Context::forking(Limits { workers: 0, connections: children, ..self.limits })?;
                let services = Services::new(Arc::new(context), tcp, udp, 1);
                (Box::new(Children::new(services, children, signals)), children)
            }
        };
        let Context { limits, wake, .. } = &*serving.services().context;
        Ok(Server {
            accepting: Accepting::new(listeners, limits, places, wake)?,
            stopping: Stopping::new(limits.grace),
            requests: Arc::new(Requests::new(wake.clone())),
            memberships: Memberships::new(groups),
            names,
            signals,
            control,
            hooks,
            serving,
        })
    }

    /// Routes the signals that have an action, and those that the server itself handles.
    fn route_signals(&self) -> Result<Option<Signals>, Error> {
        let mut signals: Vec<Signal> = self.hooks.actions.signals().collect();
        if self.signals {
            signals.extend(STOPPING.into_iter().chain([Signal::SIGUSR1]));
        }
        signals.extend(self.children.map(|_| Signal::SIGCHLD));
        if signals.is_empty() {
            return Ok(None);
        }
        Signals::route(&signals).map(Some).map_err(|error| match error.kind() {
            io::ErrorKind::ResourceBusy => Error::SignalsTaken,
            _ => Error::setup("install signal handlers")(error),
        })
    }
}
