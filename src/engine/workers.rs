//! The workers: N loops on one thread pool, each of which takes a job, does it, and comes back.
//!
//! The pool is given exactly N jobs, one loop each, for its own queue has no bound. A loop ends only when the
//! queue is stopped: the driver catches a panic of a service, and this file one of the engine itself.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use heapless::Vec;
use nix::sys::epoll::EpollTimeout;
use nix::sys::signal::{SigSet, SigmaskHow};

use super::Engine;
use super::driver::{Driver, Event, panic_message};
use super::ownership::Ready;
use super::poller::Edge;
use super::queue::{Job, Returned};
use crate::config::EVENTS;
use crate::error::Error;
use crate::log::error;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::threadpool::{self, ThreadPool};
use crate::sync::{Barrier, Mutex, thread};

/// The running workers.
pub(super) struct Workers {
    /// Dropping it lets the threads end once their loops have.
    _pool: ThreadPool,
    finished: Arc<AtomicUsize>,
    count: usize,
}

impl Workers {
    /// Starts the workers. They block all signals, so that the kernel interrupts the accept loop alone.
    ///
    /// # Errors
    /// [`Error::Threads`] when the kernel refuses a thread.
    pub(super) fn start(engine: &Arc<Engine>) -> Result<Workers, Error> {
        let limits = &engine.services.context.limits;
        let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK).map_err(Error::setup("block signals"))?;
        let pool = spawn(limits.workers, limits.stack);
        let _ = mask.thread_set_mask();
        let pool = pool.map_err(|source| Error::Threads { workers: limits.workers, source })?;

        let finished = Arc::new(AtomicUsize::new(0));
        // A server that says it has started has all of its workers.
        let all_started = Arc::new(Barrier::new(limits.workers + 1));
        for worker in 0..limits.workers {
            let (engine, finished, all_started) = (engine.clone(), finished.clone(), all_started.clone());
            pool.execute(move || {
                all_started.wait();
                let mut driver = Driver::new(engine.services.clone(), worker);
                while let Err(payload) = catch_unwind(AssertUnwindSafe(|| engine.work(&mut driver))) {
                    error!("Worker {} panicked in the engine, and goes on: {}", worker, panic_message(&*payload));
                }
                // Release, and Acquire in `running`: the accept loop that sees the end of this worker sees its
                // counters.
                finished.fetch_add(1, Ordering::Release);
                engine.services.context.wake.raise();
            });
        }
        all_started.wait();
        Ok(Workers { _pool: pool, finished, count: limits.workers })
    }

    /// Workers whose loops have not ended.
    pub(super) fn running(&self) -> usize {
        self.count - self.finished.load(Ordering::Acquire)
    }
}

/// Builds the pool. `threadpool` panics when the kernel refuses a thread, so this starts as many threads first, as a
/// trial.
fn spawn(workers: usize, stack: usize) -> io::Result<ThreadPool> {
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock();
    let trial: io::Result<std::vec::Vec<_>> = (0..workers)
        .map(|_| {
            let gate = gate.clone();
            thread::Builder::new().stack_size(stack).spawn(move || drop(gate.lock()))
        })
        .collect();
    drop(closed);
    for thread in trial? {
        let _ = thread.join();
    }
    let build = || {
        threadpool::Builder::new().num_threads(workers).thread_name("worker".into()).thread_stack_size(stack).build()
    };
    catch_unwind(build).map_err(|_| io::ErrorKind::WouldBlock.into())
}

/// What the leader has found. Dropped by a panic, it gives up the lead, so that another worker can take it.
struct Lead<'a> {
    engine: &'a Engine,
    found: Vec<Ready, EVENTS>,
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.engine.queue.release_lead();
        }
    }
}

impl Engine {
    /// One worker's loop.
    fn work(&self, driver: &mut Driver) {
        let mut job = self.queue.next::<EVENTS>(Returned::Nothing);
        loop {
            job = match job {
                Job::Serve(ready) => {
                    let unfinished = self.drive(self.slots.own(ready), Event::Ready, driver);
                    self.queue.next::<EVENTS>(unfinished.map_or(Returned::Nothing, Returned::Unfinished))
                }
                Job::Poll => self.lead(EpollTimeout::NONE),
                Job::PollOnce => self.lead(EpollTimeout::ZERO),
                Job::Stop => return,
            }
        }
    }

    /// Takes what is ready from the poller to the queue, and gives up the lead.
    fn lead(&self, timeout: EpollTimeout) -> Job {
        let mut lead = Lead { engine: self, found: Vec::new() };
        self.poller.wait(timeout, |edge| {
            let ready = match edge {
                Edge::Ready(token) => self.slots.edge(token),
                Edge::HungUp(token) => self.slots.hangup(token),
            };
            if let Some(ready) = ready {
                // There is room: the poller reports at most that many.
                let pushed = lead.found.push(ready);
                debug_assert!(pushed.is_ok());
            }
        });
        self.queue.next(Returned::Found(&mut lead.found))
    }
}
