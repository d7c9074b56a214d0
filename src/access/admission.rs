//! What becomes of a new client: one decision over four facts, and the back-off when accepting fails.

use std::io;
use std::time::Duration;

use nix::errno::Errno;

use crate::config::WhenFull;

/// What the accept loop does with the clients that wait in the kernel's backlog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Accept the next one.
    Admit,
    /// Leave it in the backlog until a worker has made room.
    Wait,
    /// Leave it in the backlog for a moment: the ready queue is full, but not for long yet.
    Hold,
    /// Close an idle connection, then accept it.
    Shed,
    /// Accept it, answer `BUSY` and close it.
    Reject,
}

/// The facts that decide.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) slot_free: bool,
    pub(crate) queue_room: bool,
    /// The ready queue has been full for longer than a burst explains.
    pub(crate) queue_stuck: bool,
    pub(crate) when_full: WhenFull,
}

impl Load {
    pub(crate) fn admission(self) -> Admission {
        match (self.slot_free, self.queue_room, self.when_full) {
            (true, true, _) => Admission::Admit,
            // Closing an idle connection makes no room in a full queue.
            (true, false, WhenFull::Wait | WhenFull::Shed) => Admission::Wait,
            (true, false, WhenFull::Reject) if !self.queue_stuck => Admission::Hold,
            (_, _, WhenFull::Reject) => Admission::Reject,
            (false, _, WhenFull::Shed) => Admission::Shed,
            (false, _, WhenFull::Wait) => Admission::Wait,
        }
    }
}

/// What an error of `accept(2)` means for the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The backlog is empty.
    Empty,
    /// This client is lost; the next one may be fine.
    Retry,
    /// The process or the machine is out of descriptors or memory.
    Exhausted,
    /// The listener is broken.
    Fatal,
}

/// Sorts the errors of `accept(2)` into what is to be done. Linux passes pending network errors of the new
/// socket on as errors of accept; its manual page says to treat them like `EAGAIN`.
pub(crate) fn classify(error: &io::Error) -> Failure {
    let Some(code) = error.raw_os_error() else { return Failure::Fatal };
    match Errno::from_raw(code) {
        Errno::EAGAIN => Failure::Empty,
        Errno::EINTR
        | Errno::ECONNABORTED
        | Errno::ECONNRESET
        | Errno::EPROTO
        | Errno::EPERM
        | Errno::EACCES
        | Errno::EIO
        | Errno::ENETDOWN
        | Errno::ENOPROTOOPT
        | Errno::EHOSTDOWN
        | Errno::ENONET
        | Errno::EHOSTUNREACH
        | Errno::EOPNOTSUPP
        | Errno::ENETUNREACH
        | Errno::ETIMEDOUT => Failure::Retry,
        Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM => Failure::Exhausted,
        _ => Failure::Fatal,
    }
}

/// How long to leave a listener alone: 50 ms, doubling to 1 s.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Backoff(u32);

impl Backoff {
    pub(crate) const FIRST: Duration = Duration::from_millis(50);
    const LONGEST: Duration = Duration::from_secs(1);

    /// The wait after one more failure in a row.
    pub(crate) fn next(&mut self) -> Duration {
        let wait = (Self::FIRST * 2u32.pow(self.0)).min(Self::LONGEST);
        self.0 = (self.0 + 1).min(5);
        wait
    }

    pub(crate) fn reset(&mut self) {
        self.0 = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(slot_free: bool, queue_room: bool, queue_stuck: bool, when_full: WhenFull) -> Admission {
        Load { slot_free, queue_room, queue_stuck, when_full }.admission()
    }

    #[test]
    fn a_free_slot_and_room_in_the_queue_admit_always() {
        for when_full in [WhenFull::Wait, WhenFull::Shed, WhenFull::Reject] {
            assert_eq!(admission(true, true, false, when_full), Admission::Admit);
        }
    }

    #[test]
    fn without_a_slot_the_policy_decides() {
        assert_eq!(admission(false, true, false, WhenFull::Wait), Admission::Wait);
        assert_eq!(admission(false, true, false, WhenFull::Shed), Admission::Shed);
        assert_eq!(admission(false, true, false, WhenFull::Reject), Admission::Reject);
        assert_eq!(admission(false, false, false, WhenFull::Reject), Admission::Reject);
    }

    #[test]
    fn a_full_queue_waits_and_only_a_stuck_one_rejects() {
        assert_eq!(admission(true, false, true, WhenFull::Wait), Admission::Wait);
        assert_eq!(admission(true, false, true, WhenFull::Shed), Admission::Wait);
        assert_eq!(admission(true, false, false, WhenFull::Reject), Admission::Hold);
        assert_eq!(admission(true, false, true, WhenFull::Reject), Admission::Reject);
    }

    #[test]
    fn accept_errors_are_sorted_by_what_is_to_be_done() {
        let class = |errno: Errno| classify(&io::Error::from(errno));
        assert_eq!(class(Errno::EAGAIN), Failure::Empty);
        for errno in [Errno::EINTR, Errno::ECONNABORTED, Errno::EPROTO, Errno::EPERM, Errno::EACCES, Errno::EIO] {
            assert_eq!(class(errno), Failure::Retry);
        }
        for errno in [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM] {
            assert_eq!(class(errno), Failure::Exhausted);
        }
        for errno in [Errno::EBADF, Errno::EINVAL, Errno::ENOTSOCK, Errno::EFAULT] {
            assert_eq!(class(errno), Failure::Fatal);
        }
    }

    #[test]
    fn the_back_off_doubles_to_a_second_and_starts_again() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..7).map(|_| backoff.next().as_millis()).collect();
        assert_eq!(waits, [50, 100, 200, 400, 800, 1000, 1000]);
        backoff.reset();
        assert_eq!(backoff.next().as_millis(), 50);
    }
}
