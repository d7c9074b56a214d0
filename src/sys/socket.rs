//! What std and nix lack for sockets that are polled.

use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::PollTimeout;

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
