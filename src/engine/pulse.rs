//! Whether the workers come forward: what a watchdog compares from one look to the next.
//!
//! Everything is read from what is counted in any case, and only when the watchdog looks. One worker that comes
//! forward is enough: this tells a pool that stands still from one that has much to do. And no client can make it
//! look stuck: a client that trickles bytes holds no worker, and a stream handler that waits for its client is not stuck.

use super::Engine;
use crate::stats::Tally;

/// One look at the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pulse {
    /// Changes with every turn that a worker begins, and with what it gets done in one.
    pub(crate) moves: u64,
    /// Something waits for a worker, and nothing says that one will come.
    pub(crate) waits: bool,
}

impl Engine {
    pub(crate) fn pulse(&self) -> Pulse {
        let (taken, queued, led) = self.queue.progress();
        // Prompt services leave the lead vacant while they serve: with all other workers asleep, parked clients wait too.
        let waits = queued > 0 || (!led && self.parked.is_ready());
        let served: u64 = self.served.iter().map(Tally::value).sum();
        let done = served + self.context.counters.datagrams.value();
        match self.context.streaming.moves() {
            Some(moves) => Pulse { moves: (done + moves).wrapping_add(taken.into()), waits },
            None => Pulse { moves: 0, waits: false },
        }
    }
}
