//! One process per connection: the parent's table of its children.
//!
//! In come accepted clients, each of which gets a child, and SIGCHLD, on which every child that has ended is
//! reaped; out go the reasons for which their connections were closed. The parent never waits for a child: one
//! event starts the drain in all children, another one ends the grace time, and SIGKILL ends those that stay.

mod child;
mod status;

use std::net::SocketAddr;
use std::sync::Arc;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::access::{Backoff, Share};
use crate::config::CHILDREN_FINISH;
use crate::connection::{Client, CloseReason};
use crate::engine::{Driver, Refused, Services, Serving};
use crate::error::Error;
use crate::stats::StatsSource;
use crate::sys::{ChildEnd, Signals, Tick, reap_child, threads};

/// The children that are alive, or have ended and are not reaped yet.
pub(crate) struct Children {
    /// Invariant: never more than its capacity, so it never allocates. The kernel keeps the id of a child until it is
    /// reaped, so no other process has one of these.
    alive: Vec<Child>,
    /// What each child serves with, in a copy of its own.
    driver: Driver,
    signals: Arc<Signals>,
    /// Grows while fork(2) fails.
    backoff: Backoff,
    /// When to kill the children that the end of the grace time has not ended.
    kill_at: Option<Tick>,
}

struct Child {
    pid: Pid,
    peer: SocketAddr,
    service: u16,
    /// Given back when the child is reaped.
    _share: Option<Share>,
}

impl Children {
    /// Room for `limit` children, which offer `services`, and whose ends `signals` report.
    pub(crate) fn new(services: Services, limit: usize, signals: Arc<Signals>) -> Children {
        let driver = Driver::new(Arc::new(services), 0);
        Children { alive: Vec::with_capacity(limit), driver, signals, backoff: Backoff::default(), kill_at: None }
    }

    /// Reaps one child that has ended, if there is one.
    fn reap_one(&mut self) -> Option<(Child, CloseReason)> {
        loop {
            let (pid, end) = reap_child()?;
            // Any other child belongs to a program that this process ran before an execve(2).
            if let Some(index) = self.alive.iter().position(|child| child.pid == pid) {
                let reason = match end {
                    ChildEnd::Exited(status) => status::decode(status),
                    ChildEnd::Killed(signal) => CloseReason::Killed(signal),
                };
                return Some((self.alive.swap_remove(index), reason));
            }
        }
    }

    /// Ends every child at once.
    fn kill(&self) {
        for child in &self.alive {
            let _ = kill(child.pid, Signal::SIGKILL);
        }
    }
}

impl Serving for Children {
    fn start(&mut self) -> Result<(), Error> {
        match threads().map_err(Error::setup("count the threads in /proc/self/task; mount /proc"))? {
            1 => Ok(()),
            more => Err(Error::Threaded(more)),
        }
    }

    fn services(&self) -> &Services {
        self.driver.services()
    }

    fn stats_source(&self) -> Arc<dyn StatsSource> {
        self.services().context.clone()
    }

    fn open_connections(&self) -> usize {
        self.alive.len()
    }

    fn running(&self) -> usize {
        self.alive.len()
    }

    fn has_slot_or_wake(&self) -> bool {
        // SIGCHLD wakes the accept loop in any case.
        self.alive.len() < self.alive.capacity()
    }

    fn admit(&mut self, client: Client, release: &mut dyn FnMut()) -> Result<(), Refused> {
        debug_assert!(self.has_slot_or_wake());
        let (driver, mut client) = (&mut self.driver, Some(client));
        let forked = self.signals.fork(|| {
            release();
            let Some(mut client) = client.take() else { return status::encode(&CloseReason::Left) };
            // The parent gives the share back, once it has reaped this child.
            std::mem::forget(client.share.take());
            child::serve(driver, client)
        });
        // Always `Some`: the closure runs in the child alone, and takes the child's copy.
        let Some(client) = client else { return Ok(()) };
        let context = &self.driver.services().context;
        let pid = match forked {
            Ok(pid) => pid,
            Err(error) => {
                // EAGAIN: RLIMIT_NPROC, or the pids limit of a cgroup; ENOMEM.
                context.counters.fork_failed.add(1);
                return Err(Refused { client, pause: Some((self.backoff.next(), error)) });
            }
        };
        self.alive.push(Child { pid, peer: client.peer, service: client.service, _share: client.share });
        self.backoff.reset();
        self.driver.services().count_accepted(client.service.into());
        context.set_children(self.alive.len());
        Ok(())
    }

    fn start_draining(&mut self) {
        self.services().context.start_draining();
    }

    fn force_close(&mut self) {
        let context = &self.services().context;
        context.start_force_closing();
        self.kill_at = Some(context.clock.now().after(CHILDREN_FINISH));
    }

    fn next_sweep(&self) -> Option<Tick> {
        self.kill_at
    }

    fn sweep(&mut self, _: Tick) {
        self.kill_at = None;
        self.kill();
    }

    fn reap(&mut self) {
        while let Some((child, reason)) = self.reap_one() {
            let services = self.driver.services();
            let forced = services.context.is_force_closing();
            let reason = if forced { CloseReason::Forced } else { reason };
            services.record_close(child.peer, child.service.into(), &reason);
            services.context.set_children(self.alive.len());
        }
    }
}

impl Drop for Children {
    /// A server that ends otherwise than planned leaves no child behind. In a child this never runs.
    fn drop(&mut self) {
        self.kill();
    }
}
