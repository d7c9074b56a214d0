//! The server: one `poll(2)` over signals, requests and listeners; the only file that knows every stage.
//!
//! In come signals, wake-ups of the workers and of handles, and new clients; out go accepted sockets to the
//! engine, and the steps of the shutdown. The loop never waits for a client and never wakes without a
//! reason: its time-out is the next deadline, and infinite when there is none.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use heapless::Vec as Fixed;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{SigSet, Signal};

use super::accepting::Accepting;
use super::hooks::Hooks;
use super::stopping::Stopping;
use crate::access::{Admission, Backoff};
use crate::config::{CONTROL_CLIENTS, LISTENERS};
use crate::connection::Context;
use crate::control::{Ask, Control, Report};
use crate::datagram::Memberships;
use crate::engine::Serving;
use crate::error::Error;
use crate::log::{Text, debug, info, warn};
use crate::shutdown::{Action, Phase, Requests, ServerHandle, ShutdownReport, Trigger};
use crate::stats::Stats;
use crate::sys::{STOPPING, Signals, Span, Tick, poll_timeout};

/// The accept loop's event, the self-pipe, the control socket with its clients, every listener, the netlink socket, and
/// the descriptor of a hook.
const POLLED: usize = LISTENERS + 4 + 1 + CONTROL_CLIENTS;

/// A bound server, ready to run.
#[must_use = "a server serves no client until it is run"]
pub struct Server {
    pub(super) serving: Box<dyn Serving>,
    pub(super) accepting: Accepting,
    pub(super) memberships: Memberships,
    /// The sockets in the order in which they were asked for, and what is served there.
    pub(super) names: Vec<(SocketAddr, String)>,
    pub(super) signals: Option<Arc<Signals>>,
    pub(super) control: Option<Control>,
    pub(super) hooks: Hooks,
    pub(super) requests: Arc<Requests>,
    pub(super) stopping: Stopping,
}

/// What the accept loop's wait has found.
#[derive(Default)]
struct Found {
    /// The self-pipe has something to read.
    signals: bool,
    /// The control socket, or one of its clients, is readable.
    control: bool,
    /// The listeners that have clients.
    listeners: Fixed<usize, LISTENERS>,
}

impl Server {
    /// The addresses that are really bound, TCP and UDP alike, in the order in which they were given.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.names.iter().map(|(address, _)| *address)
    }

    /// A handle to stop the server, or to look at it, from any thread.
    pub fn handle(&self) -> ServerHandle {
        ServerHandle::new(Arc::downgrade(&self.serving.stats_source()), self.requests.clone())
    }

    /// Serves until the server is told to stop, and returns how it went. Blocks until then.
    ///
    /// # Errors
    /// [`Error::Threads`] when the workers cannot be started, and [`Error::Accept`] when a listener broke; in
    /// the latter case the clients were given notice and grace first. [`Error::Threaded`] when a
    /// [forking](crate::Builder::forking) server finds a second thread.
    pub fn run(mut self) -> Result<ShutdownReport, Error> {
        self.serving.start()?;
        self.memberships.start(self.now());
        for (address, name) in &self.names {
            info!("PID:{}. Server started on {} ({})", std::process::id(), Text(address), Text(name.as_str()));
        }
        self.hooks.run_ready_hooks(self.context().clock.now());
        while self.stopping.phase() != Phase::Finished {
            let found = self.wait();
            if found.signals {
                self.handle_signals();
            }
            self.handle_requests();
            let now = self.now();
            if found.control || self.control.as_ref().and_then(Control::deadline).is_some_and(|tick| tick.reached(now))
            {
                self.serve_control(now);
            }
            if self.serving.next_sweep().is_some_and(|tick| tick.reached(now)) {
                self.serving.sweep(now);
            }
            self.memberships.rejoin_if_due(now);
            self.stopping.count_down(now);
            self.hooks.ping_watchdog(now, || self.serving.activity());
            self.revisit_deferred();
            for index in found.listeners {
                _ = self.accept_batch(index);
            }
            if let Phase::Closing { .. } = self.stopping.phase() {
                self.serving.close_remaining();
            }
            // With no client, worker or child left, the last steps follow one another at once.
            while let Some(action) = {
                let (now, open, running) = (self.now(), self.serving.open_connections(), self.serving.running());
                self.stopping.shutdown.progress(now, open, running)
            } {
                self.apply(Some(action));
            }
        }
        let abandoned = self.serving.running();
        // Asked for first: what the last worker had in hand when it ended is closed now.
        self.serving.finish();
        let stats = self.stats();
        let report = self.stopping.report(&stats, abandoned);
        self.requests.keep_stats(stats);
        match self.stopping.failure {
            Some(failure) => Err(failure),
            None => Ok(report),
        }
    }

    pub(super) fn context(&self) -> &Context {
        &self.serving.services().context
    }

    pub(super) fn stats(&self) -> Stats {
        self.serving.stats_source().stats()
    }

    fn own_report(&self) -> Report<'_> {
        let (services, context) = (self.serving.services(), self.context());
        let accepted = services.accepted().take(LISTENERS).collect();
        Report { stats: self.stats(), limits: &context.limits, uptime: context.started.elapsed(), accepted }
    }

    pub(super) fn now(&self) -> Tick {
        self.context().clock.now()
    }

    /// Waits for signals, requests, clients and deadlines.
    fn wait(&mut self) -> Found {
        let now = self.now();
        let polls_listeners = self.admission_or_wake(now) != Admission::Wait;
        self.accepting.listeners.iter_mut().for_each(|listener| listener.resume_if_due(now));
        let mut fds: Fixed<PollFd<'_>, POLLED> = Fixed::new();
        let mut polled: Fixed<usize, LISTENERS> = Fixed::new();
        // The capacities are sums of what is pushed: none of these can fail.
        let wake = &self.context().wake;
        let _ = fds.push(PollFd::new(wake.as_fd(), PollFlags::POLLIN));
        if let Some(signals) = &self.signals {
            let _ = fds.push(PollFd::new(signals.reader.as_fd(), PollFlags::POLLIN));
        }
        let signals_end = fds.len();
        for fd in self.control.iter().flat_map(Control::fds) {
            let _ = fds.push(PollFd::new(fd, PollFlags::POLLIN));
        }
        let first = fds.len();
        for (index, listener) in self.accepting.listeners.iter().enumerate() {
            if polls_listeners && listener.resumes.is_none() {
                let _ = fds.push(PollFd::new(listener.socket.as_fd(), PollFlags::POLLIN));
                let _ = polled.push(index);
            }
        }
        let others = fds.len();
        let (news, hook) = (self.memberships.change_fd(), self.hooks.readable_fd());
        for fd in news.iter().chain(&hook) {
            let _ = fds.push(PollFd::new(*fd, PollFlags::POLLIN));
        }
        let timeout = self.next_deadline(now).map(|tick| tick.until(now));
        if let Err(error) = poll(&mut fds, poll_timeout(timeout)) {
            debug!("poll: {}", Text(&error));
            // EINTR: a signal came, and the self-pipe holds it. ENOMEM may last: until it passes, the loop tries
            // everything now and then, because no call that follows waits.
            if error == Errno::EINTR {
                return Found { signals: true, ..Found::default() };
            }
            thread::sleep(Backoff::FIRST);
            return Found { signals: true, control: true, listeners: polled };
        }
        let ready = |fd: &PollFd<'_>| fd.revents().is_none_or(|events| !events.is_empty());
        if ready(&fds[0]) {
            wake.take();
        }
        let waiting = fds[first..].iter().zip(&polled).filter(|(fd, _)| ready(fd));
        let found = Found {
            signals: fds[1..signals_end].iter().any(ready),
            control: fds[signals_end..first].iter().any(ready),
            listeners: waiting.map(|(_, index)| *index).collect(),
        };
        let mut others = fds[others..].iter().map(ready);
        let (changed, hooked) = (news.is_some() && others.next() == Some(true), others.next() == Some(true));
        drop(fds);
        if changed {
            self.memberships.note_change(self.now());
        }
        if hooked {
            self.hooks.run_readable_hook();
        }
        found
    }

    fn next_deadline(&self, now: Tick) -> Option<Tick> {
        Tick::earliest([
            self.serving.next_sweep(),
            self.accepting.deadline(now),
            self.stopping.deadline(),
            self.control.as_ref().and_then(Control::deadline),
            self.memberships.deadline(),
            self.hooks.watchdog.as_ref().and_then(|watchdog| watchdog.next),
        ])
    }

    fn handle_signals(&mut self) {
        let Some(signals) = &self.signals else { return };
        let mut bytes = [0; 16];
        let mut seen = SigSet::empty();
        for signal in signals.read(&mut bytes) {
            if STOPPING.contains(&signal) {
                let action = self.stopping.shutdown.signal(signal as i32, self.now());
                self.apply(action);
                continue;
            }
            // Each signal to stop is a step. Of any other signal one in a batch is enough, so that a storm of them does
            // not keep the loop busy.
            if seen.contains(signal) {
                continue;
            }
            seen.add(signal);
            if self.hooks.actions.run(signal) {
                continue;
            }
            if signal == Signal::SIGCHLD {
                self.serving.reap();
            } else {
                // An operator has asked, so the counters are shown at every level but `error` and `off`.
                warn!("{}", Text(&self.stats()));
            }
        }
    }

    fn handle_requests(&mut self) {
        let posted = self.requests.take();
        let now = self.now();
        if posted.shutdown {
            let action = self.stopping.shutdown.drain(Trigger::Handle, posted.grace, now);
            self.apply(action);
        }
        if posted.force_close {
            let action = self.stopping.shutdown.force_close(now);
            self.apply(action);
        }
    }

    fn serve_control(&mut self, now: Tick) {
        let Some(mut control) = self.control.take() else { return };
        let mut wanted = None;
        control.serve(now, |request| match request {
            Ask::Status(form) => crate::control::status(&self.own_report(), form),
            Ask::Stop(grace) => {
                let action = self.stopping.shutdown.drain(Trigger::Control, grace, now);
                let state = if action.is_some() { "stopping" } else { "stopping already" };
                wanted = wanted.take().or(action);
                crate::control::text(format_args!("{state}, grace {}\n", Span(self.stopping.shutdown.grace)))
            }
            Ask::Refused(line) => crate::control::text(format_args!("{line}")),
        });
        self.control = Some(control);
        // With the control socket in its place: a forking server may fork now, and the child closes what it finds there.
        self.apply(wanted);
    }

    pub(super) fn apply(&mut self, action: Option<Action>) {
        match action {
            Some(Action::Drain) => self.drain(),
            Some(Action::ForceClose) => {
                info!("Server is shutting down...");
                self.stopping.countdown = None;
                self.serving.force_close();
            }
            Some(Action::Finish) => self.serving.finish(),
            None => {}
        }
    }

    fn drain(&mut self) {
        self.hooks.run_drain_hooks();
        let grace = self.stopping.shutdown.grace;
        self.stopping.log_grace(grace);
        self.stopping.before = self.stats();
        let second = Duration::from_secs(1);
        self.stopping.countdown = (grace > second).then(|| self.now().after(second));
        // The kernel has connected the clients in the backlog already. They get their answers and the notice, not a
        // reset.
        self.revisit_deferred();
        self.empty_backlog();
        info!("Server interrupted, notifying all clients...");
        self.serving.start_draining();
        self.empty_backlog();
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
