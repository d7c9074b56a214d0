//! The wait for addresses that cannot be bound yet: at boot a server may start before its interfaces have theirs
//! (an IPv6 address is unusable until it is known to be unique), and later while the server before it still listens.
//!
//! In come attempts to bind; each is repeated until it succeeds, the time for all of them is over, or a signal to
//! stop comes. Other signals have their actions as ever. With no time given each attempt is made once.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::Signal;

use super::hooks::Actions;
use crate::access::Backoff;
use crate::error::Error;
use crate::log::{Text, warn};
use crate::sys::{STOPPING, Seconds, Signals, poll_timeout};

pub(crate) struct Retry<'a> {
    started: Instant,
    time_limit: Duration,
    signals: Option<&'a Signals>,
    actions: &'a mut Actions,
}

impl Retry<'_> {
    /// Allows `time_limit` from now on for everything that is to be bound.
    pub(crate) fn new<'a>(time_limit: Duration, signals: Option<&'a Signals>, actions: &'a mut Actions) -> Retry<'a> {
        Retry { started: Instant::now(), time_limit, signals, actions }
    }

    /// Calls `bind` until it succeeds. `service` is offered at the address.
    ///
    /// # Errors
    /// [`Error::Listen`] when it fails for good, and [`Error::Stopped`].
    pub(crate) fn attempt<T>(
        &mut self,
        address: SocketAddr,
        service: &str,
        mut bind: impl FnMut() -> io::Result<T>,
    ) -> Result<T, Error> {
        let mut backoff = Backoff::default();
        let mut tried = Duration::ZERO;
        loop {
            let left = self.time_limit.saturating_sub(self.started.elapsed());
            let source = match bind() {
                Ok(bound) => return Ok(bound),
                Err(source) if left.is_zero() || !may_pass(&source) => {
                    return Err(Error::Listen { address, service: service.into(), source, tried });
                }
                Err(source) => source,
            };
            if tried.is_zero() {
                tried = self.time_limit;
                let left = Duration::from_millis(left.as_millis().div_ceil(100) as u64 * 100);
                warn!(
                    "Cannot listen on {} ({}) yet: {}; trying again for {} seconds",
                    Text(&address),
                    service,
                    Text(&source),
                    Text(&Seconds(left))
                );
            }
            if let Some(signal) = self.wait(backoff.next().min(left)) {
                return Err(Error::Stopped { signal: signal as i32, address, service: service.into() });
            }
        }
    }

    /// Waits that long, or shorter if a signal comes. Returns one that asks to stop.
    fn wait(&mut self, time: Duration) -> Option<Signal> {
        let pipe = self.signals.map(|signals| PollFd::new(signals.reader.as_fd(), PollFlags::POLLIN));
        // An error is EINTR. If the signal is a routed one, the pipe has it; in any case the next attempt comes sooner.
        let _ = poll(&mut Vec::from_iter(pipe), poll_timeout(Some(time)));
        let mut bytes = [0; 16];
        // SIGUSR1 asks for counters, and there are none yet.
        self.signals?.read(&mut bytes).find(|signal| !self.actions.run(*signal) && STOPPING.contains(signal))
    }
}

/// Whether time may help: the address is there later, or free, or its interface is.
pub(super) fn may_pass(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EADDRNOTAVAIL | Errno::EADDRINUSE | Errno::ENODEV))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7);

    fn attempt(time_limit: Duration, errno: Errno, successes_after: u32) -> (u32, Result<(), Error>) {
        let (mut actions, mut calls) = (Actions::default(), 0);
        let outcome = Retry::new(time_limit, None, &mut actions).attempt(PLACE, "echo", || {
            calls += 1;
            if calls > successes_after { Ok(()) } else { Err(errno.into()) }
        });
        (calls, outcome)
    }

    #[test]
    fn what_may_pass_is_tried_until_it_has_passed() {
        for errno in [Errno::EADDRNOTAVAIL, Errno::EADDRINUSE, Errno::ENODEV] {
            let (calls, outcome) = attempt(Duration::from_secs(60), errno, 2);
            assert_eq!((calls, outcome.is_ok()), (3, true));
        }
    }

    #[test]
    fn what_cannot_pass_and_what_has_no_time_is_tried_once() {
        for (time_limit, errno) in [(60, Errno::EACCES), (0, Errno::EADDRINUSE)] {
            let (calls, outcome) = attempt(Duration::from_secs(time_limit), errno, 2);
            assert_eq!(calls, 1);
            assert!(matches!(outcome, Err(Error::Listen { tried: Duration::ZERO, .. })), "{outcome:?}");
        }
    }

    #[test]
    fn the_error_at_the_end_says_how_long_it_was_tried() {
        let (calls, outcome) = attempt(Duration::from_millis(120), Errno::EADDRNOTAVAIL, u32::MAX);
        assert!((2..=4).contains(&calls), "{calls}");
        let text = outcome.unwrap_err().to_string();
        assert!(text.starts_with("cannot listen on 127.0.0.1:7 (echo), tried for 0.12 seconds: "), "{text}");
    }
}
