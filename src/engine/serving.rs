//! What serves the clients: a pool of workers, or a process for each.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::driver::Services;
use crate::connection::Client;
use crate::error::Error;
use crate::stats::StatsSource;
use crate::sys::Tick;

/// The accept loop's view of a pool or of child processes. No method blocks. The defaults are those of a parent of
/// processes, each of which has its own queue, deadlines and idle time.
pub(crate) trait Serving: Send {
    /// Starts the workers, if there are any.
    ///
    /// # Errors
    /// [`Error::Threads`] when the kernel refuses a worker, and [`Error::Threaded`] when a second thread forbids to fork.
    fn start(&mut self) -> Result<(), Error>;

    fn services(&self) -> &Services;

    fn stats_source(&self) -> Arc<dyn StatsSource>;

    fn open_connections(&self) -> usize;

    /// Workers whose loops have not ended, or children that are not reaped.
    fn running(&self) -> usize;

    /// True when one more client has a place. If not, the accept loop is woken when it has.
    fn has_slot_or_wake(&self) -> bool;

    /// Gives a client a place. A child process calls `release` first, to close what only the parent needs.
    ///
    /// # Errors
    /// Hands the client back when there is no place for it.
    fn admit(&mut self, client: Client, release: &mut dyn FnMut()) -> Result<(), Refused>;

    /// Starts to give every client the notice.
    fn start_draining(&mut self);

    /// Ends the grace time: closes every connection, each after its notice.
    fn force_close(&mut self);

    /// True when one more client may wait for a worker. If not, the accept loop is woken when it may.
    fn has_queue_room_or_wake(&self) -> bool {
        true
    }

    /// True when [`shed`](Serving::shed) has a connection to close. If not, the accept loop is woken when it has.
    fn has_idle_or_wake(&self) -> bool {
        false
    }

    /// Closes the connection that has been idle longest, after its notice. Does nothing when none is idle.
    fn shed(&mut self) {}

    /// When [`sweep`](Serving::sweep) is due: in a forking server, when the children that have not ended by themselves
    /// are to be killed.
    fn next_sweep(&self) -> Option<Tick> {
        None
    }

    /// Moves on every parked connection whose deadline has come.
    fn sweep(&mut self, _now: Tick) {}

    /// Accounts for the child processes that have ended. Called on SIGCHLD.
    fn reap(&mut self) {}

    /// Closes what workers have let go of since [`force_close`](Serving::force_close).
    fn close_remaining(&mut self) {}

    /// Ends every connection at once. Their workers, or processes, had their time.
    fn finish(&mut self) {}

    /// What the workers have done, for the watchdog.
    fn activity(&self) -> Activity {
        Activity { moves: 0, work_waits: false }
    }
}

/// A client that got no place.
pub(crate) struct Refused {
    pub(crate) client: Client,
    /// For how long no other client is to be accepted, and why.
    pub(crate) pause: Option<(Duration, io::Error)>,
}

/// What the workers have done, for the watchdog.
///
/// One worker that moves is enough: the watchdog must distinguish a pool that stands still from a busy one. A client
/// cannot make a pool look stuck: a client that trickles bytes holds no worker, and a stream handler that waits for its
/// client is not stuck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Activity {
    /// Changes with every turn that a worker begins, and with what it gets done in one.
    pub(crate) moves: u64,
    /// Something waits for a worker, and nothing says that one will come.
    pub(crate) work_waits: bool,
}
