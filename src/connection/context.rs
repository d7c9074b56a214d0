//! What every connection, worker and the accept loop share: the limits, the clock, the counters, and whether
//! the server is draining.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::streaming::Streaming;
use crate::config::Limits;
use crate::error::Error;
use crate::stats::Counters;
use crate::sys::Clock;

#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) limits: Limits,
    pub(crate) clock: Clock,
    pub(crate) counters: Counters,
    pub(crate) streaming: Streaming,
    draining: AtomicBool,
    /// The grace time is over: whatever ends now was ended by the server.
    cut: AtomicBool,
    /// This process follows the shutdown of its parent.
    followed: AtomicBool,
    /// Readable from the start of the shutdown on, so that a stream handler that waits for its client wakes, and
    /// so does every child process: they share it.
    pub(crate) drain: EventFd,
    /// Where child processes count the notices that they give, before their clients can see them: the parent may
    /// end a child right after.
    told: Option<EventFd>,
}

impl Context {
    /// With `forking`, what is shared between processes is made too.
    pub(crate) fn new(limits: Limits, forking: bool) -> Result<Context, Error> {
        let drain = event("make the drain event")?;
        let told = if forking { Some(event("make the event for notices")?) } else { None };
        let counters = Counters::default();
        Ok(Context {
            limits,
            clock: Clock::start(),
            counters,
            streaming: Streaming::default(),
            draining: AtomicBool::new(false),
            followed: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            drain,
            told,
        })
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire) || (self.followed.load(Ordering::Relaxed) && self.has_drain())
    }

    /// Whether the parent has raised the event; remembered, so that it is asked no more.
    fn has_drain(&self) -> bool {
        let mut fds = [PollFd::new(self.drain.as_fd(), PollFlags::POLLIN)];
        let raised = poll(&mut fds, PollTimeout::ZERO).is_ok_and(|count| count > 0);
        self.draining.store(raised, Ordering::Release);
        raised
    }

    /// For a child process: its copy of the flag says nothing any more, the shared event does.
    pub(crate) fn follow(&self) {
        self.followed.store(true, Ordering::Relaxed);
    }

    /// Counts a notice, wherever it is given.
    pub(crate) fn count_notice(&self) {
        match &self.told {
            Some(told) if self.followed.load(Ordering::Relaxed) => raise(told),
            _ => self.counters.notices.add(1),
        }
    }

    /// Adds the notices of child processes that were given since this was last called.
    pub(crate) fn gather_notices(&self) {
        if let Some(told) = &self.told {
            self.counters.notices.add(told.read().unwrap_or(0));
        }
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }

    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
    }

    pub(crate) fn start_draining(&self) {
        self.draining.store(true, Ordering::Release);
        raise(&self.drain);
    }
}

/// Makes a non-blocking eventfd (eventfd(2)).
pub(crate) fn event(step: &'static str) -> Result<EventFd, Error> {
    EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map_err(Error::setup(step))
}

/// Makes an eventfd readable. It can fail only when its counter is full, and then it is readable already.
pub(crate) fn raise(event: &EventFd) {
    let _ = event.write(1);
}
