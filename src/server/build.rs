//! From what is wanted to a server that is bound: the limits are checked, everything is allocated, and the sockets are
//! made in the order in which they were asked for.

use std::sync::Arc;
use std::time::Duration;

use super::budget::{Budget, Sockets};
use super::builder::Builder;
use super::retry::Retry;
use super::server::{Parts, Server};
use super::sockets::{Bound, Source};
use crate::config::{CHILDREN, LISTENERS, Limits, WhenFull, check_timeout};
use crate::connection::{Context, Tuning};
use crate::control::Control;
use crate::datagram::Memberships;
use crate::engine::Engine;
use crate::error::Error;
use crate::process::Children;
use crate::service::Service;

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
