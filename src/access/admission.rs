//! What becomes of a new client: one decision over three facts, and the back-off when accepting fails.

use std::io;
use std::time::Duration;

use nix::errno::Errno;

use crate::config::{QUEUE_FULL_TIMEOUT, WhenFull};
use crate::sys::Tick;

/// What the accept loop does with the clients that wait in the kernel's backlog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Accept the next one.
    Admit,
    /// Leave it in the backlog until a worker has made room.
    Wait,
    /// Close an idle connection, then accept it.
    Shed,
    /// Accept it, answer `BUSY` and close it.
    Reject,
}

/// What the accept loop knows of the ready queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadyQueue {
    HasRoom,
    FullSince(Tick),
    /// It has been full for longer than a burst explains. The time is dropped here, before it is too old to compare.
    Stuck,
}

impl ReadyQueue {
    /// The state after the queue was found full at `now`.
    pub(crate) fn full_at(self, now: Tick) -> ReadyQueue {
        match self {
            ReadyQueue::HasRoom => ReadyQueue::FullSince(now),
            ReadyQueue::FullSince(since) if since.after(QUEUE_FULL_TIMEOUT).reached(now) => ReadyQueue::Stuck,
            full => full,
        }
    }
}

/// The facts that decide.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) slot_free: bool,
    pub(crate) queue: ReadyQueue,
    pub(crate) when_full: WhenFull,
}

impl Load {
    pub(crate) fn admission(self) -> Admission {
        match (self.slot_free, self.queue, self.when_full) {
            (true, ReadyQueue::HasRoom, _) => Admission::Admit,
            (true, ReadyQueue::Stuck, WhenFull::Reject) => Admission::Reject,
            // Closing an idle connection makes no room in a full queue, which may be full for a moment only.
            (true, ..) => Admission::Wait,
            (false, _, WhenFull::Reject) => Admission::Reject,
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
/// socket on as errors of accept; its manual page says to treat them like `EAGAIN`. So does what a security module
/// answers. Only what says that the descriptor is no listener ends it.
pub(crate) fn classify(error: &io::Error) -> Failure {
    let Some(code) = error.raw_os_error() else { return Failure::Fatal };
    match Errno::from_raw(code) {
        Errno::EAGAIN => Failure::Empty,
        Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM => Failure::Exhausted,
        Errno::EBADF | Errno::EFAULT | Errno::EINVAL | Errno::ENOTSOCK | Errno::ENOSYS => Failure::Fatal,
        _ => Failure::Retry,
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

    fn admission(slot_free: bool, queue: ReadyQueue, when_full: WhenFull) -> Admission {
        Load { slot_free, queue, when_full }.admission()
    }

    fn full() -> ReadyQueue {
        ReadyQueue::HasRoom.full_at(Tick::from_raw(1).unwrap())
    }

    #[test]
    fn a_free_slot_and_room_in_the_queue_admit_always() {
        for when_full in [WhenFull::Wait, WhenFull::Shed, WhenFull::Reject] {
            assert_eq!(admission(true, ReadyQueue::HasRoom, when_full), Admission::Admit);
        }
    }

    #[test]
    fn without_a_slot_the_policy_decides() {
        for queue in [ReadyQueue::HasRoom, full(), ReadyQueue::Stuck] {
            assert_eq!(admission(false, queue, WhenFull::Wait), Admission::Wait);
            assert_eq!(admission(false, queue, WhenFull::Shed), Admission::Shed);
            assert_eq!(admission(false, queue, WhenFull::Reject), Admission::Reject);
        }
    }

    #[test]
    fn a_full_queue_waits_and_only_a_stuck_one_rejects() {
        assert_eq!(admission(true, ReadyQueue::Stuck, WhenFull::Wait), Admission::Wait);
        assert_eq!(admission(true, ReadyQueue::Stuck, WhenFull::Shed), Admission::Wait);
        assert_eq!(admission(true, full(), WhenFull::Reject), Admission::Wait);
        assert_eq!(admission(true, ReadyQueue::Stuck, WhenFull::Reject), Admission::Reject);
    }

    #[test]
    fn a_queue_that_is_full_for_long_is_stuck_and_stays_so_half_a_range_later() {
        let start = Tick::from_raw(u32::MAX - 50).unwrap();
        let queue = ReadyQueue::HasRoom.full_at(start);
        assert_eq!(queue.full_at(start.after(QUEUE_FULL_TIMEOUT / 2)), ReadyQueue::FullSince(start));
        let stuck = queue.full_at(start.after(QUEUE_FULL_TIMEOUT));
        assert_eq!(stuck, ReadyQueue::Stuck);
        assert_eq!(stuck.full_at(Tick::from_raw(u32::MAX / 2).unwrap()), ReadyQueue::Stuck);
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
        for errno in [Errno::EBADF, Errno::EINVAL, Errno::ENOTSOCK, Errno::EFAULT, Errno::ENOSYS] {
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
