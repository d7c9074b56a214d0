//! The accept loop of a forking server: a process for each client, and what is done when one has ended.

use std::net::{SocketAddr, TcpStream};

use super::server::Server;
use crate::connection::CloseReason;
use crate::engine::worker::Workers;
use crate::error::Error;
use crate::log::{Text, info};
use crate::sys::threads;

impl Server {
    /// Starts the workers, which a forking server has not.
    pub(super) fn start_workers(&self) -> Result<Option<Workers>, Error> {
        if self.children.is_none() {
            return Workers::start(&self.engine).map(Some);
        }
        match threads().map_err(Error::setup("count the threads in /proc/self/task; mount /proc"))? {
            1 => Ok(None),
            more => Err(Error::Threaded(more)),
        }
    }

    /// Workers whose loops have not ended, or children that are not reaped.
    pub(super) fn out(&self, workers: &Option<Workers>) -> usize {
        workers.as_ref().map_or(0, Workers::out) + self.children.as_ref().map_or(0, |children| children.len())
    }

    /// Gives a client a process of its own. False when that failed: it was told, and the next ones wait.
    pub(super) fn fork(&mut self, index: usize, socket: TcpStream, peer: SocketAddr) -> bool {
        let (Some(children), Some(signals)) = (&mut self.children, &self.signals) else { return false };
        let Some(processes) = &self.engine.processes else { return false };
        let service = self.listeners[index].service;
        let (listeners, reserve, control) = (&mut self.listeners, &mut self.reserve, &mut self.control);
        let deferred = &mut self.deferred;
        // A child that kept the listeners would keep their addresses taken.
        let release = || {
            listeners.clear();
            reserve.take();
            deferred.clear();
            if let Some(control) = control.take() {
                control.leave();
            }
        };
        let mut socket = Some(socket);
        match children.start((&self.engine, processes), signals, (&mut socket, peer, service), release) {
            Ok(()) => {
                let counters = &self.engine.context.counters;
                counters.accepted.add(1);
                counters.open_max.raise(processes.started() as u64);
                true
            }
            Err(error) => {
                // EAGAIN: RLIMIT_NPROC, or the pids limit of a cgroup; ENOMEM.
                let wait = children.backoff.next();
                self.engine.context.counters.fork_failed.add(1);
                self.engine.leave(peer);
                if let Some(socket) = socket {
                    self.turn_away(socket, service);
                }
                info!("Closing connection from {}", Text(&peer));
                self.pause(index, wait, &error);
                false
            }
        }
    }

    /// Reaps every child that has ended, and accounts for its connection.
    pub(super) fn reap(&mut self) {
        let (Some(children), Some(processes)) = (&mut self.children, &self.engine.processes) else { return };
        while let Some((peer, reason)) = children.reap() {
            let cut = self.engine.context.is_cut();
            self.engine.driver.record(peer, if cut { &CloseReason::Forced } else { &reason });
            self.engine.leave(peer);
            processes.reaped();
        }
    }
}
