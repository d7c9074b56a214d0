//! What the embedding program does on signals, called by the accept loop.

use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::sys::signal::Signal;

use crate::error::Error;
use crate::log::{Text, error};
use crate::sys::STOPPING;

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
pub(crate) struct Actions(Vec<(Signal, Box<dyn FnMut() + Send>)>);

impl Actions {
    /// Sets what happens on a signal, in place of what was set before.
    ///
    /// # Errors
    /// [`Error::Signal`] when the number is not one that can have an action.
    pub(crate) fn set(&mut self, number: i32, action: Box<dyn FnMut() + Send>) -> Result<(), Error> {
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

    pub(crate) fn signals(&self) -> impl Iterator<Item = Signal> {
        self.0.iter().map(|(signal, _)| *signal)
    }

    /// Calls the action on a signal. False if it has none.
    pub(crate) fn run(&mut self, signal: Signal) -> bool {
        let Some((_, action)) = self.0.iter_mut().find(|(other, _)| *other == signal) else { return false };
        // A panic of the embedding program's code must not end the server.
        if catch_unwind(AssertUnwindSafe(action)).is_err() {
            error!("The action on {} panicked", Text(&signal));
        }
        true
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
