//! When the accept loop next looks at the deadlines of the parked connections.
//!
//! A deadline is set for every request, and nearly always to a later time than the one before it. So there is no sorted
//! list: the accept loop sleeps until the earliest deadline that it found in its last sweep. A thread that parks a
//! connection with an earlier one says so here, and wakes the accept loop.
//!
//! Invariant: a connection that is parked with a deadline is looked at by a sweep that begins at that deadline or
//! earlier. Two threads see to it. The owner sets the deadline, releases the connection, and looks at `next` after that.
//! A sweep clears `next` first, and then tries to claim each connection whose deadline has come; it leaves alone what it
//! cannot claim. All these steps are SeqCst: where the sweep finds the connection still owned, the owner finds `next`
//! cleared, and announces the deadline, even one that has passed.

use super::state::{Release, State};
use super::sync::atomic::{AtomicU32, Ordering};
use super::sync::{latest, publish};
use crate::sys::Tick;

/// A deadline that its owner sets and the accept loop reads, or none.
#[derive(Debug)]
pub(super) struct AtomicDeadline(AtomicU32);

impl AtomicDeadline {
    pub(super) fn none() -> AtomicDeadline {
        AtomicDeadline(AtomicU32::new(0))
    }

    pub(super) fn get(&self) -> Option<Tick> {
        Tick::from_raw(latest(&self.0))
    }

    pub(super) fn set(&self, deadline: Option<Tick>) {
        publish(&self.0, Tick::to_raw(deadline));
    }
}

/// What became of a connection that its owner has parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Parking {
    /// An edge arrived meanwhile: the caller owns it still.
    Again,
    Parked,
    /// It is parked, and the accept loop sleeps past its deadline: wake it.
    ParkedEarlier,
}

/// What a sweep makes of one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Its deadline has come, and the sweep owns it now.
    Claimed,
    Later(Tick),
    /// It has no deadline, or an owner, which sets the next one.
    Never,
}

/// The time of the next sweep.
#[derive(Debug)]
pub(super) struct Deadlines {
    /// 0 while no deadline is known.
    next: AtomicU32,
}

impl Deadlines {
    pub(super) fn new() -> Deadlines {
        Deadlines { next: AtomicU32::new(0) }
    }

    /// Lets go of an owned slot until its deadline, which may have passed already.
    pub(super) fn park(&self, state: &State, place: &AtomicDeadline, deadline: Option<Tick>) -> Parking {
        place.set(deadline);
        if state.release() == Release::Again {
            return Parking::Again;
        }
        // From here on another thread may own the slot. Announcing before the release would not do: a sweep in between
        // finds the slot owned, leaves it alone, and forgets the announcement.
        match deadline {
            Some(deadline) if self.announce(deadline) => Parking::ParkedEarlier,
            _ => Parking::Parked,
        }
    }

    /// Sees to it that a sweep begins no later than at `deadline`. True when the accept loop must be woken for it.
    fn announce(&self, deadline: Tick) -> bool {
        let mut next = latest(&self.next);
        while Tick::from_raw(next).is_none_or(|next| deadline.is_before(next)) {
            match self.next.compare_exchange(next, Tick::to_raw(Some(deadline)), Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return true,
                Err(changed) => next = changed,
            }
        }
        false
    }

    /// Starts a sweep: from now on every new deadline is announced.
    pub(super) fn begin(&self) {
        publish(&self.next, 0);
    }

    /// Looks at one slot during a sweep.
    pub(super) fn claim_due(&self, state: &State, place: &AtomicDeadline, now: Tick) -> Due {
        match place.get() {
            Some(deadline) if !deadline.reached(now) => Due::Later(deadline),
            Some(_) if state.claim() => Due::Claimed,
            Some(_) | None => Due::Never,
        }
    }

    /// Ends a sweep that found `earliest`.
    pub(super) fn end(&self, earliest: Option<Tick>) {
        if let Some(earliest) = earliest {
            self.announce(earliest);
        }
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
        let (deadlines, state, place) = (Deadlines::new(), State::free(), AtomicDeadline::none());
        // The last ones lie beyond the wrap of the ticks.
        let now = Tick::from_raw(u32::MAX - 20_000).unwrap();
        let at = |seconds| Some(now.after(Duration::from_secs(seconds)));
        state.occupy();
        for (seconds, outcome) in [
            (30, Parking::ParkedEarlier),
            (40, Parking::Parked),
            (30, Parking::Parked),
            (10, Parking::ParkedEarlier),
            (25, Parking::Parked),
        ] {
            assert_eq!(deadlines.park(&state, &place, at(seconds)), outcome, "{seconds}");
            assert!(state.claim());
        }
        assert_eq!(deadlines.next(), at(10));
        deadlines.begin();
        deadlines.end(at(45));
        assert_eq!(deadlines.next(), at(45));
        assert_eq!(deadlines.park(&state, &place, None), Parking::Parked);
    }

    #[test]
    fn a_deadline_that_passed_before_the_release_is_announced() {
        let (deadlines, state, place) = (Deadlines::new(), State::free(), AtomicDeadline::none());
        let past = Tick::from_raw(u32::MAX - 5).unwrap();
        let now = past.after(Duration::from_millis(50));
        state.occupy();
        place.set(Some(past));
        deadlines.begin();
        assert_eq!(deadlines.claim_due(&state, &place, now), Due::Never, "it has an owner");
        assert_eq!(deadlines.park(&state, &place, Some(past)), Parking::ParkedEarlier);
        assert_eq!(deadlines.next(), Some(past));
        assert_eq!(deadlines.claim_due(&state, &place, now), Due::Claimed);
    }
}

#[cfg(all(test, loom))]
mod model {
    use super::*;
    use crate::engine::state::Edge;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicBool, AtomicUsize};
    use loom::thread;
    use std::time::Duration;

    /// One slot, and what happens to it.
    struct Slot {
        deadlines: Deadlines,
        state: State,
        place: AtomicDeadline,
        /// A thread works on it.
        held: AtomicBool,
        expired: AtomicUsize,
        is_closed: AtomicBool,
    }

    const NOW: u32 = 1_000;

    impl Slot {
        fn owned() -> Arc<Slot> {
            let state = State::free();
            state.occupy();
            Arc::new(Slot {
                deadlines: Deadlines::new(),
                state,
                place: AtomicDeadline::none(),
                held: AtomicBool::new(false),
                expired: AtomicUsize::new(0),
                is_closed: AtomicBool::new(false),
            })
        }

        /// An owner parks it with a deadline that has passed, again for each edge that comes meanwhile.
        fn park(&self) {
            loop {
                assert!(!self.held.swap(true, Ordering::AcqRel), "owned twice");
                self.held.store(false, Ordering::Release);
                if self.deadlines.park(&self.state, &self.place, Tick::from_raw(NOW - 1)) != Parking::Again {
                    return;
                }
            }
        }

        /// An owner closes it.
        fn close(&self) {
            assert!(!self.held.swap(true, Ordering::AcqRel), "owned twice");
            self.held.store(false, Ordering::Release);
            self.is_closed.store(true, Ordering::Relaxed);
            self.place.set(None);
            self.state.vacate();
        }

        /// The accept loop's sweep, which closes what it claims.
        fn sweep(&self) {
            self.deadlines.begin();
            if self.deadlines.claim_due(&self.state, &self.place, Tick::from_raw(NOW).unwrap()) == Due::Claimed {
                self.expired.fetch_add(1, Ordering::Relaxed);
                self.close();
            }
        }

        /// What the accept loop does when all others are done: sweeps for as long as a sweep is planned.
        fn expect_closed(&self) {
            while self.deadlines.next().is_some_and(|next| next.reached(Tick::from_raw(NOW).unwrap())) {
                self.sweep();
            }
            assert!(self.is_closed.load(Ordering::Relaxed), "parked with a deadline that no sweep will look at");
            assert!(self.expired.load(Ordering::Relaxed) <= 1);
            assert_eq!(self.place.get(), None, "the next connection would have this deadline");
        }
    }

    fn thread_of(slot: &Arc<Slot>, act: impl FnOnce(&Slot) + 'static) -> thread::JoinHandle<()> {
        let slot = slot.clone();
        thread::spawn(move || act(&slot))
    }

    /// The owner parks while the accept loop sweeps: the silent client is closed all the same.
    #[test]
    fn a_sweep_during_a_park_loses_no_deadline() {
        loom::model(|| {
            let slot = Slot::owned();
            let owner = thread_of(&slot, Slot::park);
            slot.sweep();
            owner.join().unwrap();
            slot.expect_closed();
        });
    }

    /// As above, while an edge claims the connection and parks it again.
    #[test]
    fn an_edge_and_a_sweep_during_a_park_lose_no_deadline() {
        loom::model(|| {
            let slot = Slot::owned();
            let owner = thread_of(&slot, Slot::park);
            let edge = thread_of(&slot, |slot| {
                if slot.state.edge() == Edge::Claimed {
                    slot.park();
                }
            });
            slot.sweep();
            owner.join().unwrap();
            edge.join().unwrap();
            slot.expect_closed();
        });
    }

    /// The start of a shutdown is an edge that closes what it claims, and so is a client's last word; the slot is closed
    /// by one of them, the owner or the sweep, and once.
    #[test]
    fn a_close_a_sweep_and_a_park_agree_on_one_end() {
        loom::model(|| {
            let slot = Slot::owned();
            let owner = thread_of(&slot, Slot::park);
            let drain = thread_of(&slot, |slot| {
                if slot.state.edge() == Edge::Claimed {
                    slot.close();
                }
            });
            slot.sweep();
            owner.join().unwrap();
            drain.join().unwrap();
            slot.expect_closed();
        });
    }

    /// A deadline that lies ahead is planned, whatever a sweep found meanwhile.
    #[test]
    fn a_later_deadline_is_planned_through_a_sweep() {
        loom::model(|| {
            let slot = Slot::owned();
            let later = Tick::from_raw(NOW).unwrap().after(Duration::from_secs(1));
            let owner = thread_of(&slot, move |slot| {
                let _ = slot.deadlines.park(&slot.state, &slot.place, Some(later));
            });
            slot.deadlines.begin();
            let found = match slot.deadlines.claim_due(&slot.state, &slot.place, Tick::from_raw(NOW).unwrap()) {
                Due::Later(tick) => Some(tick),
                Due::Claimed => panic!("it is not due"),
                Due::Never => None,
            };
            slot.deadlines.end(found);
            owner.join().unwrap();
            assert_eq!(slot.deadlines.next(), Some(later));
        });
    }
}
