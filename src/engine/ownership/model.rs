//! The life of a slot, model-checked with the very type that the engine uses: park, edge, sweep, drain and close at the
//! same time. `make model` runs these, and `make mutants` shows that they notice breaks.

use super::*;
use loom::sync::atomic::{AtomicBool, AtomicUsize};
use loom::thread;
use std::time::Duration;

const PAST: u32 = 999;
const NOW: u32 = 1_000;

/// A connection whose bytes arrive by themselves.
#[derive(Debug, Default)]
struct Client;

#[derive(Debug)]
struct Facts {
    /// Arrived and not served yet.
    bytes: AtomicUsize,
    /// A thread works on the connection.
    held: AtomicBool,
    expired: AtomicUsize,
    closed: AtomicUsize,
}

impl Occupant for Client {
    fn socket(&self) -> Option<RawFd> {
        None
    }

    fn mark_hung_up(&mut self) {}

    fn abandon(&mut self) {}
}

/// One slot, and the facts of the connection in it.
#[derive(Clone)]
struct World {
    slots: Arc<Slots<Client>>,
    facts: Arc<Facts>,
}

fn tick(raw: u32) -> Tick {
    Tick::from_raw(raw).unwrap()
}

impl World {
    fn new() -> World {
        let facts = Facts {
            bytes: AtomicUsize::new(0),
            held: AtomicBool::new(false),
            expired: AtomicUsize::new(0),
            closed: AtomicUsize::new(0),
        };
        let wake = Arc::new(Event::new().unwrap());
        World { slots: Arc::new(Slots::new(1, vec![], wake)), facts: Arc::new(facts) }
    }

    fn admit(&self) -> Owned<'_, Client> {
        self.slots.admit((), |_, _| Client).ok().unwrap()
    }

    /// The connection is admitted, and belongs to the queue.
    fn admitted() -> (World, Ready) {
        let world = World::new();
        let ready = world.admit().requeue();
        (world, ready)
    }

    /// What a worker does: serves what has arrived and parks, until nothing has come meanwhile.
    fn serve(&self, ready: Ready, deadline: Option<Tick>) {
        let mut next = Some(ready);
        while let Some(ready) = next {
            let owned = self.own(ready);
            self.facts.bytes.swap(0, Ordering::AcqRel);
            self.let_go();
            next = owned.park(Idle::No, deadline);
        }
    }

    fn own(&self, ready: Ready) -> Owned<'_, Client> {
        let owned = self.slots.own(ready);
        self.hold();
        owned
    }

    fn hold(&self) {
        assert!(!self.facts.held.swap(true, Ordering::AcqRel), "owned twice");
    }

    fn let_go(&self) {
        self.facts.held.store(false, Ordering::Release);
    }

    fn close(&self, owned: Owned<'_, Client>) {
        self.let_go();
        self.facts.closed.fetch_add(1, Ordering::AcqRel);
        owned.close();
    }

    /// The accept loop's sweep, which closes what it claims.
    fn sweep(&self) {
        self.slots.sweep(tick(NOW), tick(NOW + 50), |owned| {
            self.hold();
            self.facts.expired.fetch_add(1, Ordering::AcqRel);
            self.close(owned);
        });
    }

    /// What the accept loop does when all others are done: sweeps for as long as a sweep is planned.
    fn expect_closed(&self) {
        while self.slots.next_sweep().is_some_and(|next| next.reached(tick(NOW))) {
            self.sweep();
        }
        let (closed, expired) = (&self.facts.closed, &self.facts.expired);
        assert_eq!(closed.load(Ordering::Acquire), 1, "parked with a deadline that no sweep will look at");
        assert!(expired.load(Ordering::Acquire) <= 1);
        assert_eq!(self.slots.open(), 0);
        assert_eq!(self.slots.slot(0).deadline.get(), None, "the next connection would have this deadline");
    }

    fn spawn(&self, act: impl FnOnce(&World) + 'static) -> thread::JoinHandle<()> {
        let world = self.clone();
        thread::spawn(move || act(&world))
    }
}

/// An owner that receives until nothing is there and parks, against a kernel that delivers bytes and then reports an
/// edge: in the end nothing is left unread, and no two threads ever own the connection at once.
#[test]
fn no_edge_is_lost_and_no_slot_is_owned_twice() {
    loom::model(|| {
        let (world, ready) = World::admitted();
        let owner = world.spawn(move |world| world.serve(ready, None));
        for _ in 0..2 {
            world.facts.bytes.fetch_add(1, Ordering::AcqRel);
            if let Some(ready) = world.slots.edge(0) {
                world.serve(ready, None);
            }
        }
        owner.join().unwrap();
        assert_eq!(world.facts.bytes.load(Ordering::Acquire), 0, "an edge was lost");
        assert_eq!(world.slots.parked(), 1);
    });
}

/// The shutdown walks over a slot while its owner lets go: either the walk claims it, or the owner sees that the server
/// drains. The connection is never parked without its notice.
#[test]
fn a_shutdown_during_a_park_is_seen() {
    loom::model(|| {
        let (world, ready) = World::admitted();
        let draining = Arc::new(AtomicBool::new(false));
        let notices = Arc::new(AtomicUsize::new(0));
        let (seen, given) = (draining.clone(), notices.clone());
        let owner = world.spawn(move |world| {
            let mut next = Some(ready);
            while let Some(ready) = next {
                let owned = world.slots.own(ready);
                if seen.load(Ordering::Relaxed) {
                    given.fetch_add(1, Ordering::Relaxed);
                    return owned.close();
                }
                next = owned.park(Idle::No, None);
            }
        });
        draining.store(true, Ordering::Relaxed);
        if let Some(owned) = world.slots.claim_or_notify(0) {
            notices.fetch_add(1, Ordering::Relaxed);
            owned.close();
        }
        owner.join().unwrap();
        assert_eq!(notices.load(Ordering::Relaxed), 1, "the notice was lost or given twice");
    });
}

/// The owner parks while the accept loop sweeps: the silent client is closed all the same.
#[test]
fn a_sweep_during_a_park_loses_no_deadline() {
    loom::model(|| {
        let (world, ready) = World::admitted();
        let owner = world.spawn(move |world| world.serve(ready, Some(tick(PAST))));
        world.sweep();
        owner.join().unwrap();
        world.expect_closed();
    });
}

/// As above, while an edge claims the connection and parks it again.
#[test]
fn an_edge_and_a_sweep_during_a_park_lose_no_deadline() {
    // Three threads: without a bound this takes minutes.
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(4);
    model.check(|| {
        let (world, ready) = World::admitted();
        let owner = world.spawn(move |world| world.serve(ready, Some(tick(PAST))));
        let edge = world.spawn(|world| {
            if let Some(ready) = world.slots.edge(0) {
                world.serve(ready, Some(tick(PAST)));
            }
        });
        world.sweep();
        owner.join().unwrap();
        edge.join().unwrap();
        world.expect_closed();
    });
}

/// The start of a shutdown closes what it claims; the connection is closed by it, the owner or the sweep, and once.
#[test]
fn a_close_a_sweep_and_a_park_agree_on_one_end() {
    loom::model(|| {
        let (world, ready) = World::admitted();
        let owner = world.spawn(move |world| world.serve(ready, Some(tick(PAST))));
        let drain = world.spawn(|world| {
            if let Some(owned) = world.slots.claim_or_notify(0) {
                world.hold();
                world.close(owned);
            }
        });
        world.sweep();
        owner.join().unwrap();
        drain.join().unwrap();
        world.expect_closed();
    });
}

/// A deadline that lies ahead is planned, whatever a sweep finds meanwhile.
#[test]
fn a_later_deadline_is_planned_through_a_sweep() {
    loom::model(|| {
        let (world, ready) = World::admitted();
        let later = tick(NOW).after(Duration::from_secs(1));
        let owner = world.spawn(move |world| world.serve(ready, Some(later)));
        world.slots.sweep(tick(NOW), tick(NOW + 50), |_| panic!("it is not due"));
        owner.join().unwrap();
        assert_eq!(world.slots.next_sweep(), Some(later));
    });
}

/// Two owners cover their deadlines at once: the next sweep is at the earlier one.
#[test]
fn the_earlier_of_two_deadlines_is_planned() {
    loom::model(|| {
        let world = World::new();
        let later = tick(NOW).after(Duration::from_secs(1));
        let owner = world.spawn(move |world| world.slots.deadlines.cover(later));
        world.slots.deadlines.cover(tick(NOW));
        owner.join().unwrap();
        assert_eq!(world.slots.next_sweep(), Some(tick(NOW)));
    });
}

/// A slot is given back while the accept loop asks for one: the loop finds it, or is woken.
#[test]
fn a_slot_that_becomes_free_is_found_or_wakes_the_accept_loop() {
    loom::model(|| {
        let world = World::new();
        let ready = world.admit().requeue();
        let owner = world.spawn(move |world| world.slots.own(ready).close());
        let found = world.slots.has_free_or_wake();
        owner.join().unwrap();
        assert!(found || world.slots.wake.take() == 1, "the accept loop would wait for ever");
        assert!(world.slots.has_free_or_wake());
    });
}

/// A connection becomes idle while the accept loop asks for one to shed: the loop finds it, or is woken.
#[test]
fn a_connection_that_becomes_idle_is_found_or_wakes_the_accept_loop() {
    loom::model(|| {
        let (world, ready) = World::admitted();
        let owner = world.spawn(move |world| {
            let parked = world.slots.own(ready).park(Idle::Yes, None);
            assert!(parked.is_none());
        });
        let found = world.slots.has_idle_or_wake();
        owner.join().unwrap();
        assert!(found || world.slots.wake.take() == 1, "the accept loop would wait for ever");
        assert!(world.slots.has_idle_or_wake());
    });
}
