//! The handle, with which any thread asks a running server to stop, or for its counters.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::config::MAX_TIMEOUT;
use crate::stats::{Stats, StatsSource};
use crate::sync::{Mutex, lock};
use crate::sys::Event;

/// Stops a running server, or reads its counters, from any thread.
#[derive(Clone)]
pub struct ServerHandle {
    /// Weak: only the server and its workers keep the engine, so its memory goes with them.
    source: Weak<dyn StatsSource>,
    requests: Arc<Requests>,
}

impl ServerHandle {
    pub(crate) fn new(source: Weak<dyn StatsSource>, requests: Arc<Requests>) -> ServerHandle {
        ServerHandle { source, requests }
    }

    /// Starts the shutdown: notice, grace, close. Further calls change nothing. Returns at once;
    /// [`Server::run`](crate::Server::run) returns the report when it is over.
    pub fn shutdown(&self) {
        self.requests.post(|posted| posted.shutdown = true);
    }

    /// Starts the shutdown with another grace time than the one the server was built with. While the server is
    /// shutting down already, this changes nothing.
    pub fn shutdown_within(&self, grace: Duration) {
        self.requests.post(|posted| (posted.shutdown, posted.grace) = (true, Some(grace.min(MAX_TIMEOUT))));
    }

    /// Ends the grace time now, starting the shutdown first if need be.
    pub fn close(&self) {
        self.requests.post(|posted| (posted.shutdown, posted.force_close) = (true, true));
    }

    /// Reads the counters; of a server that has ended, the last ones. Takes one pass over the connection slots, and
    /// never waits for a client.
    pub fn stats(&self) -> Stats {
        match self.source.upgrade() {
            Some(source) => source.stats(),
            None => self.requests.last_stats(),
        }
    }

    /// True once the engine's memory is free.
    #[cfg(test)]
    pub(crate) fn has_no_engine(&self) -> bool {
        self.source.strong_count() == 0
    }
}

impl fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerHandle").finish_non_exhaustive()
    }
}

/// What handles have asked for and the accept loop has not seen yet.
#[derive(Debug)]
pub(crate) struct Requests {
    /// Wakes the accept loop.
    wake: Arc<Event>,
    posted: Mutex<Posted>,
    /// The counters of a server that has ended.
    last_stats: Mutex<Stats>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Posted {
    pub(crate) shutdown: bool,
    pub(crate) grace: Option<Duration>,
    /// The grace time ends now.
    pub(crate) force_close: bool,
}

impl Requests {
    pub(crate) fn new(wake: Arc<Event>) -> Requests {
        Requests { wake, posted: Mutex::default(), last_stats: Mutex::default() }
    }

    fn post(&self, change: impl FnOnce(&mut Posted)) {
        change(&mut lock(&self.posted));
        self.wake.raise();
    }

    pub(crate) fn take(&self) -> Posted {
        std::mem::take(&mut *lock(&self.posted))
    }

    /// Keeps the counters of a server that ends.
    pub(crate) fn keep_stats(&self, stats: Stats) {
        *lock(&self.last_stats) = stats;
    }

    fn last_stats(&self) -> Stats {
        lock(&self.last_stats).clone()
    }
}
