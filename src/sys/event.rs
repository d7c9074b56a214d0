//! An event that a thread, or another process, raises and a poller sees: eventfd(2).

use std::os::fd::{AsFd, BorrowedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// A sum of what was added since it was last taken; readable while that is positive.
#[derive(Debug)]
pub(crate) struct Event(EventFd);

impl Event {
    /// Makes one that never blocks.
    pub(crate) fn new() -> nix::Result<Event> {
        EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map(Event)
    }

    /// Makes the event readable.
    pub(crate) fn raise(&self) {
        self.add(1);
    }

    /// Adds to the sum. This can fail only when the sum would not fit 64 bits, and then the event is readable already.
    pub(crate) fn add(&self, count: u64) {
        let _ = self.0.write(count);
    }

    /// Takes the sum, and makes the event unreadable.
    pub(crate) fn take(&self) -> u64 {
        self.0.read().unwrap_or(0)
    }

    /// True while the event is readable. One system call.
    pub(crate) fn is_raised(&self) -> bool {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|count| count > 0)
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
