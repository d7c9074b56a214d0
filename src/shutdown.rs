//! The end of a server: what triggers it, its phases, the handle to ask for it, and the report of it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::config::{MAX_TIMEOUT, WORKERS_HOME};
use crate::engine::Engine;
use crate::stats::Stats;
use crate::sys::Seconds;
use crate::sys::{SignalName, Tick};

/// What started a shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trigger {
    /// A signal, by its number; shown by its name.
    Signal(i32),
    /// [`ServerHandle::shutdown`].
    Handle,
    /// `stop` on the control socket.
    Control,
    /// A listener broke.
    Failure,
}

impl Trigger {
    /// What the log says has happened.
    pub(crate) fn event(self) -> &'static str {
        match self {
            Trigger::Signal(_) => "received",
            Trigger::Handle | Trigger::Control => "made",
            Trigger::Failure => "noticed",
        }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trigger::Signal(number) => SignalName(*number).fmt(f),
            Trigger::Handle => f.write_str("Shutdown request"),
            Trigger::Control => f.write_str("Control request"),
            Trigger::Failure => f.write_str("Listener failure"),
        }
    }
}

/// How a shutdown went.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// What started it.
    pub trigger: Trigger,
    /// Clients that were given the notice.
    pub notified: u64,
    /// Connections that ended by themselves during the grace time.
    pub left: u64,
    /// Connections that the end of the grace time closed.
    pub closed: u64,
    /// Workers that were still busy when the server gave up waiting for them.
    pub abandoned: usize,
    /// From the trigger to the end.
    pub took: Duration,
}

impl fmt::Display for ShutdownReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} notified, {} left, {} closed, {} workers abandoned, {:.3} s",
            self.trigger,
            self.notified,
            self.left,
            self.closed,
            self.abandoned,
            Seconds(self.took)
        )
    }
}

/// Asks a running server things from any thread.
#[derive(Clone)]
pub struct ServerHandle {
    /// Only the server and its workers keep the engine, so that its memory goes with them.
    engine: Weak<Engine>,
    requests: Arc<Requests>,
}

impl ServerHandle {
    pub(crate) fn new(engine: &Arc<Engine>, requests: &Arc<Requests>) -> ServerHandle {
        ServerHandle { engine: Arc::downgrade(engine), requests: requests.clone() }
    }

    /// Starts the shutdown: notice, grace, close. Further calls change nothing. Returns at once;
    /// [`Server::run`](crate::Server::run) returns the report when it is over.
    pub fn shutdown(&self) {
        self.requests.post(|requests| requests.shutdown = true);
        self.wake();
    }

    /// Starts the shutdown with another grace time than the one the server was built with. While the server is
    /// shutting down already, this changes nothing.
    pub fn shutdown_within(&self, grace: Duration) {
        self.requests.post(|requests| (requests.shutdown, requests.grace) = (true, Some(grace.min(MAX_TIMEOUT))));
        self.wake();
    }

    /// Ends the grace time now, starting the shutdown first if need be.
    pub fn close(&self) {
        self.requests.post(|requests| (requests.shutdown, requests.close) = (true, true));
        self.wake();
    }

    /// Reads the counters; of a server that has ended, the last ones. Takes one pass over the connection slots, and
    /// never waits for a client.
    pub fn stats(&self) -> Stats {
        match self.engine.upgrade() {
            Some(engine) => engine.stats(),
            None => self.requests.last_stats(),
        }
    }

    fn wake(&self) {
        if let Some(engine) = self.engine.upgrade() {
            engine.wake_accept_loop();
        }
    }

    /// True once the engine's memory is free.
    #[cfg(test)]
    pub(crate) fn has_no_engine(&self) -> bool {
        self.engine.strong_count() == 0
    }
}

impl fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerHandle").finish_non_exhaustive()
    }
}

/// What handles have asked for and the accept loop has not seen yet.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    posted: Mutex<Posted>,
    /// What the counters said when the server ended.
    last_stats: Mutex<Stats>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Posted {
    pub(crate) shutdown: bool,
    pub(crate) grace: Option<Duration>,
    pub(crate) close: bool,
}

impl Requests {
    fn post(&self, change: impl FnOnce(&mut Posted)) {
        change(&mut self.posted.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn take(&self) -> Posted {
        std::mem::take(&mut self.posted.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps the counters of a server that ends.
    pub(crate) fn keep_stats(&self, stats: Stats) {
        *self.last_stats.lock().unwrap_or_else(PoisonError::into_inner) = stats;
    }

    fn last_stats(&self) -> Stats {
        self.last_stats.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Where a server stands between its start and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Running,
    /// Clients have their notice and may leave until then.
    Draining {
        ends: Tick,
    },
    /// Connections are cut; workers have until then to come home.
    Closing {
        ends: Tick,
    },
    Over,
}

/// What the accept loop must do because the phase changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Drain,
    Cut,
    Finish,
}

/// The phases, and what moves a server from one to the next. Time is an argument, so this is tested without a
/// clock or a socket.
#[derive(Debug)]
pub(crate) struct Ladder {
    pub(crate) phase: Phase,
    grace: Duration,
    /// Started by this, at that time.
    pub(crate) started: Option<(Trigger, Instant)>,
}

impl Ladder {
    pub(crate) fn new(grace: Duration) -> Ladder {
        Ladder { phase: Phase::Running, grace, started: None }
    }

    /// A signal, each of which goes one step further: the first drains, the second ends the grace time, the
    /// third ends everything.
    pub(crate) fn signal(&mut self, number: i32, now: Tick) -> Option<Action> {
        match self.phase {
            Phase::Running => self.drain(Trigger::Signal(number), now),
            Phase::Draining { .. } => self.cut(now),
            Phase::Closing { .. } => Some(self.finish()),
            Phase::Over => None,
        }
    }

    /// The time that clients have to leave.
    pub(crate) fn grace(&self) -> Duration {
        self.grace
    }

    /// A wish to stop with another grace time.
    pub(crate) fn drain_within(&mut self, trigger: Trigger, grace: Option<Duration>, now: Tick) -> Option<Action> {
        if self.phase == Phase::Running {
            self.grace = grace.unwrap_or(self.grace);
        }
        self.drain(trigger, now)
    }

    /// A wish to stop, which changes nothing once the server is stopping.
    pub(crate) fn drain(&mut self, trigger: Trigger, now: Tick) -> Option<Action> {
        if self.phase != Phase::Running {
            return None;
        }
        self.started = Some((trigger, Instant::now()));
        self.phase = Phase::Draining { ends: now.after(self.grace) };
        Some(Action::Drain)
    }

    /// A wish to end the grace time.
    pub(crate) fn cut(&mut self, now: Tick) -> Option<Action> {
        if !matches!(self.phase, Phase::Draining { .. }) {
            return None;
        }
        self.phase = Phase::Closing { ends: now.after(WORKERS_HOME) };
        Some(Action::Cut)
    }

    /// What time, and the connections and workers that are left, ask for.
    pub(crate) fn progress(&mut self, now: Tick, open: usize, workers_out: usize) -> Option<Action> {
        match self.phase {
            Phase::Draining { ends } if open == 0 || ends.reached(now) => self.cut(now),
            Phase::Closing { ends } if workers_out == 0 || ends.reached(now) => Some(self.finish()),
            _ => None,
        }
    }

    fn finish(&mut self) -> Action {
        self.phase = Phase::Over;
        Action::Finish
    }

    /// When [`progress`](Ladder::progress) must be asked at the latest.
    pub(crate) fn deadline(&self) -> Option<Tick> {
        match self.phase {
            Phase::Draining { ends } | Phase::Closing { ends } => Some(ends),
            Phase::Running | Phase::Over => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Clock;

    fn at(start: Tick, millis: u64) -> Tick {
        start.after(Duration::from_millis(millis))
    }

    #[test]
    fn three_signals_go_three_steps() {
        let now = Clock::start().now();
        let mut ladder = Ladder::new(Duration::from_secs(5));
        assert_eq!(ladder.signal(15, now), Some(Action::Drain));
        assert_eq!(ladder.signal(15, now), Some(Action::Cut));
        assert_eq!(ladder.signal(2, now), Some(Action::Finish));
        assert_eq!(ladder.signal(2, now), None);
        assert_eq!(ladder.started.unwrap().0, Trigger::Signal(15));
    }

    #[test]
    fn the_grace_ends_with_the_time_or_with_the_last_client() {
        let now = Clock::start().now();
        let mut ladder = Ladder::new(Duration::from_secs(5));
        assert_eq!(ladder.drain(Trigger::Handle, now), Some(Action::Drain));
        assert_eq!(ladder.drain(Trigger::Handle, now), None);
        assert_eq!(ladder.progress(at(now, 4_999), 1, 4), None);
        assert_eq!(ladder.progress(at(now, 5_000), 1, 4), Some(Action::Cut));
        assert_eq!(ladder.progress(at(now, 5_999), 1, 1), None);
        assert_eq!(ladder.progress(at(now, 6_001), 1, 1), Some(Action::Finish));

        let mut ladder = Ladder::new(Duration::from_secs(5));
        ladder.drain(Trigger::Handle, now);
        assert_eq!(ladder.progress(now, 0, 4), Some(Action::Cut));
        assert_eq!(ladder.progress(now, 0, 0), Some(Action::Finish));
    }

    #[test]
    fn a_report_is_one_line() {
        let report = ShutdownReport {
            trigger: Trigger::Signal(15),
            notified: 3,
            left: 2,
            closed: 1,
            abandoned: 0,
            took: Duration::from_millis(5_001),
        };
        assert_eq!(report.to_string(), "SIGTERM: 3 notified, 2 left, 1 closed, 0 workers abandoned, 5.001 s");
    }
}
