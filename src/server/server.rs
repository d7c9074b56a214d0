//! The server: one `poll(2)` over signals, requests and listeners; the only file that knows every stage.
//!
//! In come signals, wake-ups of the workers and of handles, and new clients; out go accepted sockets to the
//! ready queue, and the steps of the shutdown. The loop never waits for a client and never wakes without a
//! reason: its time-out is the next deadline, and infinite when there is none.

use std::fmt;
use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use heapless::Vec as Fixed;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{SigSet, Signal};

use super::actions::Actions;
use super::deferred::Deferred;
use super::hooks::Hooks;
use super::listener::{Listener, open_reserve};
use crate::access::Backoff;
use crate::config::{CONTROL_CLIENTS, LISTENERS, QUEUE_PATIENCE};
use crate::connection::poll_timeout;
use crate::control::{Answer, Ask, Control};
use crate::datagram::Memberships;
use crate::engine::Engine;
use crate::error::Error;
use crate::log::{Text, debug, info, warn};
use crate::process::Children;
use crate::shutdown::{Ladder, Phase, Requests, ServerHandle, ShutdownReport, Trigger};
use crate::sys::RateLimit;
use crate::sys::Tick;
use crate::sys::{STOPPING, Signals, Span};

/// The self-pipe, the wake-up event, the control socket with its clients, every listener, and the network's news.
const POLLED: usize = LISTENERS + 3 + 1 + CONTROL_CLIENTS;

/// What a server is put together from.
pub(crate) struct Parts {
    pub(crate) engine: Engine,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) memberships: Memberships,
    /// The sockets in the order in which they were asked for, and what is served there.
    pub(crate) names: Vec<(SocketAddr, String)>,
    pub(crate) signals: Option<Signals>,
    pub(crate) actions: Actions,
    pub(crate) hooks: Hooks,
    pub(crate) control: Option<Control>,
    /// In a forking server: the processes that serve, in place of workers.
    pub(crate) children: Option<Children>,
}

/// A bound server, ready to run.
pub struct Server {
    pub(super) engine: Arc<Engine>,
    pub(super) listeners: Vec<Listener>,
    pub(super) memberships: Memberships,
    pub(super) names: Vec<(SocketAddr, String)>,
    pub(super) signals: Option<Signals>,
    pub(super) children: Option<Children>,
    pub(super) actions: Actions,
    pub(super) hooks: Hooks,
    pub(super) requests: Arc<Requests>,
    pub(super) control: Option<Control>,
    pub(super) ladder: Ladder,
    /// The next second of the grace time to be logged.
    pub(super) countdown: Option<Tick>,
    /// What the counters said when the shutdown began.
    pub(super) notices_before: u64,
    pub(super) ended_before: u64,
    /// Closed to have a descriptor to answer with when there is no other.
    pub(super) reserve: Option<File>,
    pub(super) accept_lines: RateLimit,
    /// Clients that wait until their address has fewer connections.
    pub(super) deferred: Deferred,
    pub(super) share_lines: RateLimit,
    /// Since when the ready queue has been full.
    pub(super) queue_full_since: Option<Tick>,
    /// The self-pipe has something to read.
    pub(super) signalled: bool,
    /// The control socket, or one of its clients, is readable.
    pub(super) controlled: bool,
    pub(super) failure: Option<Error>,
}

impl Server {
    pub(crate) fn new(parts: Parts) -> Result<Server, Error> {
        Ok(Server {
            ladder: Ladder::new(parts.engine.context.limits.grace),
            engine: Arc::new(parts.engine),
            listeners: parts.listeners,
            memberships: parts.memberships,
            names: parts.names,
            signals: parts.signals,
            actions: parts.actions,
            hooks: parts.hooks,
            control: parts.control,
            children: parts.children,
            requests: Arc::default(),
            countdown: None,
            notices_before: 0,
            ended_before: 0,
            reserve: Some(open_reserve().map_err(Error::setup("open /dev/null as the reserve descriptor"))?),
            accept_lines: RateLimit::new(Duration::from_secs(1)),
            deferred: Deferred::default(),
            share_lines: RateLimit::new(Duration::from_secs(1)),
            queue_full_since: None,
            signalled: false,
            controlled: false,
            failure: None,
        })
    }

    /// Routes the signals that have an action, and those that the server itself hears.
    pub(crate) fn route_signals(stopping: bool, forking: bool, actions: &Actions) -> Result<Option<Signals>, Error> {
        let mut signals = if stopping { [&STOPPING[..], &[Signal::SIGUSR1]].concat() } else { vec![] };
        signals.extend(forking.then_some(Signal::SIGCHLD));
        signals.extend(actions.signals());
        if signals.is_empty() {
            return Ok(None);
        }
        Signals::route(&signals).map(Some).map_err(Error::setup("install signal handlers"))
    }

    /// The addresses that are really bound, TCP and UDP alike, in the order in which they were given.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.names.iter().map(|(address, _)| *address)
    }

    /// A handle to stop the server, or to look at it, from any thread.
    pub fn handle(&self) -> ServerHandle {
        ServerHandle::new(&self.engine, &self.requests)
    }

    /// Serves until the server is told to stop, and returns how it went. Blocks until then.
    ///
    /// # Errors
    /// [`Error::Threads`] when the workers cannot be started, and [`Error::Accept`] when a listener broke; in
    /// the latter case the clients were given notice and grace first. [`Error::Threaded`] when a
    /// [forking](crate::Builder::forking) server finds a second thread.
    pub fn run(mut self) -> Result<ShutdownReport, Error> {
        let workers = self.start_workers()?;
        self.memberships.start(self.now());
        for (address, name) in &self.names {
            info!("PID:{}. Server started on {} ({})", std::process::id(), Text(address), Text(name.as_str()));
        }
        self.hooks.announce_ready(self.engine.context.clock.now());
        while self.ladder.phase != Phase::Over {
            let acceptable = self.wait();
            if self.signalled {
                self.hear_signals();
            }
            self.hear_requests();
            let now = self.now();
            self.serve_control(now);
            if self.engine.next_sweep().is_some_and(|tick| tick.reached(now)) {
                self.engine.sweep(now);
            }
            self.memberships.rejoin_if_due(now);
            self.count_down(now);
            self.hooks.ping_watchdog(now, || self.engine.pulse());
            self.revisit_deferred();
            for index in acceptable {
                self.accept_batch(index);
            }
            // Without clients and workers, or children, the last steps are one.
            while let Some(action) =
                self.ladder.progress(self.now(), self.engine.open_connections(), self.out(&workers))
            {
                self.act(Some(action));
            }
        }
        let report = self.report(self.out(&workers));
        self.requests.keep_stats(self.engine.stats());
        match self.failure {
            Some(failure) => Err(failure),
            None => Ok(report),
        }
    }

    pub(super) fn now(&self) -> Tick {
        self.engine.context.clock.now()
    }

    /// Waits for something to do. Returns the listeners that have clients.
    fn wait(&mut self) -> Fixed<usize, LISTENERS> {
        let now = self.now();
        let admits = self.admits(now);
        self.listeners.iter_mut().for_each(|listener| listener.resume_if_due(now));
        let mut fds: Fixed<PollFd<'_>, POLLED> = Fixed::new();
        let mut polled: Fixed<usize, LISTENERS> = Fixed::new();
        // The capacities are sums of what is pushed: none of these can fail.
        let _ = fds.push(PollFd::new(self.engine.wake.as_fd(), PollFlags::POLLIN));
        if let Some(signals) = &self.signals {
            let _ = fds.push(PollFd::new(signals.as_fd(), PollFlags::POLLIN));
        }
        let signals_end = fds.len();
        for fd in self.control.iter().flat_map(Control::fds) {
            let _ = fds.push(PollFd::new(fd, PollFlags::POLLIN));
        }
        let first = fds.len();
        for (index, listener) in self.listeners.iter().enumerate() {
            if admits && listener.resumes.is_none() {
                let _ = fds.push(PollFd::new(listener.as_fd(), PollFlags::POLLIN));
                let _ = polled.push(index);
            }
        }
        if let Some(news) = self.memberships.change_fd() {
            let _ = fds.push(PollFd::new(news, PollFlags::POLLIN));
        }
        let timeout = self.next_deadline(now).map(|tick| tick.until(now));
        if let Err(error) = poll(&mut fds, poll_timeout(timeout)) {
            debug!("poll: {}", Text(&error));
            // EINTR: a signal, which the self-pipe holds. ENOMEM may stay: until it passes, everything is looked at
            // now and then, for nothing here waits.
            self.signalled = true;
            if error == Errno::EINTR {
                return Fixed::new();
            }
            drop(fds);
            thread::sleep(Backoff::FIRST);
            self.controlled = true;
            return polled;
        }
        let ready = |fd: &PollFd<'_>| fd.revents().is_none_or(|events| !events.is_empty());
        if ready(&fds[0]) {
            let _ = self.engine.wake.read();
        }
        self.signalled = fds[1..signals_end].iter().any(ready);
        self.controlled = fds[signals_end..first].iter().any(ready);
        let waiting = fds[first..].iter().zip(&polled).filter(|(fd, _)| ready(fd));
        let waiting = waiting.map(|(_, index)| *index).collect();
        let news = fds.get(first + polled.len()).is_some_and(ready);
        drop(fds);
        if news {
            self.memberships.note_change(self.now());
        }
        waiting
    }

    fn next_deadline(&self, now: Tick) -> Option<Tick> {
        let resumes = self.listeners.iter().filter_map(|listener| listener.resumes);
        let patience = self.queue_full_since.map(|since| since.after(QUEUE_PATIENCE)).filter(|tick| !tick.reached(now));
        let control = self.control.as_ref().and_then(Control::deadline);
        let groups = self.memberships.deadline();
        let (beat, deferred) = (self.hooks.deadline(), self.deferred.deadline());
        [self.engine.next_sweep(), self.ladder.deadline(), self.countdown, patience, control, groups, beat, deferred]
            .into_iter()
            .flatten()
            .chain(resumes)
            .reduce(|first, next| if next.is_before(first) { next } else { first })
    }

    fn hear_signals(&mut self) {
        let Some(signals) = &self.signals else { return };
        let mut bytes = [0; 16];
        let mut seen = SigSet::empty();
        for signal in signals.read(&mut bytes) {
            if STOPPING.contains(&signal) {
                let action = self.ladder.signal(signal as i32, self.now());
                self.act(action);
                continue;
            }
            // Only of those that stop does each mean a step. A storm of the others is not to keep the loop busy.
            if seen.contains(signal) {
                continue;
            }
            seen.add(signal);
            if self.actions.run(signal) {
                continue;
            }
            if signal == Signal::SIGCHLD {
                self.reap();
            } else {
                // An operator asked for it, so it is shown at every level but `error` and `off`.
                warn!("{}", Text(&self.engine.stats()));
            }
        }
    }

    fn hear_requests(&mut self) {
        let posted = self.requests.take();
        let now = self.now();
        if posted.shutdown {
            let action = self.ladder.drain_within(Trigger::Handle, posted.grace, now);
            self.act(action);
        }
        if posted.close {
            let action = self.ladder.cut(now);
            self.act(action);
        }
    }

    fn serve_control(&mut self, now: Tick) {
        let Some(mut control) = self.control.take() else { return };
        if self.controlled || control.deadline().is_some_and(|tick| tick.reached(now)) {
            control.serve(now, |request| match request {
                Ok(Ask::Status(form)) => crate::control::status(&self.engine.stats(), form),
                Ok(Ask::Stop(grace)) => self.stop_by_control(grace, now),
                Err(refusal) => crate::control::text(format_args!("{refusal}")),
            });
        }
        self.control = Some(control);
    }

    fn stop_by_control(&mut self, grace: Option<Duration>, now: Tick) -> Answer {
        let action = self.ladder.drain_within(Trigger::Control, grace, now);
        let told = if action.is_some() { "stopping" } else { "stopping already" };
        self.act(action);
        crate::control::text(format_args!("{told}, grace {}\n", Span(self.ladder.grace())))
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("names", &self.names).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builtin::Echo;
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Instant;

    #[test]
    fn a_handle_keeps_the_counters_of_its_server_and_none_of_its_memory() {
        let server = Server::builder(Echo).listen("127.0.0.1:0").unwrap().build().unwrap();
        let (handle, address) = (server.handle(), server.addresses().next().unwrap());
        let running = thread::spawn(move || server.run());
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"hello world").unwrap();
        client.read_exact(&mut [0; 11]).unwrap();
        assert!(!handle.has_no_engine());
        handle.close();
        running.join().unwrap().unwrap();
        // The pool's threads drop their share of the engine a moment after their loops have ended.
        let start = Instant::now();
        while !handle.has_no_engine() {
            assert!(start.elapsed() < Duration::from_secs(20), "the engine is kept");
            thread::yield_now();
        }
        let stats = handle.stats();
        assert_eq!((stats.accepted, stats.served, stats.open), (1, 1, 0));
        handle.shutdown();
    }
}
