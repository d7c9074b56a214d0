//! The child: one connection from its first byte to its close, in a process of its own.
//!
//! A child uses the driver that the workers of a pool use. Its loop waits for the one socket and for the events of the
//! shutdown, which the parent raises and every child inherits. Nothing but these events and SIGKILL comes from the
//! parent, nothing but an exit status and two sums goes back.

use std::os::fd::AsFd;
use std::sync::Arc;

use heapless::Vec as Fixed;
use nix::poll::{PollFd, PollFlags, poll};

use super::status::encode;
use crate::connection::{Client, Connection, Context, Interest};
use crate::engine::{Driver, Endpoint, Event, Next};
use crate::sys::poll_timeout;

/// How much of the shutdown a child has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Nothing,
    Drain,
    ForceClose,
}

/// Serves a client to its end and returns the exit status.
pub(super) fn serve(driver: &mut Driver, client: Client) -> u8 {
    let context = driver.services().context.clone();
    // Read before `become_child`, after which the parent's event counts, and it may be raised by now: a client that was
    // accepted before the shutdown gets its requests answered.
    let mut event = if context.is_draining() { Event::Late } else { Event::Ready };
    context.become_child();
    let served_before = context.served_by_workers();
    let mut seen = Seen::Nothing;
    let mut endpoint = Endpoint::Tcp(Connection::new(context.clone(), client, 0));
    let reason = loop {
        event = match driver.on(&mut endpoint, event) {
            Next::Park(interest) => wait(&context, &endpoint, interest, seen),
            // A client that asks without a pause never lets the child wait.
            Next::Requeue if context.is_force_closing() => Event::ForceClose,
            Next::Requeue => Event::Ready,
            Next::Close(reason) => break driver.end(&mut endpoint, reason),
        };
        match event {
            Event::Drain => seen = Seen::Drain,
            Event::ForceClose => seen = Seen::ForceClose,
            _ => {}
        }
    };
    context.add_served(context.served_by_workers() - served_before);
    crate::log::flush();
    encode(&reason)
}

/// Waits for the client, for the deadline, and for the next step of the shutdown.
fn wait(context: &Arc<Context>, endpoint: &Endpoint, interest: Interest, seen: Seen) -> Event {
    let Endpoint::Tcp(connection) = endpoint else { return Event::Ready };
    let now = context.clock.now();
    let timeout = poll_timeout(connection.deadline().map(|deadline| deadline.until(now)));
    let mut fds: Fixed<PollFd<'_>, 2> = Fixed::new();
    let events = match interest {
        Interest::Input => Some(PollFlags::POLLIN),
        Interest::Output => Some(PollFlags::POLLOUT),
        // Input that waits at the socket would end each poll at once.
        Interest::Nothing => None,
    };
    if let (Some(events), Some(socket)) = (events, connection.socket()) {
        let _ = fds.push(PollFd::new(socket.as_fd(), events));
    }
    let step = match seen {
        Seen::Nothing => Some((&context.drain, Event::Drain)),
        Seen::Drain => Some((&context.force_close, Event::ForceClose)),
        Seen::ForceClose => None,
    };
    if let Some((event, _)) = step {
        let _ = fds.push(PollFd::new(event.as_fd(), PollFlags::POLLIN));
    }
    match (poll(&mut fds, timeout), step) {
        // The moment for the notice has come.
        (Ok(0), None) => Event::ForceClose,
        (Ok(0), Some(_)) => Event::Deadline,
        (Ok(_), Some((_, event))) if fds.last().is_some_and(|fd| fd.any().unwrap_or(true)) => event,
        (Ok(_), _) => Event::Ready,
        // EINTR: the service catches a signal. The driver finds nothing, and the child waits again.
        (Err(_), _) => Event::Ready,
    }
}

#[cfg(test)]
mod tests {
    use super::super::status::decode;
    use super::*;
    use crate::builtin::Echo;
    use crate::config::Limits;
    use crate::connection::{CloseReason, Flow, Link, Wait};
    use crate::engine::Services;
    use crate::service::{Lines, Service, Streams, WithSessions};
    use crate::stats::{SharedCounter, StatsSource};
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::mpsc;
    use std::thread::{self, JoinHandle};
    use std::time::Duration;

    /// A thread in the place of a child process.
    struct Child {
        context: Arc<Context>,
        client: TcpStream,
        thread: JoinHandle<u8>,
    }

    fn child(service: impl Service, limits: Limits) -> Child {
        let context = Arc::new(Context::forking(Limits { workers: 0, buffer: 64, ..limits }).unwrap());
        let services: Box<[Box<dyn crate::service::ErasedService>]> = Box::new([Box::new(WithSessions::new(service))]);
        let services = Services::new(context.clone(), services, Box::default(), 1);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let (socket, peer) = listener.accept().unwrap();
        let thread = thread::spawn(move || {
            let mut driver = Driver::new(Arc::new(services), 0);
            serve(&mut driver, Client { share: None, link: Link::Socket(socket), peer, service: 0 })
        });
        Child { context, client, thread }
    }

    impl Child {
        fn say(&mut self, bytes: &[u8]) {
            self.client.write_all(bytes).unwrap();
        }

        #[track_caller]
        fn expect(&mut self, bytes: &[u8]) {
            let mut got = vec![0; bytes.len()];
            self.client.read_exact(&mut got).unwrap();
            assert_eq!(got, bytes);
        }

        /// What a parent does: the child's own flag stays as it is.
        fn drain(&self) {
            self.context.drain.raise();
        }

        fn rest(&mut self) -> Vec<u8> {
            let mut rest = Vec::new();
            self.client.read_to_end(&mut rest).unwrap();
            rest
        }

        /// Leaves, and returns why the child thinks it ended.
        fn reason(self) -> CloseReason {
            drop(self.client);
            decode(self.thread.join().unwrap().into())
        }
    }

    #[test]
    fn a_client_is_served_until_it_leaves_and_its_requests_are_counted() {
        let mut child = child(Echo, Limits::default());
        let context = child.context.clone();
        for _ in 0..3 {
            child.say(b"hello world");
            child.expect(b"hello world");
        }
        assert!(matches!(child.reason(), CloseReason::Left));
        assert_eq!(context.stats().served, 0, "a child takes nothing from the sums");
        assert_eq!(context.read_stats(SharedCounter::value).served, 3);
    }

    #[test]
    fn the_drain_event_brings_the_notice_once() {
        let mut child = child(Echo, Limits::default());
        let context = child.context.clone();
        child.say(b"hello world");
        child.expect(b"hello world");
        child.drain();
        assert_eq!(child.rest(), b"SHUTDOWN");
        child.drain();
        child.say(b"discarded");
        assert!(matches!(child.reason(), CloseReason::Shutdown));
        assert_eq!(context.read_stats(SharedCounter::value).notices, 1);
    }

    #[test]
    fn a_stream_handler_sees_the_drain_event_as_end_of_input() {
        let (started, waits) = mpsc::channel();
        let handler = Streams::new(move |client| {
            started.send(()).unwrap();
            let mut all = Vec::new();
            client.read_to_end(&mut all)?;
            writeln!(client, "{} bytes", all.len())
        });
        let mut child = child(handler, Limits::default());
        child.say(b"12345");
        waits.recv().unwrap();
        child.drain();
        assert_eq!(child.rest(), b"5 bytes\nSHUTDOWN");
        assert!(matches!(child.reason(), CloseReason::Finished | CloseReason::Shutdown));
    }

    #[test]
    fn a_service_may_keep_its_client_while_the_parent_waits() {
        struct Keeper;
        impl Service for Keeper {
            type Session = ();
            fn open(&self, _: &mut Connection) -> std::io::Result<()> {
                Ok(())
            }
            fn serve(&self, connection: &mut Connection, session: &mut ()) -> std::io::Result<Flow> {
                Echo.serve(connection, session)
            }
            fn shutdown(&self, connection: &mut Connection, (): &mut ()) -> std::io::Result<Flow> {
                connection.output().push(b"soon");
                Ok(Flow::Continue)
            }
        }
        let mut child = child(Keeper, Limits::default());
        child.say(b"hello world");
        child.expect(b"hello world");
        child.drain();
        child.expect(b"soon");
        child.say(b"still here");
        child.expect(b"still here");
        assert!(matches!(child.reason(), CloseReason::Shutdown));
    }

    #[test]
    fn the_end_of_the_grace_time_ends_a_child_whose_client_stays() {
        for has_drained in [true, false] {
            let mut child = child(Echo, Limits::default());
            child.say(b"hello world");
            child.expect(b"hello world");
            child.drain();
            if has_drained {
                assert_eq!(child.rest(), b"SHUTDOWN");
            }
            child.context.force_close.raise();
            let Child { thread, mut client, .. } = child;
            assert!(matches!(decode(thread.join().unwrap().into()), CloseReason::Forced));
            let mut rest = String::new();
            client.read_to_string(&mut rest).unwrap();
            assert_eq!(rest, if has_drained { "" } else { "SHUTDOWN" });
        }
    }

    #[test]
    fn every_deadline_holds() {
        let short = Duration::from_millis(30);
        let unanswered = || Lines::new(|_, _| Ok(Flow::Continue));
        let mut idle = child(Echo, Limits { idle_timeout: short, ..Limits::default() });
        assert!(idle.rest().is_empty());
        assert!(matches!(idle.reason(), CloseReason::TimedOut(Wait::Idle)));

        let mut slow = child(unanswered(), Limits { request_timeout: short, ..Limits::default() });
        slow.say(b"half a li");
        assert!(slow.rest().is_empty());
        assert!(matches!(slow.reason(), CloseReason::TimedOut(Wait::Request)));
    }

    #[test]
    fn a_panic_is_a_close() {
        let mut child = child(Lines::new(|_, _| panic!("on purpose")), Limits::default());
        child.say(b"line\n");
        assert!(child.rest().is_empty());
        assert!(matches!(child.reason(), CloseReason::Panicked));
    }
}
