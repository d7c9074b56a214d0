#![allow(clippy::unwrap_used, clippy::expect_used)] // A test.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use super::*;
use crate::builtin::Echo;
use crate::config::Limits;
use crate::connection::{Client, Link, Transport};
use crate::service::{Lines, Service, WithSessions};
use crate::sys::Tick;

/// The client's side of a connection without a kernel.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<Wire>>);

#[derive(Default)]
struct Wire {
    /// What has arrived at the server and was not received.
    arrived: VecDeque<u8>,
    /// The client has ended its sending direction.
    ended: bool,
    /// Bytes for which the client has room; none says that it takes all.
    room: Option<usize>,
    /// What the server has sent.
    received: Vec<u8>,
    finished: bool,
    aborted: bool,
}

impl Script {
    fn wire<T>(&self, act: impl FnOnce(&mut Wire) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn say(&self, bytes: &[u8]) {
        self.wire(|wire| wire.arrived.extend(bytes));
    }

    fn received(&self) -> Vec<u8> {
        self.wire(|wire| std::mem::take(&mut wire.received))
    }
}

impl Transport for Script {
    fn receive(&mut self, into: &mut [u8]) -> io::Result<Option<usize>> {
        self.wire(|wire| {
            let count = into.len().min(wire.arrived.len());
            wire.arrived.drain(..count).zip(&mut *into).for_each(|(byte, place)| *place = byte);
            Ok(if count == 0 && !wire.ended { None } else { Some(count) })
        })
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        self.wire(|wire| {
            let count = bytes.len().min(wire.room.unwrap_or(usize::MAX));
            wire.room = wire.room.map(|room| room - count);
            wire.received.extend(&bytes[..count]);
            Ok((count > 0).then_some(count))
        })
    }

    fn pending(&mut self) -> u32 {
        self.wire(|wire| wire.arrived.len() as u32)
    }

    fn has_ended(&mut self) -> io::Result<bool> {
        Ok(self.wire(|wire| wire.ended && wire.arrived.is_empty()))
    }

    fn finish_sending(&mut self) -> io::Result<()> {
        self.wire(|wire| wire.finished = true);
        Ok(())
    }

    fn abort(&mut self) {
        self.wire(|wire| wire.aborted = true);
    }
}

/// A connection, its driver, and the clock, which stands just before the wrap of the ticks.
struct World {
    context: Arc<Context>,
    driver: Driver,
    endpoint: Endpoint,
    client: Script,
}

const SECOND: u32 = 1_000;
/// Half of what ticks can be apart, and more.
const FAR: u32 = (1 << 31) + 10 * SECOND;

impl World {
    fn new(service: impl Service) -> World {
        World::limited(service, Limits::default())
    }

    fn limited(service: impl Service, limits: Limits) -> World {
        let limits = Limits { workers: 1, buffer: 64, ..limits };
        let context = Arc::new(Context::new(limits).unwrap());
        context.clock.stop_before_wrap(5);
        let service: Box<dyn ErasedService> = Box::new(WithSessions::new(service));
        let services = Services::new(context.clone(), Box::new([service]), Box::default(), 1);
        let driver = Driver::new(Arc::new(services), 0);
        let client = Script::default();
        let link = Link::Scripted(Box::new(client.clone()));
        let peer = ([127, 0, 0, 1], 7).into();
        let connection = Connection::new(context.clone(), Client { share: None, link, peer, service: 0 }, 0);
        World { context, driver, endpoint: Endpoint::Tcp(connection), client }
    }

    /// One that was admitted, and has had an answer.
    fn served(service: impl Service) -> World {
        let mut world = World::new(service);
        world.expect_park(Event::Admitted, Interest::Input);
        world.client.say(b"one\n");
        world.expect_park(Event::Ready, Interest::Input);
        assert!(!world.client.received().is_empty());
        world
    }

    /// A line service: a request may be unfinished.
    fn lines() -> World {
        World::served(Lines::new(|line, reply| {
            reply.push(line);
            Ok(Flow::Continue)
        }))
    }

    fn on(&mut self, event: Event) -> Next {
        self.driver.on(&mut self.endpoint, event)
    }

    /// Gives it turns until it is parked or closed.
    fn turns(&mut self, event: Event) -> Next {
        let mut next = self.on(event);
        while matches!(next, Next::Requeue) {
            next = self.on(Event::Ready);
        }
        next
    }

    #[track_caller]
    fn expect_park(&mut self, event: Event, interest: Interest) {
        match self.turns(event) {
            Next::Park(parked) => assert_eq!(parked, interest),
            next => panic!("{next:?}"),
        }
    }

    #[track_caller]
    fn expect_close(&mut self, event: Event) -> CloseReason {
        match self.turns(event) {
            Next::Close(reason) => self.driver.end(&mut self.endpoint, reason),
            next => panic!("{next:?}"),
        }
    }

    fn deadline(&self) -> Option<Tick> {
        self.endpoint.deadline()
    }

    /// Asserts that the deadline is `millis` away, and turns the clock there: first to a moment before it, when nothing
    /// must happen.
    #[track_caller]
    fn pass_deadline(&mut self, millis: u32, interest: Interest) {
        let left = self.deadline().expect("a deadline").until(self.context.clock.now());
        // One more, because the present is rounded down; another one where the tick 0 is left out.
        assert!((1..=2).contains(&(left.as_millis() as u32 - millis)), "{left:?} of {millis} ms");
        self.context.clock.advance(left.as_millis() as u32 - 1);
        self.expect_park(Event::Deadline, interest);
        self.context.clock.advance(1);
    }

    /// The clock goes on so far that every tick from before looks like the future.
    fn pass_half_a_range(&self) {
        self.context.clock.advance(FAR);
    }

    fn drain(&self) {
        self.context.start_draining();
    }
}

#[test]
fn a_silent_client_is_closed_at_its_deadline_across_the_wrap() {
    let mut world = World::served(Echo);
    world.pass_deadline(30 * SECOND, Interest::Input);
    assert!(matches!(world.expect_close(Event::Deadline), CloseReason::TimedOut(Wait::Idle)));
}

#[test]
fn half_a_request_is_closed_at_its_deadline_across_the_wrap() {
    let mut world = World::lines();
    world.client.say(b"half a li");
    world.expect_park(Event::Ready, Interest::Input);
    // More of it does not put the deadline off.
    world.context.clock.advance(6 * SECOND);
    world.client.say(b"n");
    world.expect_park(Event::Ready, Interest::Input);
    world.pass_deadline(4 * SECOND, Interest::Input);
    assert!(matches!(world.expect_close(Event::Deadline), CloseReason::TimedOut(Wait::Request)));
}

#[test]
fn a_client_that_does_not_read_is_reset_at_its_deadline_across_the_wrap() {
    let mut world = World::served(Echo);
    world.client.wire(|wire| wire.room = Some(2));
    world.client.say(b"hello world");
    world.expect_park(Event::Ready, Interest::Output);
    world.pass_deadline(10 * SECOND, Interest::Output);
    assert!(matches!(world.expect_close(Event::Deadline), CloseReason::TimedOut(Wait::Write)));
    assert!(world.client.wire(|wire| wire.aborted), "what it did not read must not stay in the kernel");
}

/// No time without a limit runs out, however long it takes: the times are renewed before the clock has gone half of its
/// range, so that they never look like the future.
#[test]
fn a_timeout_of_zero_is_no_limit() {
    const DAY: u32 = 86_400 * SECOND;
    let off = Duration::ZERO;
    let limits = Limits { idle_timeout: off, request_timeout: off, write_timeout: off, ..Limits::default() };
    let mut world = World::limited(
        Lines::new(|line, reply| {
            reply.push(line);
            Ok(Flow::Continue)
        }),
        limits,
    );
    world.expect_park(Event::Admitted, Interest::Input);
    let pass_three_ranges = |world: &mut World, interest| {
        for _ in 0..10 {
            world.pass_deadline(20 * DAY, interest);
            world.expect_park(Event::Deadline, interest);
        }
    };
    pass_three_ranges(&mut world, Interest::Input);
    world.client.say(b"half a li");
    world.expect_park(Event::Ready, Interest::Input);
    pass_three_ranges(&mut world, Interest::Input);
    world.client.wire(|wire| wire.room = Some(4));
    world.client.say(b"ne\n");
    world.expect_park(Event::Ready, Interest::Output);
    pass_three_ranges(&mut world, Interest::Output);
    world.client.wire(|wire| wire.room = None);
    world.expect_park(Event::Ready, Interest::Input);
    assert_eq!(world.client.received(), b"half a line");
    pass_three_ranges(&mut world, Interest::Input);
    world.drain();
    world.expect_park(Event::Drain, Interest::Input);
    assert_eq!(world.client.received(), b"SHUTDOWN\n");
}

#[test]
fn room_for_a_part_of_the_reply_starts_the_time_anew() {
    let mut world = World::served(Echo);
    world.client.wire(|wire| wire.room = Some(2));
    world.client.say(b"hello world");
    world.expect_park(Event::Ready, Interest::Output);
    world.pass_deadline(10 * SECOND, Interest::Output);
    world.client.wire(|wire| wire.room = Some(3));
    world.expect_park(Event::Deadline, Interest::Output);
    world.pass_deadline(10 * SECOND, Interest::Output);
    world.client.wire(|wire| wire.room = None);
    world.expect_park(Event::Deadline, Interest::Input);
    assert_eq!(world.client.received(), b"hello world");
}

#[test]
fn a_request_that_came_in_time_is_answered_at_its_deadline() {
    let mut world = World::lines();
    world.client.say(b"half a li");
    world.expect_park(Event::Ready, Interest::Input);
    world.pass_deadline(10 * SECOND, Interest::Input);
    world.client.say(b"ne\nhal");
    world.expect_park(Event::Deadline, Interest::Input);
    assert_eq!(world.client.received(), b"half a line");
    // The rest of another one has a time of its own, and no second look beyond it.
    world.pass_deadline(10 * SECOND, Interest::Input);
    world.client.say(b"f");
    assert!(matches!(world.expect_close(Event::Deadline), CloseReason::TimedOut(Wait::Request)));
}

#[test]
fn a_client_that_lingers_is_closed_at_its_deadline_across_the_wrap() {
    let mut world = World::new(Lines::new(|_, _| Ok(Flow::Close)));
    world.client.say(b"bye\n");
    world.expect_park(Event::Ready, Interest::Input);
    assert!(world.client.wire(|wire| wire.finished));
    world.pass_deadline(2 * SECOND, Interest::Input);
    assert!(matches!(world.expect_close(Event::Deadline), CloseReason::Finished));
}

#[test]
fn a_parked_client_is_notified_at_once_when_its_last_reply_is_long_ago() {
    let mut world = World::served(Echo);
    // Within the idle time, but behind the quiet time before the notice.
    world.context.clock.advance(SECOND);
    world.drain();
    assert!(matches!(world.on(Event::Drain), Next::Requeue), "the end of the connection comes later");
    assert_eq!(world.client.received(), b"SHUTDOWN");
    assert!(!world.client.wire(|wire| wire.finished));
    world.expect_park(Event::Ready, Interest::Input);
    assert!(world.client.wire(|wire| wire.finished));
    assert_eq!(world.deadline(), None, "it has the grace time");
    world.pass_half_a_range();
    world.expect_park(Event::Ready, Interest::Input);
    world.client.wire(|wire| wire.ended = true);
    assert!(matches!(world.expect_close(Event::Ready), CloseReason::Shutdown));
    assert_eq!(world.context.counters.notices.value(), 1);
}

#[test]
fn a_reply_and_the_notice_are_never_one_piece() {
    let mut world = World::served(Echo);
    world.drain();
    world.expect_park(Event::Drain, Interest::Nothing);
    // What arrives in the quiet time is not executed, and does not put the notice off.
    world.client.say(b"late");
    world.expect_park(Event::Ready, Interest::Nothing);
    assert_eq!(world.client.received(), b"");
    world.pass_deadline(20, Interest::Nothing);
    world.expect_park(Event::Deadline, Interest::Input);
    assert_eq!(world.client.received(), b"SHUTDOWN");
}

#[test]
fn what_had_arrived_at_the_start_is_answered_and_the_rest_is_not_executed() {
    let mut world = World::lines();
    world.context.clock.advance(SECOND);
    world.client.say(b"a\nb\n");
    world.drain();
    assert!(matches!(world.on(Event::Drain), Next::Requeue));
    world.client.say(b"c\nd\n");
    world.expect_park(Event::Ready, Interest::Nothing);
    assert_eq!(world.client.received(), b"ab");
    world.pass_deadline(20, Interest::Nothing);
    world.expect_park(Event::Deadline, Interest::Input);
    assert_eq!(world.client.received(), b"SHUTDOWN\n");
}

#[test]
fn a_client_that_had_finished_sending_gets_its_answers_and_no_notice() {
    let mut world = World::lines();
    world.client.say(b"last");
    world.client.wire(|wire| wire.ended = true);
    world.drain();
    assert!(matches!(world.expect_close(Event::Drain), CloseReason::Left));
    assert_eq!(world.client.received(), b"last");
}

/// The time of the last reply keeps the notice apart from it. Half of the clock's range later it would put the notice
/// off for days, so it is forgotten before that.
#[test]
fn the_time_of_a_reply_does_not_put_the_notice_off_half_a_range_later() {
    let mut world = World::lines();
    for _ in 0..3 {
        world.context.clock.advance(29 * SECOND);
        world.client.say(b"a line");
        world.expect_park(Event::Ready, Interest::Input);
        // The service computes for weeks before it takes the rest.
        world.pass_half_a_range();
        world.client.say(b"\n");
        world.expect_park(Event::Ready, Interest::Input);
    }
    world.client.say(b"x");
    world.context.clock.advance(SECOND);
    world.expect_park(Event::Ready, Interest::Input);
    world.pass_half_a_range();
    world.drain();
    world.expect_park(Event::Drain, Interest::Input);
    assert_eq!(world.client.received(), b"a linea linea lineSHUTDOWN\n");
}

/// Be the client silent, asking, or waiting for its notice; served by a worker just now, or a while ago.
#[test]
fn the_end_of_the_grace_time_comes_with_the_notice() {
    for event in [Event::ForceClose, Event::Finish] {
        for (is_drained, asks) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut world = World::served(Echo);
            world.drain();
            if is_drained {
                world.expect_park(Event::Drain, Interest::Nothing);
            }
            if asks {
                world.client.say(b"hello");
            }
            world.context.start_force_closing();
            if event == Event::ForceClose {
                // The client has had a reply just now.
                world.expect_park(event, Interest::Nothing);
                assert_eq!(world.client.received(), b"");
                world.context.clock.advance(20);
                world.expect_park(event, Interest::Nothing);
                world.context.clock.advance(1);
            }
            assert!(matches!(world.expect_close(event), CloseReason::Forced));
            assert_eq!(world.client.received(), b"SHUTDOWN");
            assert!(world.client.wire(|wire| wire.finished && !wire.aborted && wire.arrived.is_empty()));
            assert_eq!(world.context.counters.notices.value(), 1);
        }
    }
}

#[test]
fn the_end_of_the_grace_time_waits_for_no_client_that_does_not_read() {
    let mut world = World::served(Echo);
    world.client.wire(|wire| wire.room = Some(2));
    world.client.say(b"hello world");
    world.expect_park(Event::Ready, Interest::Output);
    world.drain();
    world.expect_park(Event::Drain, Interest::Output);
    world.context.start_force_closing();
    assert!(matches!(world.expect_close(Event::ForceClose), CloseReason::Forced));
    assert!(world.client.wire(|wire| wire.aborted));
    assert_eq!(world.context.counters.notices.value(), 0);
}

/// What a stream handler does whose writing the end of the grace time has ended.
#[test]
fn a_call_that_fails_at_the_end_of_the_grace_time_is_followed_by_the_notice() {
    let mut world = World::new(Lines::new(|_, reply| {
        reply.push(b"part");
        Err(io::ErrorKind::ConnectionAborted.into())
    }));
    world.client.say(b"line\n");
    world.drain();
    world.context.start_force_closing();
    assert!(matches!(world.expect_close(Event::Ready), CloseReason::Forced));
    assert_eq!(world.client.received(), b"partSHUTDOWN\n");
}

#[test]
fn a_late_client_gets_the_notice_and_nothing_else() {
    let mut world = World::new(Echo);
    world.drain();
    world.client.say(b"hello");
    world.expect_park(Event::Late, Interest::Input);
    assert_eq!(world.client.received(), b"SHUTDOWN");
}

#[test]
fn an_idle_client_is_shed_after_the_notice_and_one_that_speaks_is_not() {
    let mut world = World::served(Echo);
    world.client.say(b"hello");
    world.expect_park(Event::Shed, Interest::Input);
    assert_eq!(world.client.received(), b"hello");
    assert!(matches!(world.expect_close(Event::Shed), CloseReason::Shed));
    assert_eq!(world.client.received(), b"SHUTDOWN");
    assert!(world.client.wire(|wire| wire.finished));
}

#[test]
fn a_panic_closes_the_connection_and_the_driver_goes_on() {
    let mut world = World::new(Lines::new(|_, _| panic!("on purpose")));
    world.client.say(b"line\n");
    assert!(matches!(world.expect_close(Event::Ready), CloseReason::Panicked));
}

#[test]
fn bytes_are_shown_as_python_shows_them() {
    for (bytes, shown) in [
        (&b"hello world"[..], "b'hello world'"),
        (b"", "b''"),
        (b"a\tb\r\n\\", "b'a\\tb\\r\\n\\\\'"),
        (b"\x00\x1b\x7f\xff~ ", "b'\\x00\\x1b\\x7f\\xff~ '"),
        (b"it's", "b\"it's\""),
        (b"it's \"it\"", "b'it\\'s \"it\"'"),
    ] {
        assert_eq!(PythonBytes(bytes).to_string(), shown);
    }
    assert_eq!(PythonBytes(&[b'x'; 100]).to_string(), format!("b'{}'", "x".repeat(64)));
}
