//! The ready queue and the lead: what the workers do next, decided under one lock.
//!
//! In comes what is ready to be served: admitted connections from the accept loop, parked ones that the leader found
//! ready, and ones whose worker has more to do but lets others go first. Out goes one [`Job`] per call, first in first
//! out. A worker that finds the queue empty takes the lead, if it is vacant, and waits for the parked connections;
//! every other worker sleeps here. One sleeper is woken at a time: it wakes the next only if work, or the lead, still
//! waits. Where no service ever blocks, a vacant lead or a few jobs alone wake no sleeper: the worker that leaves them
//! comes back in a moment, and takes them up itself.
//!
//! The queue never waits for room: a slot is in it at most once, so there is a place for every slot.

use heapless::Deque;

use super::ownership::Ready;
use super::sync::{Arc, Condvar, Event, Mutex, MutexGuard, lock};
use crate::config::{FEW_JOBS, POLL_EVERY, READY};

/// What the services of a server promise of their calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    MayBlock,
    /// A worker that leaves the lead to serve is back in a moment.
    NeverBlocks,
}

#[derive(Debug)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    available: Condvar,
    work: Work,
    /// Admitted connections that may wait; what comes back from the poller is not refused.
    limit: usize,
    /// Calls the leader away from the poller.
    leader: Arc<Event>,
    /// Wakes the accept loop.
    accept_loop: Arc<Event>,
}

#[derive(Debug, Default)]
struct Inner {
    /// In a box: what contains it is moved a few times at the start, over stack that then stays in memory.
    ready: Box<Deque<Ready, READY>>,
    lead: Lead,
    /// The leader was called away or does not wait, and need not be called.
    is_leader_called: bool,
    /// No worker may take the lead.
    is_paused: bool,
    /// Workers asleep here.
    asleep: usize,
    /// A worker was woken and has not come out of its sleep yet.
    is_waking: bool,
    /// Turns begun, modulo 2^32.
    taken: u32,
    /// Jobs handed out since a worker last looked at the parked connections.
    since_poll: u32,
    /// The accept loop waits for room.
    room_is_awaited: bool,
    longest: usize,
    is_stopped: bool,
}

/// The right to wait for the parked connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Lead {
    #[default]
    Vacant,
    Taken,
}

/// What a worker brings when it asks for its next job.
#[derive(Debug)]
pub(super) enum Returned<'a, const N: usize> {
    Nothing,
    /// A connection that has more to do.
    Unfinished(Ready),
    /// What the leader has found. With it, it gives up the lead.
    Found(&'a mut heapless::Vec<Ready, N>),
}

/// What a worker does next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Job {
    Serve(Ready),
    /// The worker has the lead: wait until parked connections are ready.
    Poll,
    /// The worker has the lead: take what is ready, without waiting, for the queue has work.
    PollOnce,
    Stop,
}

/// What the workers have done, and what waits for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    /// Turns begun, modulo 2^32.
    pub(super) taken: u32,
    /// How many connections wait now.
    pub(super) queued: usize,
    /// The most that ever did.
    pub(super) longest: usize,
    pub(super) lead: Lead,
}

impl Inner {
    fn push(&mut self, ready: Ready) {
        let pushed = self.ready.push_back(ready);
        debug_assert!(pushed.is_ok(), "a slot was queued twice");
        self.longest = self.longest.max(self.ready.len());
    }

    fn lead_is_free(&self) -> bool {
        self.lead == Lead::Vacant && !self.is_paused
    }

    fn release_lead(&mut self) {
        (self.lead, self.is_leader_called) = (Lead::Vacant, false);
    }

    /// Claims the right to wake one sleeper, if there is work for it and no other is on its way.
    fn claim_wake_up(&mut self, work: Work) -> bool {
        let wanted = match work {
            Work::MayBlock => !self.ready.is_empty() || self.lead_is_free(),
            Work::NeverBlocks => self.ready.len() > FEW_JOBS,
        };
        let wakes = wanted && self.asleep > 0 && !self.is_waking;
        self.is_waking |= wakes;
        wakes
    }

    /// Claims the right to call the leader away from the poller, unless it was called already.
    fn claim_call(&mut self) -> bool {
        let calls = self.lead == Lead::Taken && !self.is_leader_called;
        self.is_leader_called |= calls;
        calls
    }
}

impl Queue {
    pub(super) fn new(limit: usize, work: Work, leader: Arc<Event>, accept_loop: Arc<Event>) -> Queue {
        Queue { inner: Mutex::new(Inner::default()), available: Condvar::new(), work, limit, leader, accept_loop }
    }

    /// The next job of a worker. Blocks while there is none and another worker leads.
    pub(super) fn next<const N: usize>(&self, returned: Returned<'_, N>) -> Job {
        let mut inner = lock(&self.inner);
        match returned {
            Returned::Nothing => {}
            Returned::Unfinished(ready) => inner.push(ready),
            Returned::Found(found) => {
                inner.release_lead();
                // From the back, so reversed: first in, first out.
                found.reverse();
                while let Some(ready) = found.pop() {
                    inner.push(ready);
                }
            }
        }
        loop {
            if inner.is_stopped {
                return Job::Stop;
            }
            if inner.lead_is_free() && (inner.ready.is_empty() || inner.since_poll >= POLL_EVERY) {
                (inner.lead, inner.since_poll) = (Lead::Taken, 0);
                let job = if inner.ready.is_empty() { Job::Poll } else { Job::PollOnce };
                // That one comes back by itself.
                inner.is_leader_called = job == Job::PollOnce;
                self.wake_others(inner);
                return job;
            }
            if let Some(ready) = inner.ready.pop_front() {
                inner.since_poll += 1;
                inner.taken = inner.taken.wrapping_add(1);
                self.wake_others(inner);
                return Job::Serve(ready);
            }
            inner.asleep += 1;
            inner = self.available.wait(inner).unwrap_or_else(std::sync::PoisonError::into_inner);
            inner.asleep -= 1;
            inner.is_waking = false;
        }
    }

    /// Unlocks, and wakes the sleeper, the leader and the accept loop that wait for what has changed.
    fn wake_others(&self, mut inner: MutexGuard<'_, Inner>) {
        let wakes = inner.claim_wake_up(self.work);
        // With no other worker left, the leader is the one that is free: this one may block for as long as it likes.
        let is_last = self.work == Work::MayBlock && inner.asleep == 0 && !inner.ready.is_empty();
        let calls = is_last && inner.claim_call();
        let has_room = inner.room_is_awaited && inner.ready.len() < self.limit;
        inner.room_is_awaited &= !has_room;
        drop(inner);
        if wakes {
            self.available.notify_one();
        }
        if calls {
            self.leader.raise();
        }
        if has_room {
            self.accept_loop.raise();
        }
    }

    /// Queues a connection from outside of the pool, and wakes a worker for it.
    pub(super) fn push(&self, ready: Ready) {
        let mut inner = lock(&self.inner);
        inner.push(ready);
        // Also where no service blocks: the accept loop does not take up the job itself.
        let wakes = inner.claim_wake_up(Work::MayBlock);
        // With no worker asleep here, all are busy or lead. The busy ones may take long; the leader is free.
        let calls = inner.asleep == 0 && inner.claim_call();
        drop(inner);
        if wakes {
            self.available.notify_one();
        }
        if calls {
            self.leader.raise();
        }
    }

    /// Queues a connection that the caller itself will [`take`](Queue::take): no worker is woken for it.
    pub(super) fn put(&self, ready: Ready) {
        lock(&self.inner).push(ready);
    }

    /// True when one more admitted connection may wait. If not, the accept loop is woken when there is room.
    pub(super) fn has_room_or_wake(&self) -> bool {
        let mut inner = lock(&self.inner);
        inner.room_is_awaited = inner.ready.len() >= self.limit;
        !inner.room_is_awaited
    }

    /// Calls the leader away from the poller, and lets no worker take its place.
    pub(super) fn pause(&self) {
        let mut inner = lock(&self.inner);
        inner.is_paused = true;
        let calls = inner.claim_call();
        drop(inner);
        if calls {
            self.leader.raise();
        }
    }

    /// Lets a worker lead again.
    pub(super) fn resume(&self) {
        let mut inner = lock(&self.inner);
        inner.is_paused = false;
        let wakes = inner.claim_wake_up(Work::MayBlock);
        drop(inner);
        if wakes {
            self.available.notify_one();
        }
    }

    /// Ends the loops of all workers.
    pub(super) fn stop(&self) {
        let mut inner = lock(&self.inner);
        inner.is_stopped = true;
        let calls = inner.lead == Lead::Taken;
        drop(inner);
        self.available.notify_all();
        if calls {
            self.leader.raise();
        }
    }

    /// Gives up the lead of a worker that panicked.
    pub(super) fn release_lead(&self) {
        lock(&self.inner).release_lead();
    }

    /// Takes the next connection away from the workers.
    #[must_use]
    pub(super) fn take(&self) -> Option<Ready> {
        lock(&self.inner).ready.pop_front()
    }

    pub(super) fn progress(&self) -> Progress {
        let inner = lock(&self.inner);
        Progress { taken: inner.taken, queued: inner.ready.len(), longest: inner.longest, lead: inner.lead }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
