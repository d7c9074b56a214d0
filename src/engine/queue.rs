//! The ready queue and the lead: what the workers do next, decided under one lock.
//!
//! In comes what is ready to be served: accepted sockets from the accept loop, parked connections whose
//! readiness the leader found, and connections whose worker has more to do but lets others go first. Out goes
//! one [`Job`] per call, first in first out. A worker that finds nothing ready takes the lead, if it is vacant,
//! and waits for the parked connections; every other one sleeps here. One follower is woken at a time: it wakes
//! the next only if work, or the lead, still waits. Where every service promises not to wait, a vacant lead or a
//! few jobs alone wake no worker: the one that leaves them is back in a moment, and takes them up itself.
//!
//! The queue never waits for room: a slot is in it at most once, so there is a place for every slot.

use heapless::Deque;

use super::sync::{Condvar, Mutex, MutexGuard, lock};
use crate::config::{FEW, GLANCE_EVERY, READY};

/// A slot or datagram socket, by its number.
pub(super) type Token = u16;

#[derive(Debug)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    available: Condvar,
    /// Every service promises not to wait, so a worker that leaves the lead to serve is back in a moment.
    prompt: bool,
    /// Accepted sockets that may wait; what comes back from the poller is not refused.
    limit: usize,
}

#[derive(Debug)]
struct Inner {
    /// By itself: what contains it is moved a few times at the start, over stack that then stays in memory.
    ready: Box<Deque<Token, READY>>,
    /// True while a worker has the lead.
    led: bool,
    /// True while no worker may take the lead.
    paused: bool,
    /// True when the leader was asked to come back, so that it is asked once only.
    kicked: bool,
    /// Workers asleep here.
    asleep: usize,
    /// True while a woken worker has not come out of its sleep yet.
    waking: bool,
    /// Turns begun, modulo 2^32.
    taken: u32,
    /// Jobs handed out since someone looked at the parked connections.
    since_glance: u32,
    /// True when the accept loop waits for room.
    room_wanted: bool,
    longest: usize,
    stopped: bool,
}

/// What a worker brings along when it asks for its next job.
#[derive(Debug)]
pub(super) enum Bring<'a> {
    Nothing,
    /// A slot that has more to do.
    Back(Token),
    /// The leader's find; with it, it gives up the lead.
    Ready(&'a [Token]),
}

/// What a worker does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Job {
    Serve(Token),
    /// It has the lead: wait until parked connections are ready.
    Lead,
    /// It has the lead: take what is ready, without waiting, for the queue has work.
    Glance,
    Stop,
}

/// What the caller must do after an operation, outside of the lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Then {
    /// The leader sleeps in the poller, and no other worker can come.
    pub(super) kick_leader: bool,
    /// The accept loop waited for the room that there is now.
    pub(super) tell_accept_loop: bool,
}

impl Inner {
    fn push(&mut self, token: Token) {
        let pushed = self.ready.push_back(token);
        debug_assert!(pushed.is_ok(), "a slot was queued twice");
        self.longest = self.longest.max(self.ready.len());
    }

    /// Claims the right to wake one follower, when there is something for it and none is on its way.
    fn wakes_one(&mut self, prompt: bool) -> bool {
        let wanted = if prompt { self.ready.len() > FEW } else { !self.ready.is_empty() || !(self.led || self.paused) };
        let wakes = wanted && self.asleep > 0 && !self.waking;
        self.waking |= wakes;
        wakes
    }
}

impl Queue {
    pub(super) fn new(limit: usize, prompt: bool) -> Queue {
        let inner = Inner {
            ready: Box::new(Deque::new()),
            led: false,
            paused: false,
            kicked: false,
            asleep: 0,
            waking: false,
            taken: 0,
            since_glance: 0,
            room_wanted: false,
            longest: 0,
            stopped: false,
        };
        Queue { inner: Mutex::new(inner), available: Condvar::new(), prompt, limit }
    }

    /// The next job of a worker. Blocks while there is none and another one leads.
    pub(super) fn next(&self, bring: Bring<'_>) -> (Job, Then) {
        let mut inner = lock(&self.inner);
        match bring {
            Bring::Nothing => {}
            Bring::Back(token) => inner.push(token),
            Bring::Ready(tokens) => {
                (inner.led, inner.kicked) = (false, false);
                tokens.iter().for_each(|token| inner.push(*token));
            }
        }
        loop {
            if inner.stopped {
                return (Job::Stop, Then::default());
            }
            if !(inner.led || inner.paused) && (inner.ready.is_empty() || inner.since_glance >= GLANCE_EVERY) {
                (inner.led, inner.since_glance) = (true, 0);
                let job = if inner.ready.is_empty() { Job::Lead } else { Job::Glance };
                return (job, self.leave(inner));
            }
            if let Some(token) = inner.ready.pop_front() {
                inner.since_glance += 1;
                inner.taken = inner.taken.wrapping_add(1);
                return (Job::Serve(token), self.leave(inner));
            }
            inner.asleep += 1;
            inner = self.available.wait(inner).unwrap_or_else(std::sync::PoisonError::into_inner);
            inner.asleep -= 1;
            inner.waking = false;
        }
    }

    fn leave(&self, mut inner: MutexGuard<'_, Inner>) -> Then {
        let wakes = inner.wakes_one(self.prompt);
        let tell_accept_loop = inner.room_wanted && inner.ready.len() < self.limit;
        inner.room_wanted &= !tell_accept_loop;
        drop(inner);
        if wakes {
            self.available.notify_one();
        }
        Then { kick_leader: false, tell_accept_loop }
    }

    /// Queues a slot from outside of the pool.
    pub(super) fn push(&self, token: Token) -> Then {
        let mut inner = lock(&self.inner);
        inner.push(token);
        // Also where no service waits: the accept loop does not take up the job itself.
        let wakes = inner.wakes_one(false);
        // With no worker asleep here, all are busy or lead. The busy ones may take long; the leader is free.
        let kick_leader = inner.asleep == 0 && inner.led && !inner.kicked;
        inner.kicked |= kick_leader;
        drop(inner);
        if wakes {
            self.available.notify_one();
        }
        Then { kick_leader, tell_accept_loop: false }
    }

    /// Queues a slot that the caller itself will [`take`](Queue::take): no worker is woken for it.
    pub(super) fn put(&self, token: Token) {
        lock(&self.inner).push(token);
    }

    /// True when one more accepted socket may wait. If not, the accept loop is told when there is room.
    pub(super) fn has_room(&self) -> bool {
        let mut inner = lock(&self.inner);
        let room = inner.ready.len() < self.limit;
        inner.room_wanted = !room;
        room
    }

    /// Calls the leader away from the poller, and lets no worker take its place. Returns whether it must be kicked.
    pub(super) fn pause(&self) -> Then {
        let mut inner = lock(&self.inner);
        inner.paused = true;
        let kick_leader = inner.led && !inner.kicked;
        inner.kicked |= kick_leader;
        Then { kick_leader, tell_accept_loop: false }
    }

    /// Lets a worker lead again.
    pub(super) fn resume(&self) {
        let mut inner = lock(&self.inner);
        inner.paused = false;
        let wakes = inner.wakes_one(false);
        drop(inner);
        if wakes {
            self.available.notify_one();
        }
    }

    /// Tells all workers to come home. Returns whether the leader must be kicked.
    pub(super) fn stop(&self) -> Then {
        let mut inner = lock(&self.inner);
        inner.stopped = true;
        let kick_leader = inner.led;
        drop(inner);
        self.available.notify_all();
        Then { kick_leader, tell_accept_loop: false }
    }

    /// Gives up the lead of a worker that cannot bring it back itself.
    pub(super) fn abdicate(&self) {
        let mut inner = lock(&self.inner);
        (inner.led, inner.kicked) = (false, false);
    }

    /// Takes the next one away from the workers.
    pub(super) fn take(&self) -> Option<Token> {
        lock(&self.inner).ready.pop_front()
    }

    /// How many wait now, and the most that ever did.
    pub(super) fn lengths(&self) -> (usize, usize) {
        let inner = lock(&self.inner);
        (inner.ready.len(), inner.longest)
    }

    /// How many turns have begun, how many wait for theirs, and whether a worker has the lead.
    pub(super) fn progress(&self) -> (u32, usize, bool) {
        let inner = lock(&self.inner);
        (inner.taken, inner.ready.len(), inner.led)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn jobs_come_first_in_first_out_and_the_idle_worker_leads() {
        let queue = Queue::new(2, false);
        queue.push(1);
        queue.push(2);
        assert_eq!(queue.next(Bring::Nothing).0, Job::Serve(1));
        assert_eq!(queue.next(Bring::Back(3)).0, Job::Serve(2));
        assert_eq!(queue.next(Bring::Nothing).0, Job::Serve(3));
        assert_eq!(queue.next(Bring::Nothing).0, Job::Lead);
        assert_eq!(queue.progress(), (3, 0, true));
        assert_eq!(queue.next(Bring::Ready(&[7, 8])).0, Job::Serve(7));
        assert_eq!(queue.lengths(), (1, 2));
        assert_eq!(queue.progress(), (4, 1, false));
    }

    #[test]
    fn a_queue_that_never_empties_still_looks_at_the_parked() {
        let queue = Queue::new(2, false);
        queue.push(1);
        let mut bring = Bring::Nothing;
        for _ in 0..GLANCE_EVERY {
            assert_eq!(queue.next(bring).0, Job::Serve(1));
            bring = Bring::Back(1);
        }
        assert_eq!(queue.next(bring).0, Job::Glance);
        assert_eq!(queue.next(Bring::Ready(&[5])).0, Job::Serve(1));
    }

    #[test]
    fn the_accept_loop_is_told_of_room_once() {
        let queue = Queue::new(1, false);
        queue.push(1);
        assert!(!queue.has_room());
        assert!(queue.next(Bring::Nothing).1.tell_accept_loop);
        queue.push(2);
        assert!(!queue.next(Bring::Nothing).1.tell_accept_loop);
        assert!(queue.has_room());
    }

    #[test]
    fn a_lone_leader_is_kicked_once_for_work_from_outside() {
        let queue = Queue::new(4, false);
        assert_eq!(queue.next(Bring::Nothing).0, Job::Lead);
        assert!(queue.push(1).kick_leader);
        assert!(!queue.push(2).kick_leader);
        assert_eq!(queue.next(Bring::Ready(&[])).0, Job::Serve(1));
        assert!(!queue.stop().kick_leader);
        assert_eq!(queue.next(Bring::Nothing).0, Job::Stop);
        assert_eq!(queue.take(), Some(2));
    }
}

#[cfg(all(test, loom))]
mod model;
