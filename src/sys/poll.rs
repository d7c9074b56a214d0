//! What poll(2) waits for and with, where std and nix lack it: events, what a socket holds, and timeouts.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// An event that a thread, or another process, raises and a poller sees: eventfd(2). A sum of what was added since it
/// was last taken; readable while that is positive.
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
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// True while a descriptor is readable. One system call, which takes nothing away.
pub(crate) fn is_readable(descriptor: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(descriptor.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|count| count > 0)
}

/// Bytes that have arrived at a socket and were not received yet (FIONREAD, tcp(7)).
///
/// # Errors
/// What ioctl(2) says.
pub(crate) fn pending_bytes(socket: &impl AsFd) -> nix::Result<u32> {
    let mut count: nix::libc::c_int = 0;
    // SAFETY: the descriptor is open while it is borrowed, and FIONREAD writes one int.
    let result = unsafe { nix::libc::ioctl(socket.as_fd().as_raw_fd(), nix::libc::FIONREAD, &raw mut count) };
    Errno::result(result).map(|_| u32::try_from(count).unwrap_or(0))
}

/// A wait as poll(2) takes it: rounded up to milliseconds, so that it never ends early and spins, and clamped to what
/// an `int` holds.
pub(crate) fn poll_timeout(wait: Option<Duration>) -> PollTimeout {
    let Some(wait) = wait else { return PollTimeout::NONE };
    let part = u64::from(wait.subsec_nanos().div_ceil(1_000_000));
    let millis = wait.as_secs().saturating_mul(1_000).saturating_add(part);
    i32::try_from(millis).ok().and_then(|millis| PollTimeout::try_from(millis).ok()).unwrap_or(PollTimeout::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poll_never_ends_early_and_never_overflows() {
        assert_eq!(poll_timeout(None), PollTimeout::NONE);
        assert_eq!(poll_timeout(Some(Duration::new(1, 1))), PollTimeout::from(1_001_u16));
        assert_eq!(poll_timeout(Some(Duration::MAX)), PollTimeout::MAX);
    }
}
