#![allow(clippy::unwrap_used)] // A test.

use super::*;
use std::time::Duration;

/// A connection that records how it ended.
#[derive(Debug, Default)]
struct Client {
    abandoned: Option<std::sync::Arc<std::sync::atomic::AtomicUsize>>,
    hung_up: bool,
}

impl Occupant for Client {
    fn socket(&self) -> Option<RawFd> {
        None
    }

    fn mark_hung_up(&mut self) {
        self.hung_up = true;
    }

    fn abandon(&mut self) {
        if let Some(count) = &self.abandoned {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }
}

fn slots(count: usize) -> (Slots<Client>, Arc<Event>) {
    let wake = Arc::new(Event::new().unwrap());
    (Slots::new(count, vec![], wake.clone()), wake)
}

fn admit(slots: &Slots<Client>) -> Owned<'_, Client> {
    slots.admit((), |(), _| Client::default()).unwrap()
}

/// Just before the ticks wrap.
fn now() -> Tick {
    Tick::from_raw(u32::MAX - 20_000).unwrap()
}

#[test]
fn an_edge_claims_a_parked_connection_once_and_is_kept_for_an_owner() {
    let (slots, _) = slots(1);
    assert!(slots.edge(0).is_none(), "the slot is free");
    assert!(admit(&slots).park(Idle::No, None).is_none());
    let ready = slots.edge(0).expect("parked");
    assert!(slots.edge(0).is_none() && slots.hangup(0).is_none() && slots.claim(0).is_none(), "owned");
    let owned = slots.own(ready);
    assert!(owned.hung_up);
    let ready = owned.park(Idle::No, None).expect("an edge came meanwhile");
    assert!(slots.own(ready).park(Idle::No, None).is_none());
    slots.claim(0).expect("parked").close();
    assert!(slots.edge(0).is_none() && slots.open() == 0);
    assert!(!admit(&slots).hung_up, "the next client has not hung up");
}

#[test]
fn a_connection_that_is_dropped_is_closed_and_counted() {
    let (slots, _) = slots(1);
    let count = std::sync::Arc::default();
    let abandoned = Some(std::sync::Arc::clone(&count));
    drop(slots.admit((), |(), _| Client { abandoned, hung_up: false }).unwrap());
    assert_eq!((count.load(std::sync::atomic::Ordering::Relaxed), slots.open()), (1, 0));
    admit(&slots).close();
    assert_eq!(count.load(std::sync::atomic::Ordering::Relaxed), 1, "a close is none");
}

#[test]
fn the_accept_loop_is_woken_once_for_a_free_slot_and_for_an_idle_connection() {
    let (slots, wake) = slots(1);
    assert!(slots.has_free_or_wake());
    let owned = admit(&slots);
    assert!(!slots.has_free_or_wake() && !slots.has_idle_or_wake());
    assert!(slots.admit("client", |_, _| Client::default()).is_err());
    assert!(owned.park(Idle::No, None).is_none());
    assert_eq!(wake.take(), 1);
    assert_eq!((slots.longest_idle(), slots.has_idle_or_wake()), (None, false));
    assert!(slots.claim(0).unwrap().park(Idle::Yes, Some(now())).is_none());
    assert!(wake.take() > 0 && slots.has_idle_or_wake());
    assert_eq!(slots.longest_idle(), Some(0));
    slots.claim(0).unwrap().close();
    assert_eq!((wake.take(), slots.has_free_or_wake()), (1, true));
    admit(&slots).close();
    assert_eq!(wake.take(), 0);
}

#[test]
fn a_sweep_claims_what_is_due_and_plans_the_rest_across_the_wrap() {
    let (slots, _) = slots(4);
    let after = |seconds| now().after(Duration::from_secs(seconds));
    let owned = [(); 4].map(|()| admit(&slots));
    let [first, second, third, fourth] = owned;
    for (owned, deadline) in [(first, Some(after(1))), (second, Some(after(30))), (third, None)] {
        assert!(owned.park(Idle::Yes, deadline).is_none());
    }
    assert_eq!(slots.next_sweep(), Some(after(1)));
    let mut due = vec![];
    slots.sweep(after(2), after(3), |owned| {
        due.push(owned.token());
        owned.close();
    });
    assert_eq!((due, slots.next_sweep()), (vec![0], Some(after(30))));
    // One whose deadline has passed while it was owned is met by the next sweep.
    slots.sweep(after(2), after(3), |_| panic!("nothing is due"));
    assert!(fourth.park(Idle::No, Some(after(1))).is_none());
    assert_eq!(slots.next_sweep(), Some(after(1)));
    slots.sweep(after(2), after(40), |owned| owned.close());
    assert_eq!((slots.open(), slots.next_sweep()), (2, Some(after(40))), "deadlines close together are met together");
}
