//! One process per connection: the parent's table of its children.
//!
//! In come accepted sockets, each of which gets a child, and SIGCHLD, on which every child that has ended is
//! reaped; out go the reasons for which their connections were closed. The parent never waits for a child: it tells
//! all children of the shutdown with one event, and ends those that stay with SIGKILL.

mod child;
mod status;

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use bytes::BytesMut;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::access::Backoff;
use crate::connection::Context;
use crate::connection::{CloseReason, Connection};
use crate::engine::Engine;
use crate::engine::processes::Processes;
use crate::sys::Signals;

/// The children that are alive, or have ended and are not reaped yet.
pub(crate) struct Children {
    /// Invariant: never more than its capacity, so it never allocates. No process that is not ours has one of
    /// these ids: the kernel keeps them until they are reaped.
    alive: Vec<Child>,
    /// What the next child serves with: allocated here, written to in the child's copy only.
    connection: Connection,
    /// Grows while fork(2) fails.
    pub(crate) backoff: Backoff,
}

struct Child {
    pid: Pid,
    peer: SocketAddr,
}

impl Children {
    /// Room for `limit` children.
    pub(crate) fn new(context: &Arc<Context>, limit: usize) -> Children {
        let mut block = BytesMut::zeroed(context.limits.buffer * 2);
        let input = block.split_to(context.limits.buffer);
        Children {
            alive: Vec::with_capacity(limit),
            connection: Connection::new(context.clone(), input, block),
            backoff: Backoff::default(),
        }
    }

    /// Starts a child for an accepted socket. It calls `release` first, to close what only the parent needs.
    ///
    /// # Errors
    /// What fork(2) says. In the parent the socket is untouched in any case.
    pub(crate) fn start(
        &mut self,
        (engine, processes): (&Engine, &Processes),
        signals: &Signals,
        (socket, peer, service): (&mut Option<TcpStream>, SocketAddr, usize),
        release: impl FnOnce(),
    ) -> io::Result<()> {
        debug_assert!(self.alive.len() < self.alive.capacity());
        let connection = &mut self.connection;
        let pid = signals.fork(|| {
            release();
            match socket.take() {
                Some(socket) => connection.start(socket, peer, service),
                None => return status::encode(&CloseReason::Left),
            }
            child::serve(engine, processes, connection)
        })?;
        self.alive.push(Child { pid, peer });
        self.backoff.reset();
        Ok(())
    }

    /// Reaps one child that has ended, if there is one: whose it was, and why it ended.
    pub(crate) fn reap(&mut self) -> Option<(SocketAddr, CloseReason)> {
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
                return Some((self.alive.swap_remove(index).peer, reason));
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
    pub(crate) fn len(&self) -> usize {
        self.alive.len()
    }
}

impl Drop for Children {
    /// A server that ends otherwise than planned leaves no child behind. In a child this never runs.
    fn drop(&mut self) {
        self.kill();
    }
}
