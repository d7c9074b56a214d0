//! What the connections, the workers and the accept loop of a server share: limits, clock, counters, and how far the
//! shutdown has come.
//!
//! The workers only read the shutdown's state; the accept loop alone moves it. A forked child reads its parent's
//! through an event that both have.

use std::sync::Arc;
use std::time::Instant;

use super::streaming::Streaming;
use crate::config::Limits;
use crate::error::Error;
use crate::stats::{Counters, SharedCounter, Stats, StatsSource, WorkerCounter};
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sys::{Clock, Event, is_readable};

#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) limits: Limits,
    pub(crate) clock: Clock,
    /// When the server was built.
    pub(crate) started: Instant,
    pub(crate) counters: Counters,
    /// Requests served, by worker. The last is the accept loop's, which serves none but needs a place.
    pub(crate) served: Box<[WorkerCounter]>,
    pub(crate) streaming: Streaming,
    /// Wakes the accept loop.
    pub(crate) wake: Arc<Event>,
    /// Raised when the shutdown starts and never taken, so that a stream handler that waits for its client wakes, and
    /// so does every child process.
    pub(crate) drain: Event,
    /// Raised when the grace time is over and never taken, for stream handlers that wait for their client to read, and
    /// for child processes.
    pub(crate) force_close: Event,
    /// Release and Acquire are enough: a worker that reads the old value finds the edge that the accept loop leaves in
    /// its slot afterwards.
    draining: AtomicBool,
    /// The grace time is over: the server ends every connection that ends now. Relaxed is enough: a worker that reads
    /// the old value ends its connection a moment earlier, for another reason.
    force_closing: AtomicBool,
    /// In a forking server only.
    family: Option<Family>,
}

/// What a forking server and its children share: sums that a child adds to and that outlive it.
#[derive(Debug)]
struct Family {
    notices: SharedCounter,
    /// Requests of children that have ended.
    served: SharedCounter,
    /// Relaxed: the accept loop writes it, and statistics show it.
    children: AtomicUsize,
    /// This process is a child: the flags of the shutdown are copies from before the fork, and the events count.
    /// Relaxed: a child has one thread.
    is_child: AtomicBool,
}

impl Context {
    /// The context of a pool of workers.
    pub(crate) fn new(limits: Limits) -> Result<Context, Error> {
        let event = |step| Event::new().map_err(Error::setup(step));
        let workers = limits.workers;
        Ok(Context {
            limits,
            clock: Clock,
            started: Instant::now(),
            counters: Counters::default(),
            served: (0..=workers).map(|_| WorkerCounter::default()).collect(),
            streaming: Streaming::default(),
            wake: Arc::new(event("make the accept loop's event")?),
            drain: event("make the drain event")?,
            force_close: event("make the event for the end of the grace time")?,
            draining: AtomicBool::new(false),
            force_closing: AtomicBool::new(false),
            family: None,
        })
    }

    /// The context of a server that forks.
    pub(crate) fn forking(limits: Limits) -> Result<Context, Error> {
        let counter = || SharedCounter::new().map_err(Error::setup("make the events that children count with"));
        let family = Family {
            notices: counter()?,
            served: counter()?,
            children: AtomicUsize::new(0),
            is_child: AtomicBool::new(false),
        };
        Ok(Context { family: Some(family), ..Context::new(limits)? })
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire) || self.is_child() && is_readable(&self.drain)
    }

    fn is_child(&self) -> bool {
        self.family.as_ref().is_some_and(|family| family.is_child.load(Ordering::Relaxed))
    }

    /// Makes this the context of a child process, which has read its parent's state at the fork.
    pub(crate) fn become_child(&self) {
        if let Some(family) = &self.family {
            family.is_child.store(true, Ordering::Relaxed);
        }
    }

    /// Counts a notice. A child adds it to the parent's sum before the client can see the notice: the parent may kill
    /// the child then.
    pub(crate) fn count_notice(&self) {
        match &self.family {
            Some(family) if family.is_child.load(Ordering::Relaxed) => family.notices.add(1),
            _ => self.counters.notices.add(1),
        }
    }

    /// Counts the requests of a child, at its end.
    pub(crate) fn add_served(&self, count: u64) {
        if let (Some(family), true) = (&self.family, count > 0) {
            family.served.add(count);
        }
    }

    /// True once the grace time is over.
    pub(crate) fn is_force_closing(&self) -> bool {
        self.force_closing.load(Ordering::Relaxed) || self.is_child() && is_readable(&self.force_close)
    }

    pub(crate) fn start_draining(&self) {
        self.draining.store(true, Ordering::Release);
        self.drain.raise();
    }

    pub(crate) fn start_force_closing(&self) {
        self.force_closing.store(true, Ordering::Relaxed);
        self.force_close.raise();
    }

    /// Requests that this process has served.
    pub(crate) fn served_by_workers(&self) -> u64 {
        self.served.iter().map(WorkerCounter::value).sum()
    }

    /// A forking server has so many children now.
    pub(crate) fn set_children(&self, count: usize) {
        if let Some(family) = &self.family {
            family.children.store(count, Ordering::Relaxed);
            self.counters.open_max.raise(count as u64);
        }
    }

    pub(crate) fn read_stats(&self, read: fn(&SharedCounter) -> u64) -> Stats {
        let counters = self.counters.snapshot(read);
        let Some(family) = &self.family else { return Stats { served: self.served_by_workers(), ..counters } };
        let open = family.children.load(Ordering::Relaxed) as u64;
        Stats { served: read(&family.served), notices: read(&family.notices), open, ..counters }
    }
}

impl StatsSource for Context {
    /// All counters, but for those of slots and queue.
    fn stats(&self) -> Stats {
        self.read_stats(if self.is_child() { SharedCounter::last_value } else { SharedCounter::value })
    }
}
