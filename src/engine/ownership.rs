//! Ownership as a value: the thread that holds it, and no other, touches the connection.
//!
//! At any moment a slot is free, parked (the poller knows its connection, and no thread touches it) or owned. Holding
//! an [`Owned`] proves that this thread alone works on the connection; holding a [`Ready`] proves that the connection
//! belongs to the ready queue, or is on its way there. They are made when the accept loop admits a client, when an
//! edge, the sweep or the shutdown claims a parked one, and when a worker takes one from the queue. `park`, `requeue`
//! and `close` end them.
//!
//! The poller is edge-triggered: it reports an edge once. The slot's state keeps an edge that comes while a thread owns
//! the connection, and that thread finds it when it parks. The start of a shutdown is such an edge too. Deadlines need
//! no such mark: see [`deadlines`](super::deadlines).

use std::ops::{Deref, DerefMut};
use std::os::fd::RawFd;

use nix::sys::socket::{Shutdown, shutdown};

use super::deadlines::{AtomicDeadline, Deadlines};
use super::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use super::sync::{Arc, Event, Mutex, MutexGuard, latest, lock, publish};
use crate::sys::Tick;

/// A slot by its number: those of connections first, then those of datagram sockets.
pub(super) type Token = u16;

/// What a slot holds. Its default is what an empty slot holds.
pub(super) trait Occupant: Default {
    /// The descriptor whose traffic [`Slots::shut_down_all`] ends.
    fn socket(&self) -> Option<RawFd>;

    /// The poller saw that the other side has closed, or has sent urgent data.
    fn mark_hung_up(&mut self);

    /// Its owner has panicked. The slot is emptied next.
    fn abandon(&mut self);
}

/// The right to a connection that waits for a worker.
#[must_use = "a connection that is dropped here is never served again"]
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ready(Token);

#[cfg(any(all(test, not(loom)), lastorders_bench))]
impl Ready {
    /// A value without a slot, to test the queue with.
    pub(super) fn stand_in(token: Token) -> Ready {
        Ready(token)
    }
}

/// The right to touch a connection. Dropped without an end, as by a panic, it closes the connection.
#[must_use]
pub(super) struct Owned<'e, E: Occupant> {
    slots: &'e Slots<E>,
    token: Token,
    /// Invariant: `None` only inside of the methods that consume the value.
    content: Option<MutexGuard<'e, E>>,
}

/// Whether a parked connection may be closed to make room for another client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Idle {
    Yes,
    No,
}

/// All slots.
#[derive(Debug)]
pub(super) struct Slots<E> {
    table: Box<[Slot<E>]>,
    /// How many of them are for connections; the others are occupied from start to end.
    connections: usize,
    free: Mutex<Free>,
    /// Open connections. Only the accept loop adds, so Relaxed is enough there. Release at the end of a connection, and
    /// Acquire here: if the accept loop reads 0, it also reads the counters of every connection that has ended.
    open: AtomicUsize,
    deadlines: Deadlines,
    /// The accept loop waits for an idle connection.
    idle_is_awaited: AtomicU32,
    /// Wakes the accept loop.
    wake: Arc<Event>,
}

#[derive(Debug)]
struct Free {
    /// Never longer than the table, so it never allocates.
    list: Vec<Token>,
    /// The accept loop waits for a free slot.
    is_awaited: bool,
}

#[derive(Debug)]
struct Slot<E> {
    state: State,
    deadline: AtomicDeadline,
    /// Relaxed is enough: the owner writes it before it releases the state, and a reader acquires the state first.
    is_idle: AtomicBool,
    /// Relaxed is enough: the leader writes it before its edge, and the owner reads it after it has acquired that.
    is_hung_up: AtomicBool,
    /// Invariant: locked only by the owner, so never contended.
    content: Mutex<E>,
    /// The open socket, for a thread that does not own the slot. Locked while it is closed, so that the number cannot
    /// come to mean another file while it is used.
    socket: Mutex<Option<RawFd>>,
}

impl<E: Occupant> Slots<E> {
    /// Makes `connections` empty slots, and one for each of `sockets`, which are parked there.
    pub(super) fn new(connections: usize, sockets: Vec<E>, wake: Arc<Event>) -> Slots<E> {
        let empty = (0..connections).map(|_| Slot::new(FREE, E::default()));
        let taken = sockets.into_iter().map(|socket| Slot::new(PARKED, socket));
        Slots {
            table: empty.chain(taken).collect(),
            connections,
            // The lowest are handed out first, so that few clients touch few pages.
            free: Mutex::new(Free { list: (0..connections as Token).rev().collect(), is_awaited: false }),
            open: AtomicUsize::new(0),
            deadlines: Deadlines::new(wake.clone()),
            idle_is_awaited: AtomicU32::new(0),
            wake,
        }
    }

    /// Takes a free slot and fills it with what `occupy` makes of a client and the slot's number. Only the accept loop
    /// calls this.
    ///
    /// # Errors
    /// Hands the client back when no slot is free.
    pub(super) fn admit<C>(&self, client: C, occupy: impl FnOnce(C, Token) -> E) -> Result<Owned<'_, E>, C> {
        let Some(token) = lock(&self.free).list.pop() else { return Err(client) };
        self.open.fetch_add(1, Ordering::Relaxed);
        let slot = self.slot(token);
        slot.is_hung_up.store(false, Ordering::Relaxed);
        let mut content = lock(&slot.content);
        *content = occupy(client, token);
        *lock(&slot.socket) = content.socket();
        slot.state.occupy();
        Ok(Owned { slots: self, token, content: Some(content) })
    }

    /// Takes up what waited in the queue.
    pub(super) fn own(&self, ready: Ready) -> Owned<'_, E> {
        let slot = self.slot(ready.0);
        let mut content = lock(&slot.content);
        if slot.is_hung_up.load(Ordering::Relaxed) {
            content.mark_hung_up();
        }
        Owned { slots: self, token: ready.0, content: Some(content) }
    }

    /// Marks a slot as ready: `Some` when it was parked. The owner of an owned slot finds the edge when it parks. An
    /// edge on a free slot is of a connection that was closed meanwhile.
    #[must_use]
    pub(super) fn edge(&self, token: Token) -> Option<Ready> {
        self.slot(token).state.edge().then_some(Ready(token))
    }

    /// The same, when the other side has closed or sent urgent data.
    #[must_use]
    pub(super) fn hangup(&self, token: Token) -> Option<Ready> {
        self.slot(token).is_hung_up.store(true, Ordering::Relaxed);
        self.edge(token)
    }

    /// Claims the slot if it is parked; otherwise leaves an edge for its owner.
    #[must_use]
    pub(super) fn claim_or_notify(&self, token: Token) -> Option<Owned<'_, E>> {
        self.edge(token).map(|ready| self.own(ready))
    }

    /// Claims the slot if it is parked.
    #[must_use]
    pub(super) fn claim(&self, token: Token) -> Option<Owned<'_, E>> {
        self.slot(token).state.claim().then(|| self.own(Ready(token)))
    }

    /// Claims, one after the other, the parked slots whose deadline has come, and plans the next sweep no sooner than
    /// at `soonest`: deadlines that lie close together are met together.
    pub(super) fn sweep(&self, now: Tick, soonest: Tick, mut expire: impl FnMut(Owned<'_, E>)) {
        self.deadlines.begin_sweep();
        let mut earliest = None;
        for token in self.tokens() {
            let Some(deadline) = self.slot(token).deadline.get() else { continue };
            if !deadline.reached(now) {
                earliest = Tick::earliest([earliest, Some(deadline)]);
            } else if let Some(owned) = self.claim(token) {
                expire(owned);
            }
            // An owned slot is left alone: its owner sets the next deadline and covers it.
        }
        if let Some(earliest) = earliest {
            self.deadlines.plan(if earliest.is_before(soonest) { soonest } else { earliest });
        }
    }

    /// When the next sweep is due.
    pub(super) fn next_sweep(&self) -> Option<Tick> {
        self.deadlines.next()
    }

    /// The parked connection that has been idle longest.
    pub(super) fn longest_idle(&self) -> Option<Token> {
        // All idle deadlines lie equally far behind the last activity, so the earliest is the oldest.
        let deadlines = self.idle().filter_map(|token| Some((token, self.slot(token).deadline.get()?)));
        let oldest = deadlines.reduce(|oldest, next| if next.1.is_before(oldest.1) { next } else { oldest });
        oldest.map(|(token, _)| token)
    }

    /// True when a parked connection is idle. If none is, the accept loop is woken when one is.
    pub(super) fn has_idle_or_wake(&self) -> bool {
        publish(&self.idle_is_awaited, 0);
        if self.idle().next().is_some() {
            return true;
        }
        // The accept loop writes the flag and then looks again; a worker parks first and then reads the flag. So one of
        // the two sees what the other has done.
        publish(&self.idle_is_awaited, 1);
        self.idle().next().is_some()
    }

    fn idle(&self) -> impl Iterator<Item = Token> {
        self.tokens().filter(|token| {
            let slot = self.slot(*token);
            slot.state.is_parked() && slot.is_idle.load(Ordering::Relaxed)
        })
    }

    /// True when a slot is free. If none is, the accept loop is woken when one is.
    pub(super) fn has_free_or_wake(&self) -> bool {
        let mut free = lock(&self.free);
        free.is_awaited = free.list.is_empty();
        !free.is_awaited
    }

    /// How many connections are open.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// How many connections are parked.
    pub(super) fn parked(&self) -> usize {
        self.table[..self.connections].iter().filter(|slot| slot.state.is_parked()).count()
    }

    /// The slots that are for connections.
    pub(super) fn connections(&self) -> impl Iterator<Item = Token> + use<E> {
        0..self.connections as Token
    }

    /// Every slot, by its number.
    pub(super) fn tokens(&self) -> impl Iterator<Item = Token> + use<E> {
        0..self.table.len() as Token
    }

    /// Ends the traffic of every connection that is open, also of those that another thread owns: it finds the end.
    pub(super) fn shut_down_all(&self) {
        for slot in &self.table {
            if let Some(socket) = *lock(&slot.socket) {
                let _ = shutdown(socket, Shutdown::Both);
            }
        }
    }

    fn slot(&self, token: Token) -> &Slot<E> {
        &self.table[usize::from(token)]
    }

    /// Empties an owned slot and gives it back.
    fn vacate(&self, token: Token, mut content: MutexGuard<'_, E>) {
        let slot = self.slot(token);
        let mut socket = lock(&slot.socket);
        *socket = None;
        *content = E::default();
        drop((socket, content));
        slot.deadline.set(None);
        slot.state.vacate();
        if usize::from(token) >= self.connections {
            return;
        }
        // Before the list: the accept loop must not see more open connections than there are slots.
        self.open.fetch_sub(1, Ordering::Release);
        let mut free = lock(&self.free);
        free.list.push(token);
        if std::mem::take(&mut free.is_awaited) {
            self.wake.raise();
        }
    }
}

impl<E> Slot<E> {
    fn new(state: u32, content: E) -> Slot<E> {
        Slot {
            state: State(AtomicU32::new(state)),
            deadline: AtomicDeadline::default(),
            is_idle: AtomicBool::new(false),
            is_hung_up: AtomicBool::new(false),
            content: Mutex::new(content),
            socket: Mutex::new(None),
        }
    }
}

impl<'e, E: Occupant> Owned<'e, E> {
    /// The slot's number.
    pub(super) fn token(&self) -> Token {
        self.token
    }

    /// Leaves the connection to the poller, and to the sweep at `deadline`. An edge that came meanwhile hands it back.
    #[must_use]
    pub(super) fn park(mut self, idle: Idle, deadline: Option<Tick>) -> Option<Ready> {
        self.content = None;
        let (slots, token) = (self.slots, self.token);
        let slot = slots.slot(token);
        slot.is_idle.store(idle == Idle::Yes, Ordering::Relaxed);
        slot.deadline.set(deadline);
        if !slot.state.release() {
            return Some(Ready(token));
        }
        // From here on another thread may own the connection. The order matters: a sweep that skipped it because it was
        // owned has cleared the plan that `cover` looks at.
        if let Some(deadline) = deadline {
            slots.deadlines.cover(deadline);
        }
        if latest(&slots.idle_is_awaited) == 1 && slots.idle_is_awaited.swap(0, Ordering::SeqCst) == 1 {
            slots.wake.raise();
        }
        None
    }

    /// Lets go of the connection, which has more to do, for the queue.
    pub(super) fn requeue(mut self) -> Ready {
        self.content = None;
        Ready(self.token)
    }

    /// Empties the slot.
    pub(super) fn close(mut self) {
        if let Some(content) = self.content.take() {
            self.slots.vacate(self.token, content);
        }
    }
}

impl<E: Occupant> Deref for Owned<'_, E> {
    type Target = E;

    #[allow(clippy::expect_used)] // Only a method that consumes the value takes the content.
    fn deref(&self) -> &E {
        self.content.as_ref().expect("an owned slot has its content")
    }
}

impl<E: Occupant> DerefMut for Owned<'_, E> {
    #[allow(clippy::expect_used)] // As above.
    fn deref_mut(&mut self) -> &mut E {
        self.content.as_mut().expect("an owned slot has its content")
    }
}

impl<E: Occupant> Drop for Owned<'_, E> {
    fn drop(&mut self) {
        if let Some(mut content) = self.content.take() {
            content.abandon();
            self.slots.vacate(self.token, content);
        }
    }
}

const FREE: u32 = 0;
const PARKED: u32 = 1;
const OWNED: u32 = 2;
/// Owned, and an edge has come meanwhile.
const NOTIFIED: u32 = 3;

/// The state of one slot: one atomic that loses no edge and lets no two threads own the slot.
#[derive(Debug)]
struct State(AtomicU32);

impl State {
    fn occupy(&self) {
        // Relaxed is enough: the lock of the free list orders this load after `vacate`.
        debug_assert_eq!(self.0.load(Ordering::Relaxed), FREE);
        // Release is enough: the next owner acquires what the accept loop has written.
        self.0.store(OWNED, Ordering::Release);
    }

    fn vacate(&self) {
        // Release is enough, as above.
        self.0.store(FREE, Ordering::Release);
    }

    /// True when the slot was parked: the caller owns it now. An edge on an owned slot is kept for its owner.
    fn edge(&self) -> bool {
        let mut seen = self.0.load(Ordering::Acquire);
        loop {
            let (next, claimed) = match seen {
                PARKED => (OWNED, true),
                // Also from NOTIFIED to itself, so that the owner that releases synchronizes with this edge too.
                OWNED | NOTIFIED => (NOTIFIED, false),
                _ => return false,
            };
            // AcqRel is enough: it publishes what the edge is about, and acquires what the last owner has written.
            match self.0.compare_exchange(seen, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return claimed,
                Err(changed) => seen = changed,
            }
        }
    }

    /// True when the slot was parked: the caller owns it now.
    fn claim(&self) -> bool {
        // SeqCst, as `release`: the sweep's failure to claim comes after its clearing of the plan.
        self.0.compare_exchange(PARKED, OWNED, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Parks an owned slot. False when an edge came meanwhile: the caller owns it still.
    fn release(&self) -> bool {
        // SeqCst: the owner releases, and then reads `idle_is_awaited` and the planned sweep. The accept loop sets the
        // one or clears the other, and then looks for parked slots. One of the two must see what the other has done.
        let parked = self.0.compare_exchange(OWNED, PARKED, Ordering::SeqCst, Ordering::Acquire).is_ok();
        if !parked {
            // AcqRel acquires what the edge has published. Only the owner leaves NOTIFIED.
            self.0.swap(OWNED, Ordering::AcqRel);
        }
        parked
    }

    fn is_parked(&self) -> bool {
        latest(&self.0) == PARKED
    }
}

#[cfg(all(test, not(loom)))]
mod tests;

#[cfg(all(test, loom))]
mod model;
