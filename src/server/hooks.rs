//! What the embedding program does when the server is ready, when it begins to stop, and while it is well.
//!
//! All of it runs on the accept loop, and costs nothing where nothing was asked for.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::builder::Builder;
use super::drain::Span;
use super::server::Server;
use super::watchdog::{Verdict, Watchdog};
use crate::config::check_timeout;
use crate::error::Error;
use crate::log::{Text, error, warn};
use crate::sys::Tick;

/// Something to do once.
type Once = Box<dyn FnOnce() + Send>;

#[derive(Default)]
pub(crate) struct Hooks {
    ready: Vec<Once>,
    drain: Vec<Once>,
    watchdog: Option<Watchdog>,
}

impl Builder {
    /// Calls `action` once, as soon as every socket is bound and every worker has started. Clients are served from
    /// then on. It runs on the thread of [`Server::run`], which accepts nobody until it returns. Several actions run
    /// in the order in which they were given.
    pub fn on_ready(mut self, action: impl FnOnce() + Send + 'static) -> Builder {
        self.hooks.ready.push(Box::new(action));
        self
    }

    /// Calls `action` once, when the shutdown begins and before the first client is told. It runs on the accept
    /// loop, which does nothing else until it returns. Several actions run in the order in which they were given.
    pub fn on_drain(mut self, action: impl FnOnce() + Send + 'static) -> Builder {
        self.hooks.drain.push(Box::new(action));
        self
    }

    /// Calls `beat` every `interval`, from the accept loop, for as long as that and the workers come forward: for
    /// a supervisor that starts the program anew when it hears nothing (`WatchdogSec=` of systemd.service(5), or
    /// watchdog(7)). Take half of the time that it allows.
    ///
    /// The workers stand still when, from one look to the next, something waits for one of them, and none has
    /// begun a turn, served a request or a datagram, or had a stream handler that receives, sends or waits for its
    /// client. So a service that is stuck silences this within twice the interval, once it has taken every worker; what a
    /// client does, or does not do, cannot. While they stand still they are looked at four times as often, and the first
    /// sign of life is a beat. A forking server has no workers to look at.
    ///
    /// An idle server wakes for this alone, and without it not at all. [`build`](Builder::build) refuses an interval
    /// below 1 ms or above [`MAX_TIMEOUT`](crate::config::MAX_TIMEOUT) with [`Error::Limit`].
    pub fn watchdog(mut self, interval: Duration, beat: impl FnMut() + Send + 'static) -> Builder {
        self.hooks.watchdog = Some(Watchdog::new(interval, Box::new(beat)));
        self
    }
}

impl Hooks {
    /// # Errors
    /// When the watchdog would spin, or lie beyond what deadlines can be.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let check = |watchdog: &Watchdog| check_timeout("watchdog", watchdog.interval(), Duration::from_millis(1));
        self.watchdog.as_ref().map_or(Ok(()), check)
    }

    /// When [`beat`](Server::beat) must be called next.
    pub(super) fn deadline(&self) -> Option<Tick> {
        self.watchdog.as_ref().and_then(Watchdog::deadline)
    }
}

impl Server {
    /// Every socket is bound and every worker is there.
    pub(super) fn announce_ready(&mut self) {
        let now = self.now();
        if let Some(watchdog) = &mut self.hooks.watchdog {
            watchdog.start(now);
        }
        std::mem::take(&mut self.hooks.ready).into_iter().for_each(|action| call("ready", action));
    }

    pub(super) fn announce_drain(&mut self) {
        std::mem::take(&mut self.hooks.drain).into_iter().for_each(|action| call("drain", action));
    }

    /// Beats, when it is time and the workers come forward.
    pub(super) fn beat(&mut self, now: Tick) {
        let Some(watchdog) = self.hooks.watchdog.as_mut().filter(|watchdog| watchdog.is_due(now)) else { return };
        let verdict = watchdog.look(now, self.engine.pulse());
        match verdict {
            Verdict::Beat | Verdict::BeatAgain => call("watchdog", &mut watchdog.beat),
            Verdict::Stuck | Verdict::StillStuck => {}
        }
        let interval = Text(&Span(watchdog.interval()));
        match verdict {
            Verdict::Stuck => error!("No worker has moved for {} while work waits; the watchdog is not told", interval),
            Verdict::BeatAgain => warn!("The workers move again; the watchdog is told"),
            Verdict::Beat | Verdict::StillStuck => {}
        }
    }
}

/// As with a service, a panic of someone else's code must not end the server.
fn call(name: &str, hook: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(hook)).is_err() {
        error!("The {} hook panicked", name);
    }
}
