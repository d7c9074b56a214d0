//! What the embedding program does when the server is ready, when it begins to stop, on signals, and while it makes
//! progress.
//!
//! The accept loop calls all hooks. A panic of a hook is caught and logged.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::sys::signal::Signal;

use super::watchdog::{Look, Watchdog};
use crate::engine::Activity;
use crate::error::Error;
use crate::log::{Text, error, warn};
use crate::sys::{STOPPING, Span, Tick};

/// Something to do once.
type Once = Box<dyn FnOnce() + Send>;

#[derive(Default)]
pub(super) struct Hooks {
    /// For the moment when every socket is bound and every worker has started.
    pub(super) ready: Vec<Once>,
    /// For the beginning of the shutdown.
    pub(super) drain: Vec<Once>,
    pub(super) watchdog: Option<Watchdog>,
    /// For each time that the descriptor is readable.
    pub(super) readable: Option<(OwnedFd, Box<dyn FnMut() + Send>)>,
    /// What is done on signals.
    pub(super) actions: Actions,
}

impl Hooks {
    /// The descriptor for which [`run_readable_hook`](Hooks::run_readable_hook) must be called when it is readable.
    pub(super) fn readable_fd(&self) -> Option<BorrowedFd<'_>> {
        self.readable.as_ref().map(|(fd, _)| fd.as_fd())
    }

    pub(super) fn run_readable_hook(&mut self) {
        if let Some((_, action)) = &mut self.readable {
            call("readable descriptor", action);
        }
    }

    pub(super) fn run_ready_hooks(&mut self, now: Tick) {
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.start(now);
        }
        std::mem::take(&mut self.ready).into_iter().for_each(|action| call("ready hook", action));
    }

    pub(super) fn run_drain_hooks(&mut self) {
        std::mem::take(&mut self.drain).into_iter().for_each(|action| call("drain hook", action));
    }

    /// Pings the watchdog when it is due and the workers make progress.
    pub(super) fn ping_watchdog(&mut self, now: Tick, activity: impl FnOnce() -> Activity) {
        let Some(watchdog) = self.watchdog.as_mut().filter(|watchdog| watchdog.is_due(now)) else { return };
        match watchdog.look(now, activity()) {
            Look::Ping => call("watchdog hook", &mut watchdog.ping),
            Look::PingAgain => {
                call("watchdog hook", &mut watchdog.ping);
                warn!("The workers move again; the watchdog is told");
            }
            Look::Stuck => {
                let interval = Span(watchdog.interval);
                error!("No worker has moved for {} while work waits; the watchdog is not told", Text(&interval));
            }
            Look::StillStuck => {}
        }
    }
}

/// Signals that the kernel lets no program handle, or that come again at once when a handler returns.
const OUT_OF_HAND: [Signal; 8] = [
    Signal::SIGKILL,
    Signal::SIGSTOP,
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGTRAP,
    Signal::SIGABRT,
];

/// One action per signal at most.
#[derive(Default)]
pub(super) struct Actions(Vec<(Signal, Box<dyn FnMut() + Send>)>);

impl Actions {
    /// Sets what happens on a signal, in place of what was set before.
    ///
    /// # Errors
    /// [`Error::Signal`] when the number is not one that can have an action.
    pub(super) fn set(&mut self, number: i32, action: Box<dyn FnMut() + Send>) -> Result<(), Error> {
        let refuse = |reason| Error::Signal { number, reason };
        let signal = Signal::try_from(number).map_err(|_| refuse("there is no such signal"))?;
        if STOPPING.contains(&signal) {
            return Err(refuse("it stops the server"));
        }
        if signal == Signal::SIGCHLD {
            return Err(refuse("it tells a forking server of its children"));
        }
        if OUT_OF_HAND.contains(&signal) {
            return Err(refuse("a program cannot go on after it"));
        }
        self.0.retain(|(other, _)| *other != signal);
        self.0.push((signal, action));
        Ok(())
    }

    pub(super) fn signals(&self) -> impl Iterator<Item = Signal> {
        self.0.iter().map(|(signal, _)| *signal)
    }

    /// Calls the action on a signal. False if it has none.
    pub(super) fn run(&mut self, signal: Signal) -> bool {
        let Some((_, action)) = self.0.iter_mut().find(|(other, _)| *other == signal) else { return false };
        call(format_args!("action on {signal}"), action);
        true
    }
}

/// A panic of the embedding program's code must not end the server.
fn call(name: impl fmt::Display, hook: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(hook)).is_err() {
        error!("The {} panicked", Text(&name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn an_action_runs_on_its_signal_alone_and_may_panic() {
        let (mut actions, count) = (Actions::default(), Arc::new(AtomicUsize::new(0)));
        let counted = count.clone();
        actions.set(Signal::SIGUSR2 as i32, Box::new(|| unreachable!("replaced"))).unwrap();
        let count_up = move || {
            counted.fetch_add(1, Ordering::Relaxed);
        };
        actions.set(Signal::SIGUSR2 as i32, Box::new(count_up)).unwrap();
        actions.set(Signal::SIGWINCH as i32, Box::new(|| panic!("on purpose"))).unwrap();
        assert!(actions.run(Signal::SIGUSR2) && actions.run(Signal::SIGWINCH) && !actions.run(Signal::SIGUSR1));
        assert_eq!(count.load(Ordering::Relaxed), 1);
        assert_eq!(actions.signals().count(), 2);
    }

    #[test]
    fn signals_that_are_spoken_for_are_refused_by_name() {
        let refused = |number| Actions::default().set(number, Box::new(|| {})).unwrap_err().to_string();
        for signal in STOPPING {
            assert_eq!(refused(signal as i32), format!("no action possible on {signal}: it stops the server"));
        }
        assert!(refused(Signal::SIGCHLD as i32).contains("forking"));
        assert_eq!(refused(9), "no action possible on SIGKILL: a program cannot go on after it");
        assert_eq!(refused(0), "no action possible on signal 0: there is no such signal");
        assert_eq!(refused(1_000), "no action possible on signal 1000: there is no such signal");
    }
}
