//! The steps of a shutdown, as the ladder asks for them: drain, count down, cut, close, report.

use std::time::Duration;

use super::server::Server;
use crate::config::{ACCEPTS, BACKLOG};
use crate::log::{Text, info};
use crate::shutdown::{Action, Phase, ShutdownReport, Trigger};
use crate::sys::{Span, Tick};

impl Server {
    pub(super) fn act(&mut self, action: Option<Action>) {
        match action {
            Some(Action::Drain) => self.drain(),
            Some(Action::Cut) => {
                info!("Server is shutting down...");
                self.countdown = None;
                self.engine.cut();
                if let Some(children) = &self.children {
                    children.kill();
                }
            }
            Some(Action::Finish) => self.engine.close_rest(),
            None => {}
        }
    }

    fn drain(&mut self) {
        self.hooks.announce_drain();
        let grace = self.ladder.grace();
        if let Some((trigger, _)) = self.ladder.started {
            info!("{} {}, closing server in {}...", Text(&trigger), trigger.event(), Text(&Span(grace)));
        }
        let before = self.engine.stats();
        self.notices_before = before.notices;
        self.ended_before = before.accepted - before.open;
        self.countdown = (grace > Duration::from_secs(1)).then(|| self.now().after(Duration::from_secs(1)));
        // Clients that the kernel has connected already are served what they sent and told, not reset.
        self.revisit_deferred();
        self.empty_backlog();
        self.engine.start_draining();
        self.empty_backlog();
    }

    fn empty_backlog(&mut self) {
        for index in 0..self.listeners.len() {
            (0..BACKLOG as usize / ACCEPTS).any(|_| !self.accept_batch(index));
        }
    }

    /// Logs the seconds that are left of the grace time, once a second.
    pub(super) fn count_down(&mut self, now: Tick) {
        let (Some(tick), Phase::Draining { ends }) = (self.countdown, self.ladder.phase) else { return };
        if tick.reached(now) {
            let left = Duration::from_secs((ends.until(now) + Duration::from_millis(500)).as_secs());
            let next = tick.after(Duration::from_secs(1));
            self.countdown = next.is_before(ends).then_some(next);
            info!("Closing server in {}...", Text(&Span(left)));
        }
    }

    pub(super) fn report(&self, abandoned: usize) -> ShutdownReport {
        let stats = self.engine.stats();
        let (trigger, took) = match self.ladder.started {
            Some((trigger, at)) => (trigger, at.elapsed()),
            None => (Trigger::Handle, Duration::ZERO),
        };
        let ended = stats.accepted - stats.open - self.ended_before;
        ShutdownReport {
            trigger,
            notified: stats.notices - self.notices_before,
            left: ended.saturating_sub(stats.forced),
            closed: stats.forced + stats.open,
            abandoned,
            took,
        }
    }
}
