//! The child: one connection from its first byte to its close, in a process of its own.
//!
//! The stages are the pool's, driven here by a loop that waits for the one socket and for the drain event,
//! which the parent raises and every child inherits. Nothing but that event and SIGKILL comes from the parent,
//! nothing but an exit status and two sums goes back.

use std::os::fd::AsFd;
use std::sync::atomic::AtomicBool;

use heapless::Vec as Fixed;
use nix::poll::{PollFd, PollFlags, poll};

use super::status::encode;
use crate::connection::{Connection, poll_timeout};
use crate::engine::Engine;
use crate::engine::processes::Processes;
use crate::engine::turn::{Place, Progress};
use crate::stats::Tally;

/// What ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Woken {
    /// It is new, and came when the server was shutting down already.
    Late,
    /// The socket is ready, or there was more to do.
    Ready,
    /// The server has begun to shut down.
    Drain,
    Deadline,
}

/// Serves a connection to its end and returns the exit status.
pub(super) fn serve(engine: &Engine, processes: &Processes, connection: &mut Connection) -> u8 {
    let (driver, hangup, tally) = (&engine.driver, AtomicBool::new(false), Tally::default());
    // Unlike an edge, poll(2) tells of the end of input as often as it is asked.
    let place = Place { session: 0, hangup: &hangup, tally: &tally };
    let mut heard = false;
    // Before the event is asked: a client that was accepted before the shutdown gets its requests answered.
    let mut woken = if engine.context.is_draining() { Woken::Late } else { Woken::Ready };
    engine.context.follow();
    let reason = loop {
        let progress = match woken {
            Woken::Ready => driver.turn(place, connection),
            Woken::Late => driver.tell(place, connection),
            Woken::Drain => driver.drain(place, connection),
            Woken::Deadline => driver.expire(place, connection),
        };
        woken = match progress {
            Progress::Waiting => wait(engine, connection, heard),
            Progress::More => Woken::Ready,
            Progress::Over(reason) => break reason,
        };
        heard |= woken == Woken::Drain;
    };
    let reason = driver.end(place.session, connection, reason);
    processes.add_served(tally.value());
    encode(&reason)
}

/// Waits for the client, for the deadline and, until it was heard, for the shutdown.
fn wait(engine: &Engine, connection: &Connection, heard: bool) -> Woken {
    let now = engine.context.clock.now();
    let timeout = poll_timeout(connection.deadline().map(|deadline| deadline.until(now)));
    let mut fds: Fixed<PollFd<'_>, 2> = Fixed::new();
    // In the quiet time before the notice nothing is received, and what waits would end each wait at once.
    if connection.settles.is_none() {
        let events = if connection.has_output() { PollFlags::POLLOUT } else { PollFlags::POLLIN };
        let _ = fds.push(PollFd::new(connection.as_fd(), events));
    }
    if !heard {
        let _ = fds.push(PollFd::new(engine.context.drain.as_fd(), PollFlags::POLLIN));
    }
    match poll(&mut fds, timeout) {
        Ok(0) => Woken::Deadline,
        Ok(_) => {
            let drains = !heard && fds.last().is_some_and(|fd| fd.any().unwrap_or(true));
            if drains { Woken::Drain } else { Woken::Ready }
        }
        // EINTR: a signal that the service catches. A turn finds nothing and comes back.
        Err(_) => Woken::Ready,
    }
}

#[cfg(test)]
mod tests {
    use super::super::status::decode;
    use super::*;
    use crate::builtin::Echo;
    use crate::config::Limits;
    use crate::connection::{CloseReason, Flow, Wait};
    use crate::connection::{Context, raise};
    use crate::service::{Lines, Service, Streams, WithSessions};
    use bytes::BytesMut;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::{Arc, mpsc};
    use std::thread::{self, JoinHandle};
    use std::time::Duration;

    /// A thread in the place of a child process.
    struct Child {
        engine: Arc<Engine>,
        client: TcpStream,
        thread: JoinHandle<u8>,
    }

    fn child(service: impl Service, limits: Limits) -> Child {
        let context = Arc::new(Context::new(limits, true).unwrap());
        let host = Box::new(WithSessions::new(service));
        let engine = Arc::new(Engine::new(context.clone(), Box::new([host]), Some(1), Box::default(), vec![]).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let (socket, peer) = listener.accept().unwrap();
        let mut connection = Connection::new(context, BytesMut::zeroed(64), BytesMut::zeroed(64));
        connection.start(socket, peer, 0);
        let served = engine.clone();
        let thread = thread::spawn(move || {
            let status = serve(&served, served.processes.as_ref().unwrap(), &mut connection);
            drop(connection.end());
            status
        });
        Child { engine, client, thread }
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
            raise(&self.engine.context.drain);
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
        let engine = child.engine.clone();
        for _ in 0..3 {
            child.say(b"hello world");
            child.expect(b"hello world");
        }
        assert!(matches!(child.reason(), CloseReason::Left));
        assert_eq!(engine.stats().served, 3);
    }

    #[test]
    fn the_drain_event_brings_the_notice_once() {
        let mut child = child(Echo, Limits::default());
        let engine = child.engine.clone();
        child.say(b"hello world");
        child.expect(b"hello world");
        child.drain();
        assert_eq!(child.rest(), b"SHUTDOWN");
        child.drain();
        child.say(b"discarded");
        assert!(matches!(child.reason(), CloseReason::Shutdown));
        assert_eq!(engine.stats().notices, 1);
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
