//! The exit status of a child: why its connection was closed, for the parent to log and count.

use std::io;

use crate::connection::{CloseReason, Wait};

/// The first status that is an errno. Those of MIPS that are too large for a status become [`OTHER`].
const ERRNO: u8 = 64;
/// An error without an errno, or a status that no child of ours gives.
const OTHER: u8 = 63;

/// The status for a reason.
pub(super) fn encode(reason: &CloseReason) -> u8 {
    match reason {
        CloseReason::Left => 0,
        CloseReason::Finished => 1,
        CloseReason::TimedOut(Wait::Idle) => 2,
        CloseReason::TimedOut(Wait::Request) => 3,
        CloseReason::TimedOut(Wait::Write) => 4,
        CloseReason::Reset => 5,
        CloseReason::BrokenPipe => 6,
        CloseReason::TooLong => 7,
        CloseReason::Panicked => 8,
        CloseReason::Shutdown => 9,
        CloseReason::Forced => 10,
        CloseReason::Shed => 11,
        CloseReason::Error(error) => {
            let errno = error.raw_os_error().and_then(|errno| u8::try_from(errno).ok());
            errno.and_then(|errno| errno.checked_add(ERRNO)).unwrap_or(OTHER)
        }
        CloseReason::Killed(_) => OTHER,
    }
}

/// The reason for a status.
pub(super) fn decode(status: i32) -> CloseReason {
    match status {
        0 => CloseReason::Left,
        1 => CloseReason::Finished,
        2 => CloseReason::TimedOut(Wait::Idle),
        3 => CloseReason::TimedOut(Wait::Request),
        4 => CloseReason::TimedOut(Wait::Write),
        5 => CloseReason::Reset,
        6 => CloseReason::BrokenPipe,
        7 => CloseReason::TooLong,
        8 => CloseReason::Panicked,
        9 => CloseReason::Shutdown,
        10 => CloseReason::Forced,
        11 => CloseReason::Shed,
        64..=254 => CloseReason::Error(io::Error::from_raw_os_error(status - i32::from(ERRNO))),
        _ => CloseReason::Error(io::Error::other("the service failed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_survives_the_exit() {
        for status in (0..=11).chain([63, 64 + 104, 64 + 133]) {
            assert_eq!(i32::from(encode(&decode(status))), status);
        }
        let error = CloseReason::Error(io::Error::from_raw_os_error(nix::libc::ENOBUFS));
        assert!(matches!(decode(encode(&error).into()), CloseReason::Error(error)
            if error.raw_os_error() == Some(nix::libc::ENOBUFS)));
    }

    #[test]
    fn a_strange_status_is_an_error() {
        assert!(matches!(decode(42), CloseReason::Error(_)));
        assert!(matches!(decode(255), CloseReason::Error(_)));
    }
}
