//! The workers: N loops on one thread pool, each pulling a job, doing it, and coming back.
//!
//! The pool is given exactly N jobs, one loop each, for its own queue has no bound. A loop ends only when the
//! queue is stopped: a panic of a service is caught where it is called, and one of the engine itself here.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;

use heapless::Vec;
use nix::sys::signal::{SigSet, SigmaskHow};
use threadpool::ThreadPool;

use super::Engine;
use super::queue::{Bring, Job, Token};
use super::settle::Outcome;
use super::state::Edge;
use super::turn::message;
use crate::config::EVENTS;
use crate::error::Error;
use crate::log::error;

/// The running workers.
pub(crate) struct Workers {
    /// Dropping it lets the threads end once their loops have.
    _pool: ThreadPool,
    home: Arc<AtomicUsize>,
    count: usize,
}

impl Workers {
    /// Starts the workers, with all signals blocked: those are the accept loop's.
    ///
    /// # Errors
    /// [`Error::Threads`] when the kernel refuses a thread.
    pub(crate) fn start(engine: &Arc<Engine>) -> Result<Workers, Error> {
        let limits = &engine.context.limits;
        let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK).map_err(Error::setup("block signals"))?;
        let pool = spawn(limits.workers, limits.stack);
        let _ = mask.thread_set_mask();
        let pool = pool.map_err(|source| Error::Threads { workers: limits.workers, source })?;

        let home = Arc::new(AtomicUsize::new(0));
        // A server that says it has started has all of its workers.
        let all_up = Arc::new(Barrier::new(limits.workers + 1));
        for worker in 0..limits.workers {
            let (engine, home, all_up) = (engine.clone(), home.clone(), all_up.clone());
            pool.execute(move || {
                all_up.wait();
                while let Err(payload) = catch_unwind(AssertUnwindSafe(|| engine.work(worker))) {
                    error!("Worker {} panicked in the engine, and goes on: {}", worker, message(&*payload));
                }
                home.fetch_add(1, Ordering::Release);
                engine.wake_accept_loop();
            });
        }
        all_up.wait();
        Ok(Workers { _pool: pool, home, count: limits.workers })
    }

    /// Workers whose loops have not ended.
    pub(crate) fn out(&self) -> usize {
        self.count - self.home.load(Ordering::Acquire)
    }
}

/// Builds the pool. It panics when the kernel refuses a thread, so as many are first tried for size.
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

/// Holds the lead. If the engine panics meanwhile, the lead must not stay taken.
struct Lead<'a> {
    engine: &'a Engine,
    found: Vec<Token, EVENTS>,
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.engine.queue.abdicate();
        }
    }
}

impl Engine {
    /// One worker's loop.
    fn work(&self, worker: usize) {
        let mut lead: Option<Lead<'_>> = None;
        let mut back = None;
        loop {
            let bring = match (&lead, back.take()) {
                (Some(lead), _) => Bring::Ready(&lead.found),
                (None, Some(token)) => Bring::Back(token),
                (None, None) => Bring::Nothing,
            };
            let (job, then) = self.queue.next(bring);
            lead = None;
            self.follow_up(then);
            match job {
                Job::Serve(token) => {
                    back = match self.ports.at(token) {
                        Some(place) => self.serve_port(place).then_some(token),
                        None => self.serve_slot(worker, token),
                    }
                }
                Job::Lead => lead = Some(self.lead(true)),
                Job::Glance => lead = Some(self.lead(false)),
                Job::Stop => return,
            }
        }
    }

    /// Takes what is ready from the poller, after waiting for it if `wait` is set.
    fn lead(&self, wait: bool) -> Lead<'_> {
        let mut lead = Lead { engine: self, found: Vec::new() };
        self.parked.poll(wait, |ready| {
            let state = match self.ports.at(ready.token) {
                Some(place) => &place.state,
                None => {
                    let slot = self.slots.get(ready.token);
                    if ready.hangup {
                        slot.hangup.store(true, Ordering::Relaxed);
                    }
                    &slot.state
                }
            };
            if state.edge() == Edge::Claimed {
                // There is room: the poller reports at most that many.
                let _ = lead.found.push(ready.token);
            }
        });
        lead
    }

    /// Gives a slot its turn. Returns it if it has more to do.
    fn serve_slot(&self, worker: usize, token: Token) -> Option<Token> {
        let slot = self.slots.get(token);
        let outcome = {
            let mut connection = self.slots.hold(token);
            let progress = self.driver.turn(slot.place(token, &self.served[worker]), &mut connection);
            self.settle(token, slot, &mut connection, progress)
        };
        match outcome {
            Outcome::Closed => None,
            Outcome::Yield => Some(token),
            Outcome::Park(deadline) => {
                let again = self.let_go(slot, deadline);
                if !again {
                    self.parked_one();
                }
                again.then_some(token)
            }
        }
    }
}
