//! When the accept loop next looks at the deadlines of the parked connections.
//!
//! A deadline is set for every request, and nearly always to a later time than the one before it. So there is no sorted
//! list: the accept loop sleeps until the earliest deadline that it found in its last sweep. A thread that parks a
//! connection with an earlier one plans an earlier sweep here, and wakes the accept loop.
//!
//! Invariant: a connection that is parked with a deadline is looked at by a sweep that begins at that deadline or
//! earlier. Two threads see to it. The owner sets the deadline, releases the connection, and then calls
//! [`cover`](Deadlines::cover). A sweep clears `next` first, and then tries to claim each connection whose deadline has
//! come. All four steps are SeqCst: where the sweep finds the connection still owned, the owner finds `next` cleared.

use super::sync::atomic::{AtomicU32, Ordering};
use super::sync::{Arc, Event, latest, publish};
use crate::sys::Tick;

/// A deadline that its owner sets and the accept loop reads, or none.
#[derive(Debug, Default)]
pub(super) struct AtomicDeadline(AtomicU32);

impl AtomicDeadline {
    pub(super) fn get(&self) -> Option<Tick> {
        Tick::from_raw(latest(&self.0))
    }

    pub(super) fn set(&self, deadline: Option<Tick>) {
        publish(&self.0, Tick::to_raw(deadline));
    }
}

/// The time of the next sweep.
#[derive(Debug)]
pub(super) struct Deadlines {
    /// 0 while no deadline is known.
    next: AtomicU32,
    /// Wakes the accept loop.
    wake: Arc<Event>,
}

impl Deadlines {
    pub(super) fn new(wake: Arc<Event>) -> Deadlines {
        Deadlines { next: AtomicU32::new(0), wake }
    }

    /// Sees to it that a sweep begins no later than at `deadline`, which may have passed already.
    pub(super) fn cover(&self, deadline: Tick) {
        if self.plan(deadline) {
            self.wake.raise();
        }
    }

    /// The same for the accept loop, which looks at [`next`](Deadlines::next) by itself. True if the plan has changed.
    pub(super) fn plan(&self, deadline: Tick) -> bool {
        let mut next = latest(&self.next);
        while Tick::from_raw(next).is_none_or(|next| deadline.is_before(next)) {
            match self.next.compare_exchange(next, Tick::to_raw(Some(deadline)), Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return true,
                Err(changed) => next = changed,
            }
        }
        false
    }

    /// Begins a sweep: a thread that parks a connection from here on covers its deadline anew.
    pub(super) fn begin_sweep(&self) {
        publish(&self.next, 0);
    }

    /// When to begin the next sweep.
    pub(super) fn next(&self) -> Option<Tick> {
        Tick::from_raw(latest(&self.next))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn only_an_earlier_deadline_wakes_the_accept_loop() {
        let wake = Arc::new(Event::new().unwrap());
        let (deadlines, now) = (Deadlines::new(wake.clone()), Tick::from_raw(u32::MAX - 20_000).unwrap());
        let after = |seconds| now.after(Duration::from_secs(seconds));
        for (seconds, wakes) in [(30, 1), (40, 0), (30, 0), (10, 1), (25, 0)] {
            deadlines.cover(after(seconds));
            assert_eq!(wake.take(), wakes, "{seconds}");
        }
        assert_eq!(deadlines.next(), Some(after(10)));
        deadlines.begin_sweep();
        assert_eq!(deadlines.next(), None);
        deadlines.cover(after(45));
        assert_eq!((deadlines.next(), wake.take()), (Some(after(45)), 1));
    }
}
