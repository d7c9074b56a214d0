//! Who serves the clients: a pool of workers, or a process for each.

use std::sync::{Arc, Weak};

use crate::connection::Context;
use crate::engine::{Activity, Pool, Services};
use crate::error::Error;
use crate::process::Children;
use crate::stats::{Stats, StatsSource};
use crate::sys::{Tick, threads};

/// What is alike in both, for the accept loop. Nothing here blocks.
pub(super) enum Serving {
    Pool(Pool),
    Processes(Children),
}

impl Serving {
    /// Starts the workers, which a forking server has not.
    ///
    /// # Errors
    /// [`Error::Threads`] when the kernel refuses a worker, and [`Error::Threaded`] when a second thread forbids to fork.
    pub(super) fn start(&mut self) -> Result<(), Error> {
        match self {
            Serving::Pool(pool) => pool.start(),
            Serving::Processes(_) => {
                match threads().map_err(Error::setup("count the threads in /proc/self/task; mount /proc"))? {
                    1 => Ok(()),
                    more => Err(Error::Threaded(more)),
                }
            }
        }
    }

    pub(super) fn services(&self) -> &Services {
        match self {
            Serving::Pool(pool) => pool.services(),
            Serving::Processes(children) => children.services(),
        }
    }

    pub(super) fn context(&self) -> &Arc<Context> {
        &self.services().context
    }

    pub(super) fn stats(&self) -> Stats {
        match self {
            Serving::Pool(pool) => pool.stats(),
            Serving::Processes(children) => children.services().context.stats(),
        }
    }

    /// The counters, for other threads and for as long as the server lives.
    pub(super) fn stats_source(&self) -> Weak<dyn StatsSource> {
        match self {
            Serving::Pool(pool) => pool.stats_source(),
            Serving::Processes(children) => {
                let weak: Weak<Context> = Arc::downgrade(&children.services().context);
                weak
            }
        }
    }

    pub(super) fn open_connections(&self) -> usize {
        match self {
            Serving::Pool(pool) => pool.open_connections(),
            Serving::Processes(children) => children.running(),
        }
    }

    /// Workers whose loops have not ended, or children that are not reaped.
    pub(super) fn running(&self) -> usize {
        match self {
            Serving::Pool(pool) => pool.running_workers(),
            Serving::Processes(children) => children.running(),
        }
    }

    /// True when one more client has a place.
    pub(super) fn has_slot(&self) -> bool {
        match self {
            Serving::Pool(pool) => pool.has_slot(),
            Serving::Processes(children) => children.has_room(),
        }
    }

    /// True when one more client has a place. If not, the accept loop is woken when it has.
    pub(super) fn has_slot_or_wake(&self) -> bool {
        match self {
            Serving::Pool(pool) => pool.has_slot_or_wake(),
            // SIGCHLD wakes the accept loop in any case.
            Serving::Processes(children) => children.has_room(),
        }
    }

    /// True when one more client may wait for a worker. If not, the accept loop is woken when it may.
    pub(super) fn has_queue_room_or_wake(&self) -> bool {
        match self {
            Serving::Pool(pool) => pool.has_queue_room_or_wake(),
            Serving::Processes(_) => true,
        }
    }

    /// True when an idle connection can make room for a client. If not, the accept loop is woken when one can.
    pub(super) fn has_idle_or_wake(&self) -> bool {
        match self {
            Serving::Pool(pool) => pool.has_idle_or_wake(),
            Serving::Processes(_) => false,
        }
    }

    pub(super) fn shed(&mut self) {
        if let Serving::Pool(pool) = self {
            pool.shed();
        }
    }

    /// When [`sweep`](Serving::sweep) is due. Each child keeps its own deadlines.
    pub(super) fn next_sweep(&self) -> Option<Tick> {
        match self {
            Serving::Pool(pool) => pool.next_sweep(),
            Serving::Processes(_) => None,
        }
    }

    pub(super) fn sweep(&mut self, now: Tick) {
        if let Serving::Pool(pool) = self {
            pool.sweep(now);
        }
    }

    /// Tells every client of the shutdown, or every child.
    pub(super) fn start_draining(&mut self) {
        match self {
            Serving::Pool(pool) => pool.start_draining(),
            Serving::Processes(children) => children.services().context.start_draining(),
        }
    }

    /// Closes every connection.
    pub(super) fn force_close(&mut self) {
        match self {
            Serving::Pool(pool) => pool.force_close(),
            Serving::Processes(children) => {
                children.services().context.start_force_closing();
                children.kill();
            }
        }
    }

    /// Closes what workers have let go of since.
    pub(super) fn close_remaining(&mut self) {
        if let Serving::Pool(pool) = self {
            pool.close_remaining();
        }
    }

    /// How the workers come forward. Processes always do, as far as their parent can see.
    pub(super) fn activity(&self) -> Activity {
        match self {
            Serving::Pool(pool) => pool.activity(),
            Serving::Processes(_) => Activity { moves: 0, work_waits: false },
        }
    }
}
