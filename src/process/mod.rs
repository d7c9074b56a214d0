//! One process per connection: the parent's table of its children.
//!
//! In come accepted clients, each of which gets a child, and SIGCHLD, on which every child that has ended is
//! reaped; out go the reasons for which their connections were closed. The parent never waits for a child: it tells
//! all children of the shutdown with one event, and ends those that stay with SIGKILL.

mod child;
mod status;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::access::{Backoff, Share};
use crate::connection::{Client, CloseReason};
use crate::engine::{Driver, Services};
use crate::sys::Signals;

/// The children that are alive, or have ended and are not reaped yet.
pub(crate) struct Children {
    /// Invariant: never more than its capacity, so it never allocates. No process that is not ours has one of
    /// these ids: the kernel keeps them until they are reaped.
    alive: Vec<Child>,
    /// What each child serves with, in a copy of its own.
    driver: Driver,
    /// Grows while fork(2) fails.
    pub(crate) backoff: Backoff,
}

struct Child {
    pid: Pid,
    peer: SocketAddr,
    /// Given back when the child is reaped.
    _share: Option<Share>,
}

impl Children {
    /// Room for `limit` children, which offer `services`.
    pub(crate) fn new(services: Services, limit: usize) -> Children {
        let driver = Driver::new(Arc::new(services), 0);
        Children { alive: Vec::with_capacity(limit), driver, backoff: Backoff::default() }
    }

    pub(crate) fn services(&self) -> &Services {
        self.driver.services()
    }

    /// True when one more may be started. SIGCHLD wakes the accept loop when that changes.
    pub(crate) fn has_room(&self) -> bool {
        self.alive.len() < self.alive.capacity()
    }

    /// Starts a child for a client. It calls `release` first, to close what only the parent needs.
    ///
    /// # Errors
    /// What fork(2) says, and the client, whose socket is untouched.
    pub(crate) fn start(
        &mut self,
        client: Client,
        signals: &Signals,
        release: impl FnOnce(),
    ) -> Result<(), (io::Error, Client)> {
        debug_assert!(self.has_room());
        let (driver, mut client) = (&mut self.driver, Some(client));
        let forked = signals.fork(|| {
            release();
            let Some(mut client) = client.take() else { return status::encode(&CloseReason::Left) };
            // The share is the parent's to give back.
            std::mem::forget(client.share.take());
            child::serve(driver, client)
        });
        // The child, which never comes here, takes its own copy.
        let Some(client) = client else { return Ok(()) };
        let pid = match forked {
            Ok(pid) => pid,
            Err(error) => return Err((error, client)),
        };
        self.alive.push(Child { pid, peer: client.peer, _share: client.share });
        self.backoff.reset();
        let context = &self.driver.services().context;
        context.counters.accepted.add(1);
        context.set_children(self.alive.len());
        Ok(())
    }

    /// Reaps every child that has ended, and logs and counts the ends of their connections.
    pub(crate) fn reap(&mut self) {
        while let Some((child, reason)) = self.reap_one() {
            let services = self.driver.services();
            let forced = services.context.is_force_closing();
            services.record_close(child.peer, if forced { &CloseReason::Forced } else { &reason });
            services.context.set_children(self.alive.len());
        }
    }

    /// Reaps one child that has ended, if there is one.
    fn reap_one(&mut self) -> Option<(Child, CloseReason)> {
        loop {
            let (pid, reason) = match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, status)) => (pid, status::decode(status)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, CloseReason::Killed(signal as i32)),
                Ok(WaitStatus::StillAlive) => return None,
                // ptrace(2) and real-time signals: not an end that can be told; or EINTR.
                Ok(_) | Err(Errno::EINTR) => continue,
                // ECHILD: there are none.
                Err(_) => return None,
            };
            // Others may be children of a program that this process was before, by execve(2).
            if let Some(index) = self.alive.iter().position(|child| child.pid == pid) {
                return Some((self.alive.swap_remove(index), reason));
            }
        }
    }

    /// Ends every child at once.
    pub(crate) fn kill(&self) {
        for child in &self.alive {
            let _ = kill(child.pid, Signal::SIGKILL);
        }
    }

    /// Children that are not reaped yet.
    pub(crate) fn running(&self) -> usize {
        self.alive.len()
    }
}

impl Drop for Children {
    /// A server that ends otherwise than planned leaves no child behind. In a child this never runs.
    fn drop(&mut self) {
        self.kill();
    }
}
