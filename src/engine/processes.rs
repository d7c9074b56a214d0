//! What the engine of a forking server knows of its connections, each of which is a process of its own: how
//! many there are, and the sum of requests, which children add to through an event that outlives them.

use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::eventfd::EventFd;

use crate::connection::event;
use crate::error::Error;
use crate::stats::Counter;

#[derive(Debug)]
pub(crate) struct Processes {
    limit: usize,
    running: AtomicUsize,
    /// Requests served by children that have ended since this was last read.
    served: EventFd,
    total_served: Counter,
}

impl Processes {
    pub(super) fn new(limit: usize) -> Result<Processes, Error> {
        Ok(Processes {
            limit,
            running: AtomicUsize::new(0),
            served: event("make the event for served requests")?,
            total_served: Counter::default(),
        })
    }

    /// One more was started. Only the accept loop says so, after asking whether there is room.
    pub(crate) fn started(&self) -> usize {
        self.running.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// One of them was reaped.
    pub(crate) fn reaped(&self) {
        self.running.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    pub(super) fn has_room(&self) -> bool {
        self.running() < self.limit
    }

    /// For a child, at its end.
    pub(crate) fn add_served(&self, count: u64) {
        if count > 0 {
            let _ = self.served.write(count);
        }
    }

    pub(super) fn total_served(&self) -> u64 {
        self.total_served.add(self.served.read().unwrap_or(0));
        self.total_served.value()
    }
}
