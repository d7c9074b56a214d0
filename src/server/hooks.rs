//! What the embedding program does when the server is ready, when it begins to stop, and while it makes progress.
//!
//! The accept loop calls all hooks. A panic of a hook is caught and logged.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::actions::Actions;
use super::watchdog::{Look, Ping, Watchdog};
use crate::config::check_timeout;
use crate::engine::Activity;
use crate::error::Error;
use crate::log::{Text, error, warn};
use crate::sys::{Span, Tick};

/// Something to do once.
type Once = Box<dyn FnOnce() + Send>;

#[derive(Default)]
pub(crate) struct Hooks {
    ready: Vec<Once>,
    drain: Vec<Once>,
    watchdog: Option<Watchdog>,
    /// What is done on signals.
    pub(super) actions: Actions,
}

impl Hooks {
    pub(super) fn on_ready(&mut self, action: Once) {
        self.ready.push(action);
    }

    pub(super) fn on_drain(&mut self, action: Once) {
        self.drain.push(action);
    }

    pub(super) fn watch(&mut self, interval: Duration, ping: Ping) {
        self.watchdog = Some(Watchdog::new(interval, ping));
    }

    /// Runs the hooks for the moment when every socket is bound and every worker has started.
    pub(super) fn run_ready_hooks(&mut self, now: Tick) {
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.start(now);
        }
        std::mem::take(&mut self.ready).into_iter().for_each(|action| call("ready", action));
    }

    /// Runs the hooks for the beginning of the shutdown.
    pub(super) fn run_drain_hooks(&mut self) {
        std::mem::take(&mut self.drain).into_iter().for_each(|action| call("drain", action));
    }

    /// Pings the watchdog when it is due and the workers make progress.
    pub(super) fn ping_watchdog(&mut self, now: Tick, activity: impl FnOnce() -> Activity) {
        let Some(watchdog) = self.watchdog.as_mut().filter(|watchdog| watchdog.is_due(now)) else { return };
        let look = watchdog.look(now, activity());
        match look {
            Look::Ping | Look::PingAgain => call("watchdog", &mut watchdog.ping),
            Look::Stuck | Look::StillStuck => {}
        }
        let interval = Text(&Span(watchdog.interval()));
        match look {
            Look::Stuck => error!("No worker has moved for {} while work waits; the watchdog is not told", interval),
            Look::PingAgain => warn!("The workers move again; the watchdog is told"),
            Look::Ping | Look::StillStuck => {}
        }
    }

    /// # Errors
    /// When the watchdog would spin, or lie beyond what deadlines can be.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let check = |watchdog: &Watchdog| check_timeout("watchdog", watchdog.interval(), Duration::from_millis(1));
        self.watchdog.as_ref().map_or(Ok(()), check)
    }

    /// When [`ping_watchdog`](Hooks::ping_watchdog) must be called next.
    pub(super) fn deadline(&self) -> Option<Tick> {
        self.watchdog.as_ref().and_then(Watchdog::deadline)
    }
}

/// A panic of the embedding program's code must not end the server.
fn call(name: &str, hook: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(hook)).is_err() {
        error!("The {} hook panicked", name);
    }
}
