//! What stream handlers do within their turn, which may last as long as their client likes.
//!
//! The watchdog reads it, so that a worker whose stream handler waits for its client is not taken for one that is
//! stuck.

use crate::stats::Counter;
use crate::sync::atomic::{AtomicUsize, Ordering};

#[derive(Debug, Default)]
pub(crate) struct Streaming {
    transfers: Counter,
    /// Handlers that wait for their client now, which a timeout ends.
    waiting: AtomicUsize,
}

impl Streaming {
    /// Counts that a handler has received or sent something.
    pub(crate) fn count_transfer(&self) {
        self.transfers.add(1);
    }

    /// A handler begins to wait for its client.
    pub(crate) fn start_wait(&self) {
        // Relaxed: the watchdog looks seconds apart.
        self.waiting.fetch_add(1, Ordering::Relaxed);
    }

    /// That wait is over.
    pub(crate) fn end_wait(&self) {
        // A wait that ends between two looks of the watchdog is progress too. Release, and Acquire in `progress`: the
        // watchdog that misses the wait finds it counted.
        self.count_transfer();
        self.waiting.fetch_sub(1, Ordering::Release);
    }

    /// How often a handler has received or sent something, or has ended a wait; `None` while one waits.
    pub(crate) fn progress(&self) -> Option<u64> {
        match self.waiting.load(Ordering::Acquire) {
            0 => Some(self.transfers.value()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_shows_while_it_lasts_and_afterwards() {
        let streaming = Streaming::default();
        assert_eq!(streaming.progress(), Some(0));
        streaming.start_wait();
        assert_eq!(streaming.progress(), None);
        streaming.end_wait();
        streaming.count_transfer();
        assert_eq!(streaming.progress(), Some(2));
    }
}
