//! What a start would bind, bound and closed again.
//!
//! In comes a builder, out go notes: what is in use at the moment, by the server that runs most likely, or not there yet,
//! ends or delays a start only now. What would fail at any time is an error, as in a start. No path changes.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::builder::Builder;
use super::hooks::Actions;
use super::retry::{Retry, may_pass};
use super::sockets::Bound;
use crate::connection::Tuning;
use crate::control::Control;
use crate::error::Error;

impl Builder {
    /// Does what [`build`](Builder::build) does with addresses, groups and the control socket, and undoes it.
    ///
    /// # Errors
    /// As `build`, but for addresses that are in use or, with [`bind_retry`](Builder::bind_retry), not there yet.
    pub(crate) fn check(self) -> Result<Vec<String>, Error> {
        let (mut notes, mut actions) = (vec![], Actions::default());
        let mut retry = Retry::new(Duration::ZERO, None, &mut actions);
        let mut tuning = Tuning::new(&self.limits);
        tuning.freebind = self.freebind;
        let mut bound = Bound::new(tuning);
        for wanted in self.wanted {
            let (source, service, name) = wanted.with_service(&self.tcp, &self.udp_names)?;
            let is_tcp = source.is_tcp();
            match bound.add(source, service, name, &mut retry) {
                Err(Error::Listen { address, source, service, tried }) => {
                    let is_used = source.kind() == io::ErrorKind::AddrInUse;
                    let own = match is_tcp {
                        true => bound.listeners.iter().any(|listener| overlap(listener.address, address)),
                        false => bound.endpoints.iter().any(|endpoint| overlap(endpoint.address, address)),
                    };
                    let passes = if is_used { !own } else { !self.bind_retry.is_zero() && may_pass(&source) };
                    let error = Error::Listen { address, source, service, tried };
                    if !passes {
                        return Err(error);
                    }
                    notes.push(error.to_string());
                }
                other => other?,
            }
        }
        for group in bound.groups {
            if let Err(error) = group.join() {
                notes.push(format!("cannot join {group} now: {error}; it will be joined once it can be"));
            }
        }
        if let Some(path) = self.control {
            match Control::check(&path) {
                Ok(()) => {}
                Err(source) => {
                    let is_used = source.kind() == io::ErrorKind::AddrInUse;
                    let error = Error::Control { path, source };
                    if !is_used {
                        return Err(error);
                    }
                    notes.push(error.to_string());
                }
            }
        }
        Ok(notes)
    }
}

/// Whether the kernel refuses one address while a socket is bound to the other one.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let every = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && one.is_ipv4() == other.is_ipv4() && (every || one.ip() == other.ip())
}
