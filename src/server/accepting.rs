//! What the accept loop accepts with: the listeners, the shares of addresses, and the clients that wait for one.

use std::fs::File;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::deferred::Deferred;
use super::listener::Listener;
use crate::access::{Share, Shares};
use crate::config::{Limits, QUEUE_FULL_TIMEOUT};
use crate::error::Error;
use crate::sys::{Event, RateLimit, Tick};

/// What the accept loop accepts with.
pub(super) struct Accepting {
    pub(super) listeners: Vec<Listener>,
    /// With a limit per client only.
    shares: Option<Arc<Shares>>,
    /// Clients that wait until their address has fewer connections.
    pub(super) deferred: Deferred,
    pub(super) queue: ReadyQueue,
    /// Closed to have a descriptor to answer with when there is no other.
    pub(super) reserve: Option<File>,
    pub(super) failure_lines: RateLimit,
    pub(super) share_lines: RateLimit,
}

/// What the accept loop knows of the ready queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadyQueue {
    HasRoom,
    FullSince(Tick),
    /// It has been full for longer than a burst explains. The time is dropped here, before it is too old to compare.
    Stuck,
}

impl ReadyQueue {
    /// The state after the queue was found full at `now`.
    pub(super) fn full_at(self, now: Tick) -> ReadyQueue {
        match self {
            ReadyQueue::HasRoom => ReadyQueue::FullSince(now),
            ReadyQueue::FullSince(since) if since.after(QUEUE_FULL_TIMEOUT).reached(now) => ReadyQueue::Stuck,
            full => full,
        }
    }
}

/// What a listener does after a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accept {
    Another,
    /// No more in this round: the backlog is empty, or the listener pauses.
    NoMore,
}

impl Accepting {
    /// Accepts for `places` connections at a time. `wake` wakes the accept loop.
    ///
    /// # Errors
    /// When the reserve descriptor cannot be opened.
    pub(super) fn new(
        listeners: Vec<Listener>,
        limits: &Limits,
        places: usize,
        wake: &Arc<Event>,
    ) -> Result<Accepting, Error> {
        let reserve = File::open("/dev/null").map_err(Error::setup("open /dev/null as the reserve descriptor"))?;
        Ok(Accepting {
            listeners,
            shares: limits.per_client.map(|limit| Arc::new(Shares::new(limit, places, wake.clone()))),
            deferred: Deferred::default(),
            queue: ReadyQueue::HasRoom,
            reserve: Some(reserve),
            failure_lines: RateLimit::new(1, Duration::from_secs(1)),
            share_lines: RateLimit::new(1, Duration::from_secs(1)),
        })
    }

    /// Closes a child process's copies, which would keep the addresses taken.
    pub(super) fn release(&mut self) {
        self.listeners.clear();
        self.reserve.take();
        self.deferred.clear();
    }

    /// The next time at which the accept loop must come back.
    pub(super) fn deadline(&self, now: Tick) -> Option<Tick> {
        let queue_full_until = match self.queue {
            ReadyQueue::FullSince(since) => Some(since.after(QUEUE_FULL_TIMEOUT)).filter(|tick| !tick.reached(now)),
            ReadyQueue::HasRoom | ReadyQueue::Stuck => None,
        };
        let resumes = self.listeners.iter().map(|listener| listener.resumes);
        Tick::earliest(resumes.chain([queue_full_until, self.deferred.deadline()]))
    }

    /// A share for one more connection of an address; `None` in it where there is no limit.
    pub(super) fn take_share(&self, peer: SocketAddr) -> Result<Option<Share>, AtLimit> {
        match &self.shares {
            None => Ok(None),
            Some(shares) => shares.take(peer.ip()).map(Some).ok_or(AtLimit),
        }
    }
}

/// The address has as many connections as it may.
pub(super) struct AtLimit;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_is_full_for_long_is_stuck_and_stays_so_half_a_range_later() {
        let start = Tick::from_raw(u32::MAX - 50).unwrap();
        let queue = ReadyQueue::HasRoom.full_at(start);
        assert_eq!(queue.full_at(start.after(QUEUE_FULL_TIMEOUT / 2)), ReadyQueue::FullSince(start));
        let stuck = queue.full_at(start.after(QUEUE_FULL_TIMEOUT));
        assert_eq!(stuck, ReadyQueue::Stuck);
        assert_eq!(stuck.full_at(Tick::from_raw(u32::MAX / 2).unwrap()), ReadyQueue::Stuck);
    }
}
