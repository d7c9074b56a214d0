//! Which thread may touch a slot: one atomic that loses no edge and serves none twice.
//!
//! A parked connection has no owner; the thread that moves its state to owned may lock it. The poller is
//! edge-triggered, so an edge that arrives while a worker owns the connection is told only once: it is kept as
//! owned-and-notified, and the owner finds it when it lets go. The start of a shutdown is such an edge too.

use super::sync::atomic::{AtomicU8, Ordering};

const FREE: u8 = 0;
const PARKED: u8 = 1;
const OWNED: u8 = 2;
const NOTIFIED: u8 = 3;

/// The state of one slot.
#[derive(Debug)]
pub(super) struct State(AtomicU8);

/// What an edge did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edge {
    /// The slot was parked; the caller owns it now.
    Claimed,
    /// Its owner will see the edge when it lets go.
    Noted,
    /// The slot is free: the connection was closed before its edge was handled.
    Stale,
}

/// What letting go did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Release {
    /// The slot is parked and must not be touched any more.
    Parked,
    /// An edge arrived meanwhile: the caller owns the slot still.
    Again,
}

impl State {
    pub(super) fn free() -> State {
        State(AtomicU8::new(FREE))
    }

    /// Takes a free slot. Only the accept loop does.
    pub(super) fn occupy(&self) {
        debug_assert_eq!(self.0.load(Ordering::Relaxed), FREE);
        self.0.store(OWNED, Ordering::Release);
    }

    /// Gives up an owned slot whose connection is closed.
    pub(super) fn vacate(&self) {
        self.0.store(FREE, Ordering::Release);
    }

    /// Tells the slot that something happened to it.
    pub(super) fn edge(&self) -> Edge {
        let mut seen = self.0.load(Ordering::Acquire);
        loop {
            let (next, edge) = match seen {
                PARKED => (OWNED, Edge::Claimed),
                OWNED => (NOTIFIED, Edge::Noted),
                // A store of the same value, so that the owner that releases synchronises with this edge too.
                NOTIFIED => (NOTIFIED, Edge::Noted),
                _ => return Edge::Stale,
            };
            match self.0.compare_exchange(seen, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return edge,
                Err(now) => seen = now,
            }
        }
    }

    /// Takes a parked slot; false when it is not parked.
    pub(super) fn claim(&self) -> bool {
        self.0.compare_exchange(PARKED, OWNED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Lets go of an owned slot.
    pub(super) fn release(&self) -> Release {
        // SeqCst, as is_parked: a thread that parks and then looks for a wish, and one that wishes and then looks for parked
        // ones, must not miss each other. It costs nothing over AcqRel on x86 and ARM.
        match self.0.compare_exchange(OWNED, PARKED, Ordering::SeqCst, Ordering::Acquire) {
            Ok(_) => Release::Parked,
            Err(_) => {
                // Acquires what the edge published; only the owner leaves NOTIFIED.
                self.0.swap(OWNED, Ordering::AcqRel);
                Release::Again
            }
        }
    }

    pub(super) fn is_parked(&self) -> bool {
        self.0.load(Ordering::SeqCst) == PARKED
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_edge_claims_a_parked_slot_once() {
        let state = State::free();
        assert_eq!(state.edge(), Edge::Stale);
        state.occupy();
        assert_eq!(state.release(), Release::Parked);
        assert_eq!((state.edge(), state.edge(), state.edge()), (Edge::Claimed, Edge::Noted, Edge::Noted));
        assert!(!state.claim());
        assert_eq!((state.release(), state.release()), (Release::Again, Release::Parked));
        assert!(state.is_parked() && state.claim());
        state.vacate();
        assert_eq!(state.edge(), Edge::Stale);
    }
}

#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicBool, AtomicUsize};
    use loom::thread;

    /// An owner that receives until nothing is there and lets go, against a kernel that delivers bytes and
    /// then reports an edge: in the end nothing is left unread, and no two threads ever own the slot at once.
    #[test]
    fn no_edge_is_lost_and_no_slot_is_owned_twice() {
        loom::model(|| {
            let state = Arc::new(State::free());
            let bytes = Arc::new(AtomicUsize::new(0));
            let owned = Arc::new(AtomicBool::new(false));
            state.occupy();

            let serve = {
                let (state, bytes, owned) = (state.clone(), bytes.clone(), owned.clone());
                move || loop {
                    assert!(!owned.swap(true, Ordering::AcqRel), "owned twice");
                    bytes.swap(0, Ordering::AcqRel);
                    owned.store(false, Ordering::Release);
                    if state.release() == Release::Parked {
                        return;
                    }
                }
            };
            let owner = thread::spawn(serve.clone());
            for _ in 0..2 {
                bytes.fetch_add(1, Ordering::AcqRel);
                if state.edge() == Edge::Claimed {
                    serve();
                }
            }
            owner.join().unwrap();
            assert_eq!(bytes.load(Ordering::Acquire), 0, "an edge was lost");
            assert!(state.is_parked());
        });
    }

    /// The shutdown walks over a slot while its owner lets go: either the walk claims it, or the owner sees
    /// that the server drains. The slot is never parked without its notice.
    #[test]
    fn a_shutdown_during_release_is_seen() {
        loom::model(|| {
            let state = Arc::new(State::free());
            let draining = Arc::new(AtomicBool::new(false));
            let notices = Arc::new(AtomicUsize::new(0));
            state.occupy();

            let owner = {
                let (state, draining, notices) = (state.clone(), draining.clone(), notices.clone());
                thread::spawn(move || {
                    loop {
                        if draining.load(Ordering::Relaxed) {
                            notices.fetch_add(1, Ordering::Relaxed);
                            return;
                        }
                        if state.release() == Release::Parked {
                            return;
                        }
                    }
                })
            };
            draining.store(true, Ordering::Relaxed);
            if state.edge() == Edge::Claimed {
                notices.fetch_add(1, Ordering::Relaxed);
            }
            owner.join().unwrap();
            assert_eq!(notices.load(Ordering::Relaxed), 1, "the notice was lost or given twice");
        });
    }

    /// The deadline sweep and an edge want the same parked slot: one of them gets it, and an edge that came
    /// second is still there for the sweep to find.
    #[test]
    fn a_sweep_and_an_edge_do_not_both_own() {
        loom::model(|| {
            let state = Arc::new(State::free());
            state.occupy();
            assert_eq!(state.release(), Release::Parked);
            let sweep = {
                let state = state.clone();
                thread::spawn(move || state.claim().then(|| state.release()))
            };
            let edge = state.edge();
            match (sweep.join().unwrap(), edge) {
                (None, Edge::Claimed) | (Some(Release::Parked), Edge::Claimed) => {}
                (Some(Release::Again), Edge::Noted) => {}
                other => panic!("{other:?}"),
            }
        });
    }
}
