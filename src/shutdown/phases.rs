//! The phases of a server, from its start to its end. Time is an argument, so this is tested without a clock or a
//! socket.

use std::time::{Duration, Instant};

use super::report::Trigger;
use crate::config::WORKERS_FINISH;
use crate::sys::Tick;

/// Where a server stands between its start and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Running,
    /// Clients have their notice, and have until `ends` to leave.
    Draining {
        ends: Tick,
    },
    /// Connections are closed, and workers have until `ends` to finish.
    Closing {
        ends: Tick,
    },
    Finished,
}

/// What the accept loop must do because the phase changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Drain,
    ForceClose,
    Finish,
}

/// The phases, and what moves a server from one to the next.
#[derive(Debug)]
pub(crate) struct Shutdown {
    pub(crate) phase: Phase,
    /// The time that clients have to leave.
    pub(crate) grace: Duration,
    /// What began the shutdown, and when.
    pub(crate) started: Option<(Trigger, Instant)>,
}

impl Shutdown {
    pub(crate) fn new(grace: Duration) -> Shutdown {
        Shutdown { phase: Phase::Running, grace, started: None }
    }

    /// A signal to stop. The first starts the drain, the second ends the grace time, the third ends the wait for
    /// workers.
    #[must_use]
    pub(crate) fn signal(&mut self, number: i32, now: Tick) -> Option<Action> {
        match self.phase {
            Phase::Running => self.drain(Trigger::Signal(number), None, now),
            Phase::Draining { .. } => self.force_close(now),
            Phase::Closing { .. } => Some(self.finish()),
            Phase::Finished => None,
        }
    }

    /// A request to stop, maybe with another grace time. It changes nothing once the server is stopping.
    #[must_use]
    pub(crate) fn drain(&mut self, trigger: Trigger, grace: Option<Duration>, now: Tick) -> Option<Action> {
        if self.phase != Phase::Running {
            return None;
        }
        self.grace = grace.unwrap_or(self.grace);
        self.started = Some((trigger, Instant::now()));
        self.phase = Phase::Draining { ends: now.after(self.grace) };
        Some(Action::Drain)
    }

    /// A request to end the grace time.
    #[must_use]
    pub(crate) fn force_close(&mut self, now: Tick) -> Option<Action> {
        if !matches!(self.phase, Phase::Draining { .. }) {
            return None;
        }
        self.phase = Phase::Closing { ends: now.after(WORKERS_FINISH) };
        Some(Action::ForceClose)
    }

    /// What the time, the open connections and the running workers or children ask for.
    #[must_use]
    pub(crate) fn progress(&mut self, now: Tick, open: usize, running: usize) -> Option<Action> {
        match self.phase {
            Phase::Draining { ends } if open == 0 || ends.reached(now) => self.force_close(now),
            Phase::Closing { ends } if open + running == 0 || ends.reached(now) => Some(self.finish()),
            _ => None,
        }
    }

    fn finish(&mut self) -> Action {
        self.phase = Phase::Finished;
        Action::Finish
    }

    /// When [`progress`](Shutdown::progress) must be called at the latest.
    pub(crate) fn deadline(&self) -> Option<Tick> {
        match self.phase {
            Phase::Draining { ends } | Phase::Closing { ends } => Some(ends),
            Phase::Running | Phase::Finished => None,
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
        let now = Clock.now();
        let mut shutdown = Shutdown::new(Duration::from_secs(5));
        assert_eq!(shutdown.signal(15, now), Some(Action::Drain));
        assert_eq!(shutdown.signal(15, now), Some(Action::ForceClose));
        assert_eq!(shutdown.signal(2, now), Some(Action::Finish));
        assert_eq!(shutdown.signal(2, now), None);
        assert_eq!(shutdown.started.unwrap().0, Trigger::Signal(15));
    }

    #[test]
    fn the_grace_ends_with_the_time_or_with_the_last_client() {
        let now = Clock.now();
        let mut shutdown = Shutdown::new(Duration::from_secs(5));
        assert_eq!(shutdown.drain(Trigger::Handle, None, now), Some(Action::Drain));
        assert_eq!(shutdown.drain(Trigger::Handle, None, now), None);
        assert_eq!(shutdown.progress(at(now, 4_999), 1, 4), None);
        assert_eq!(shutdown.progress(at(now, 5_000), 1, 4), Some(Action::ForceClose));
        assert_eq!(shutdown.progress(at(now, 5_999), 1, 0), None);
        assert_eq!(shutdown.progress(at(now, 5_999), 0, 1), None);
        assert_eq!(shutdown.progress(at(now, 6_001), 1, 1), Some(Action::Finish));

        let mut shutdown = Shutdown::new(Duration::from_secs(5));
        assert_eq!(shutdown.drain(Trigger::Handle, None, now), Some(Action::Drain));
        assert_eq!(shutdown.progress(now, 0, 4), Some(Action::ForceClose));
        assert_eq!(shutdown.progress(now, 0, 0), Some(Action::Finish));
    }
}
