//! What stream handlers do inside of their turn, which may last as long as their client likes: counted so that a
//! worker that has such a client in hand is not taken for one that is stuck.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::stats::Counter;

#[derive(Debug, Default)]
pub(crate) struct Streaming {
    moves: Counter,
    /// Handlers that wait for their client at the moment, which a timeout ends.
    waiting: AtomicUsize,
}

/// A handler waits for its client while this lives.
pub(crate) struct Waiting<'a>(&'a Streaming);

impl Streaming {
    /// Something was received or sent.
    pub(crate) fn moved(&self) {
        self.moves.add(1);
    }

    pub(crate) fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(self)
    }

    /// How often something was received or sent, or a wait has ended; `None` while a handler waits.
    pub(crate) fn moves(&self) -> Option<u64> {
        match self.waiting.load(Ordering::Acquire) {
            0 => Some(self.moves.value()),
            _ => None,
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        // A wait that lies between two looks is a move too. First, so that no look finds neither.
        self.0.moved();
        self.0.waiting.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_and_who_has_waited_both_show() {
        let streaming = Streaming::default();
        assert_eq!(streaming.moves(), Some(0));
        let waiting = streaming.wait();
        assert_eq!(streaming.moves(), None);
        drop(waiting);
        streaming.moved();
        assert_eq!(streaming.moves(), Some(2));
    }
}
