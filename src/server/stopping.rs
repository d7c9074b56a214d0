//! How far the server is on its way to its end, and what the log and the report say of it.

use std::time::Duration;

use crate::error::Error;
use crate::log::{Text, info};
use crate::shutdown::{Phase, Shutdown, ShutdownReport, Trigger};
use crate::stats::Stats;
use crate::sys::{Span, Tick};

/// How far the shutdown has come, and what the log and the report say of it.
pub(super) struct Stopping {
    pub(super) shutdown: Shutdown,
    /// The next second of the grace time to be logged.
    pub(super) countdown: Option<Tick>,
    /// The counters at the beginning of the shutdown.
    pub(super) before: Stats,
    /// The error that began the shutdown, if a listener broke.
    pub(super) failure: Option<Error>,
}

impl Stopping {
    pub(super) fn new(grace: Duration) -> Stopping {
        Stopping { shutdown: Shutdown::new(grace), countdown: None, before: Stats::default(), failure: None }
    }

    pub(super) fn phase(&self) -> Phase {
        self.shutdown.phase
    }

    /// The next time at which the accept loop must come back.
    pub(super) fn deadline(&self) -> Option<Tick> {
        Tick::earliest([self.shutdown.deadline(), self.countdown])
    }

    /// Logs the seconds that are left of the grace time, once a second.
    pub(super) fn count_down(&mut self, now: Tick) {
        let (Some(tick), Phase::Draining { ends }) = (self.countdown, self.shutdown.phase) else { return };
        if tick.reached(now) {
            let left = Duration::from_secs((ends.until(now) + Duration::from_millis(500)).as_secs());
            let next = tick.after(Duration::from_secs(1));
            self.countdown = next.is_before(ends).then_some(next);
            self.log_grace(left);
        }
    }

    /// Logs what has started the shutdown, and how much of the grace time is left.
    pub(super) fn log_grace(&self, left: Duration) {
        if let Some((trigger, _)) = self.shutdown.started {
            info!("{} {}, closing server in {}...", Text(&trigger), trigger.event(), Text(&Span(left)));
        }
    }

    /// How the shutdown went, from what the counters say at its end.
    pub(super) fn report(&self, stats: &Stats, abandoned: usize) -> ShutdownReport {
        let (trigger, took) = match self.shutdown.started {
            Some((trigger, at)) => (trigger, at.elapsed()),
            None => (Trigger::Handle, Duration::ZERO),
        };
        let ended_before = self.before.accepted - self.before.open;
        let ended = stats.accepted - stats.open - ended_before;
        ShutdownReport {
            trigger,
            notified: stats.notices - self.before.notices,
            left: ended.saturating_sub(stats.forced),
            closed: stats.forced + stats.open,
            abandoned,
            took,
        }
    }
}
