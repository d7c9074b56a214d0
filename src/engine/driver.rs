//! The driver: what becomes of an endpoint when something happens to it.
//!
//! In comes an [`Event`] for an endpoint that the calling thread owns. The driver receives, calls the service and
//! sends, as far as that goes without waiting, and says what is [`Next`]. A stage, its deadline and the reason of a
//! close are decided here and nowhere else. The workers, the accept loop, its sweep and its shutdown, a forked child
//! and the tests all call [`Driver::on`]. The driver knows no slot, no queue and no poller, and reaches its client
//! through a [`Transport`](crate::connection::Transport) only.

use std::any::Any;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::blocks::{Blocks, SparePair, block_pairs};
use super::close_log::CloseLog;
use super::endpoint::Endpoint;
use crate::config::{DATAGRAMS, LINGER, RECV_SHOWN, TURN};
use crate::connection::{CloseReason, Connection, Context, Flow, Interest, Notice, Received, Stage, Wait};
use crate::datagram::{Answer, Datagram, UdpEndpoint};
use crate::log::{Text, debug, error, warn};
use crate::service::ErasedService;
use crate::stats::Counter;
use crate::sys::RateLimit;

/// What has happened to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The accept loop has admitted the client. Its first request is left to the poller.
    Admitted,
    /// The accept loop has admitted the client after the shutdown began: it gets the notice and nothing else.
    Late,
    /// There is traffic, or more to do.
    Ready,
    /// The shutdown begins. After the notice the client's end of the connection is left to the next event.
    Drain,
    /// The deadline of a parked connection may have passed.
    Deadline,
    /// An idle connection has to make room for another client.
    Shed,
    /// The grace time is over. A client that has just had a reply gets its notice a moment later.
    ForceClose,
    /// The time for that is over, too.
    Finish,
}

/// What the owner of the endpoint must do.
#[derive(Debug)]
#[must_use]
pub(crate) enum Next {
    /// Wait for this readiness, or for the deadline.
    Park(Interest),
    /// There is more to do, after the others.
    Requeue,
    /// [`end`](Driver::end) it.
    Close(CloseReason),
}

/// The services of a server, and what the threads that drive their connections share.
pub(crate) struct Services {
    pub(crate) context: Arc<Context>,
    tcp: Box<[Box<dyn ErasedService>]>,
    /// The connections that each of them has got.
    accepted: Box<[Counter]>,
    udp: Box<[Box<dyn Datagram>]>,
    blocks: Blocks,
    panic_lines: RateLimit,
    udp_error_lines: RateLimit,
    close_log: CloseLog,
}

/// What one thread drives endpoints with.
pub(crate) struct Driver {
    services: Arc<Services>,
    spare: SparePair,
    /// Which of [`Context::served`] is this thread's.
    counter: usize,
}

impl Services {
    /// Allocates sessions for `connections` of them, and buffers for these and for each worker and the accept loop.
    pub(crate) fn new(
        context: Arc<Context>,
        mut tcp: Box<[Box<dyn ErasedService>]>,
        udp: Box<[Box<dyn Datagram>]>,
        connections: usize,
    ) -> Services {
        tcp.iter_mut().for_each(|service| service.reserve(connections));
        Services {
            blocks: Blocks::new(block_pairs(context.limits.workers, connections), context.limits.buffer),
            accepted: tcp.iter().map(|_| Counter::default()).collect(),
            tcp,
            udp,
            panic_lines: RateLimit::new(1, Duration::from_secs(60)),
            udp_error_lines: RateLimit::new(1, Duration::from_secs(60)),
            close_log: CloseLog::default(),
            context,
        }
    }

    /// True when no call of any service blocks.
    pub(super) fn never_block(&self) -> bool {
        self.tcp.iter().all(|service| service.never_blocks()) && self.udp.iter().all(|service| service.never_blocks())
    }

    /// One of the TCP services.
    pub(crate) fn tcp(&self, index: usize) -> &dyn ErasedService {
        &*self.tcp[index]
    }

    /// Counts a connection that a service has got.
    pub(crate) fn count_accepted(&self, service: usize) {
        self.context.counters.accepted.add(1);
        self.accepted[service].add(1);
    }

    /// The connections that each TCP service has got, by its name.
    pub(crate) fn accepted(&self) -> impl Iterator<Item = (&str, u64)> {
        self.tcp.iter().zip(&self.accepted).map(|(service, accepted)| (service.name(), accepted.value()))
    }

    /// Logs and counts the end of a connection.
    pub(crate) fn record_close(&self, peer: SocketAddr, service: usize, reason: &CloseReason) {
        reason.counter(&self.context.counters).add(1);
        self.close_log.log(peer, self.tcp(service).name(), reason);
    }

    fn report_panic(&self, payload: &(dyn Any + Send), peer: SocketAddr) {
        let Some(left_out) = self.panic_lines.event() else { return };
        error!(
            "The service panicked for {}: {} ({} panics before this one not logged)",
            Text(&peer),
            Text(&panic_message(payload).escape_debug()),
            left_out
        );
    }

    fn report_udp_error(&self, what: &str, address: &SocketAddr, error: &impl fmt::Display) {
        if let Some(left_out) = self.udp_error_lines.event() {
            warn!("{} {}: {} ({} errors before this one not logged)", what, Text(address), Text(error), left_out);
        }
    }
}

impl Driver {
    /// A driver for the thread that counts its requests in that place of [`Context::served`].
    pub(crate) fn new(services: Arc<Services>, counter: usize) -> Driver {
        Driver { services, spare: SparePair::default(), counter }
    }

    pub(crate) fn services(&self) -> &Services {
        &self.services
    }

    /// Moves on an endpoint that the calling thread owns. Never waits, unless a service does.
    pub(crate) fn on(&mut self, endpoint: &mut Endpoint, event: Event) -> Next {
        match endpoint {
            Endpoint::Tcp(connection) => {
                self.services.blocks.lend(connection, &mut self.spare);
                let next = self.on_connection(connection, event).unwrap_or_else(Next::Close);
                self.services.blocks.take_back(connection, &mut self.spare);
                next
            }
            Endpoint::Udp(endpoint) => self.on_datagrams(endpoint, event),
            Endpoint::Free => Next::Close(CloseReason::Left),
        }
    }

    /// Ends an endpoint, all but its socket. Returns what has ended it in truth.
    pub(crate) fn end(&mut self, endpoint: &mut Endpoint, reason: CloseReason) -> CloseReason {
        let reason = if self.context().is_force_closing() { CloseReason::Forced } else { reason };
        let Endpoint::Tcp(connection) = endpoint else { return reason };
        if connection.has_output() {
            connection.abort();
        }
        let service = self.services.tcp(connection.service());
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| service.close(connection.session(), &reason))) {
            self.services.report_panic(&*payload, connection.peer());
        }
        connection.clear_buffers();
        self.services.blocks.take_back(connection, &mut self.spare);
        reason
    }

    fn context(&self) -> &Context {
        &self.services.context
    }

    fn on_connection(&mut self, connection: &mut Connection, event: Event) -> Result<Next, CloseReason> {
        if connection.has_output() || !connection.input().is_empty() {
            // `flush` takes the time as it was last read.
            connection.tick();
        }
        match event {
            Event::Admitted => {
                self.open(connection)?;
                connection.flush()?;
                Ok(Next::Park(connection.interest()))
            }
            Event::Late => {
                connection.stage = Stage::Serving;
                self.notify(connection)?;
                self.turn(connection)
            }
            Event::Ready => {
                connection.readable = true;
                self.turn(connection)
            }
            Event::Drain => self.drain(connection),
            Event::Deadline => self.expire(connection),
            Event::Shed => self.shed(connection),
            Event::ForceClose | Event::Finish => self.force_close(connection, event),
        }
    }

    /// Does a bounded number of steps. Output goes first, and until all of it is sent nothing more is received.
    fn turn(&mut self, connection: &mut Connection) -> Result<Next, CloseReason> {
        for _ in 0..TURN {
            match self.step(connection)? {
                Next::Requeue => {}
                next => return Ok(next),
            }
        }
        Ok(Next::Requeue)
    }

    fn step(&mut self, connection: &mut Connection) -> Result<Next, CloseReason> {
        if !connection.flush()? {
            return Ok(Next::Park(Interest::Output));
        }
        match connection.stage {
            Stage::New => {
                self.open(connection)?;
                // The time in the queue is not the client's, and may be longer than ticks can be compared.
                connection.renew();
                Ok(Next::Requeue)
            }
            Stage::Serving => self.serve(connection),
            Stage::Closing(_) => {
                if connection.input().has_ended() {
                    return Err(connection.planned_end());
                }
                connection.finish_sending()?;
                let until = connection.tick().after(LINGER);
                connection.stage = Stage::Lingering(connection.planned_end(), until);
                Ok(Next::Requeue)
            }
            Stage::Lingering(..) if !connection.readable => Ok(Next::Park(Interest::Input)),
            Stage::Lingering(..) => match connection.discard() {
                Ok(Received::Bytes) => Ok(Next::Requeue),
                Ok(Received::Nothing) => Ok(Next::Park(Interest::Input)),
                // The client has closed too, or is gone: either way the connection ends as was planned.
                Ok(Received::End) | Err(_) => Err(connection.planned_end()),
            },
        }
    }

    fn open(&mut self, connection: &mut Connection) -> Result<(), CloseReason> {
        connection.stage = Stage::Serving;
        self.call(connection, |service, connection| service.open(connection.session(), connection))
    }

    fn serve(&mut self, connection: &mut Connection) -> Result<Next, CloseReason> {
        if let Notice::At(tick) = connection.notice {
            // What arrives in the quiet time before the notice is not executed.
            if !tick.reached(connection.tick()) {
                return Ok(Next::Park(Interest::Nothing));
            }
            self.notify(connection)?;
            return Ok(Next::Requeue);
        }
        let needs_input = connection.needs_input || connection.input().is_empty();
        if needs_input && self.receive(connection)? == Received::Nothing {
            if matches!(connection.notice, Notice::AfterInput(_)) {
                return self.notify_after_gap(connection);
            }
            if connection.is_overdue {
                return Err(CloseReason::TimedOut(Wait::Request));
            }
            return Ok(Next::Park(Interest::Input));
        }
        let before = connection.input().bytes().len();
        let flow = self.call(connection, |service, connection| service.serve(connection.session(), connection))?;
        let took = connection.input().bytes().len() < before;
        // Counted before the reply goes out, so that a client that has the reply finds it counted.
        self.context().served[self.counter].add(u64::from(took));
        let progress = took || connection.has_output();
        connection.needs_input = !progress;
        if flow == Flow::Close {
            let refused = connection.output().refuses();
            connection.stage = Stage::Closing(match connection.notice {
                _ if refused => CloseReason::TooLong,
                Notice::Given => CloseReason::Shutdown,
                _ => CloseReason::Finished,
            });
        } else if progress {
            connection.start_next_request();
        } else if connection.input().has_ended() {
            return Err(CloseReason::Left);
        } else if connection.input().is_full() {
            connection.stage = Stage::Closing(CloseReason::TooLong);
        }
        Ok(Next::Requeue)
    }

    /// Gets more input. `Nothing` when there is none to serve now.
    fn receive(&mut self, connection: &mut Connection) -> Result<Received, CloseReason> {
        if connection.notice == Notice::NotDue && self.context().is_draining() {
            connection.limit_input();
        }
        let received = match connection.input().has_ended() {
            true => Received::End,
            false if connection.readable => connection.receive()?,
            false => Received::Nothing,
        };
        if received == Received::Bytes {
            debug!("{} recv: {}", Text(&connection.peer()), Text(&PythonBytes(connection.input().bytes())));
        }
        // Everything before the end of input was served. At the end of the grace time the end may be the server's own, in
        // the middle of a request.
        if received == Received::End && (connection.input().is_empty() || self.context().is_force_closing()) {
            return Err(if connection.notice == Notice::Given { CloseReason::Shutdown } else { CloseReason::Left });
        }
        Ok(received)
    }

    /// Gives the notice, or plans it for a moment later if a reply has just gone out: a client that reads once for each
    /// request must not find the two in one piece.
    fn notify_after_gap(&mut self, connection: &mut Connection) -> Result<Next, CloseReason> {
        if let Some(tick) = connection.quiet_until() {
            connection.notice = Notice::At(tick);
            return Ok(Next::Park(Interest::Nothing));
        }
        self.notify(connection)?;
        Ok(Next::Requeue)
    }

    /// Gives the notice. The service decides whether the client stays.
    fn notify(&mut self, connection: &mut Connection) -> Result<(), CloseReason> {
        connection.mark_notified();
        connection.tick();
        match self.call(connection, |service, connection| service.shutdown(connection.session(), connection))? {
            Flow::Continue => {}
            Flow::Close => connection.stage = Stage::Closing(CloseReason::Shutdown),
        }
        Ok(())
    }

    /// Gives the notice, unless something of the client is still to be answered: then a later turn does. The end of the
    /// connection costs more than the notice, and is left to the next event, so that every client gets its notice
    /// first. Calls the service for the notice alone, for the accept loop must not wait for an answer.
    fn drain(&mut self, connection: &mut Connection) -> Result<Next, CloseReason> {
        match connection.stage {
            Stage::New | Stage::Serving => {}
            Stage::Closing(_) | Stage::Lingering(..) => {
                // It may have waited in the queue because of an edge.
                connection.readable = true;
                return self.turn(connection);
            }
        }
        match connection.notice {
            Notice::NotDue => connection.limit_input(),
            Notice::AfterInput(_) | Notice::Given => return Ok(Next::Requeue),
            Notice::At(_) => return Ok(Next::Park(Interest::Nothing)),
        }
        if !connection.needs_input && !connection.input().is_empty() {
            return Ok(Next::Requeue);
        }
        if !connection.flush()? {
            // The notice comes behind the reply that the client does not read.
            return Ok(Next::Park(Interest::Output));
        }
        if connection.receive()? != Received::Nothing {
            return Ok(Next::Requeue);
        }
        connection.stage = Stage::Serving;
        let next = self.notify_after_gap(connection)?;
        connection.flush()?;
        Ok(next)
    }

    fn expire(&mut self, connection: &mut Connection) -> Result<Next, CloseReason> {
        let now = connection.tick();
        // The owner may have set another deadline between the sweep's look at it and the sweep's claim.
        if connection.deadline().is_none_or(|deadline| !deadline.reached(now)) {
            return Ok(Next::Park(connection.interest()));
        }
        if let Notice::At(_) = connection.notice {
            // The service alone is called that gives the notice: another call might block the accept loop.
            self.notify(connection)?;
            connection.flush()?;
            return match connection.stage {
                Stage::Closing(_) => self.turn(connection),
                _ => Ok(Next::Requeue),
            };
        }
        if let Stage::Lingering(..) = connection.stage {
            return Err(connection.planned_end());
        }
        self.look_once_more(connection)
    }

    /// Looks for what a client did in time, while the workers or the queue kept its connection waiting.
    fn look_once_more(&mut self, connection: &mut Connection) -> Result<Next, CloseReason> {
        let wait = connection.wait();
        if connection.timeout(wait).is_none() {
            connection.renew();
            return Ok(Next::Park(connection.interest()));
        }
        let in_time = match wait {
            Wait::Write => {
                let (left, finished) = (connection.output().bytes().len(), connection.flush()?);
                if !finished && connection.output().bytes().len() < left {
                    // There was room for a part, and the time starts anew.
                    return Ok(Next::Park(Interest::Output));
                }
                finished
            }
            Wait::Idle | Wait::Request => connection.receive()? != Received::Nothing,
        };
        // The rest of a request is looked at once: a client that sends a byte now and then must not go on like that.
        connection.is_overdue |= in_time && wait == Wait::Request;
        if in_time { Ok(Next::Requeue) } else { Err(CloseReason::TimedOut(wait)) }
    }

    fn shed(&mut self, connection: &mut Connection) -> Result<Next, CloseReason> {
        // A worker may have served it between the accept loop's look at it and the claim, or the client has sent
        // something just now.
        if !connection.is_idle() || connection.receive()? != Received::Nothing {
            return Ok(Next::Requeue);
        }
        self.notify(connection)?;
        if connection.flush()? {
            connection.finish_sending()?;
        }
        Err(CloseReason::Shed)
    }

    /// Closes the connection, after the notice if there is room for it and the client has not had it.
    fn force_close(&mut self, connection: &mut Connection, event: Event) -> Result<Next, CloseReason> {
        let is_open = matches!(connection.stage, Stage::New | Stage::Serving) && connection.notice != Notice::Given;
        if !is_open || !connection.flush().is_ok_and(|all| all) {
            return Err(CloseReason::Forced);
        }
        if let (Event::ForceClose, Some(tick)) = (event, connection.quiet_until()) {
            connection.notice = Notice::At(tick);
            return Ok(Next::Park(Interest::Nothing));
        }
        let sent = self.notify(connection).is_ok() && connection.flush().is_ok_and(|all| all);
        if sent && connection.finish_sending().is_ok() {
            // What the client has sent would turn the close into a reset, which may destroy the notice.
            let _ = connection.discard();
        }
        Err(CloseReason::Forced)
    }

    /// Calls the service, and turns its error or panic into the end of this connection.
    fn call<T>(
        &mut self,
        connection: &mut Connection,
        call: impl FnOnce(&dyn ErasedService, &mut Connection) -> io::Result<T>,
    ) -> Result<T, CloseReason> {
        let service = self.services.tcp(connection.service());
        let outcome = catch_unwind(AssertUnwindSafe(|| call(service, connection)));
        if !service.never_blocks() {
            // The call may have taken a while, and the reply goes out now.
            connection.tick();
        }
        match outcome {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => Err(CloseReason::TimedOut(connection.wait())),
            Ok(Err(_)) if self.context().is_force_closing() => {
                // A stream handler whose writing was ended, for one.
                let _ = self.force_close(connection, Event::Finish);
                Err(CloseReason::Forced)
            }
            Ok(Err(error)) => Err(error.into()),
            Err(payload) => {
                self.services.report_panic(&*payload, connection.peer());
                Err(CloseReason::Panicked)
            }
        }
    }

    /// Answers datagrams until none is left, for the poller is edge-triggered, or until the others are to have their
    /// turn. No error ends a socket: the next datagram may be a good one.
    fn on_datagrams(&mut self, endpoint: &mut UdpEndpoint, event: Event) -> Next {
        match event {
            Event::ForceClose | Event::Finish => return Next::Close(CloseReason::Forced),
            // Datagrams have no notice, and are answered until the grace time is over.
            Event::Drain => return Next::Requeue,
            _ => {}
        }
        let mut failed = 0;
        for _ in 0..DATAGRAMS {
            if self.context().is_force_closing() {
                return Next::Close(CloseReason::Forced);
            }
            match self.answer(endpoint) {
                Ok(Received::Bytes) => failed = 0,
                Ok(_) => return Next::Park(Interest::Input),
                Err(error) => {
                    self.context().counters.receive_errors.add(1);
                    self.services.report_udp_error("Receiving on", &endpoint.address, &error);
                    failed += 1;
                }
            }
        }
        // Receiving takes a pending error away. An error that stays is not tried again until something arrives: the
        // workers must not spin on it.
        if failed == DATAGRAMS { Next::Park(Interest::Input) } else { Next::Requeue }
    }

    /// Receives one datagram, lets the service see it, and sends the reply.
    fn answer(&mut self, endpoint: &mut UdpEndpoint) -> nix::Result<Received> {
        let service = &*self.services.udp[endpoint.service];
        let Some(packet) = endpoint.receive()? else { return Ok(Received::Nothing) };
        if !packet.is_addressed {
            return Ok(Received::Bytes);
        }
        let (counters, from) = (&self.services.context.counters, packet.from);
        counters.datagrams.add(1);
        counters.oversized.add(u64::from(!packet.is_whole));
        let call = || match packet.is_whole {
            true => service.receive(packet.bytes, from, packet.reply),
            false => service.oversized(packet.bytes, from, packet.reply),
        };
        match catch_unwind(AssertUnwindSafe(call)) {
            Ok(Ok(Answer::Silence)) => {}
            Ok(Ok(Answer::Reply)) => match endpoint.send_reply(from) {
                Ok(()) => counters.replies.add(1),
                // No room, no route, forbidden, or no such port: a client that wants the answer asks again.
                Err(_) => counters.replies_dropped.add(1),
            },
            Ok(Err(error)) => {
                counters.datagrams_failed.add(1);
                self.services.report_udp_error("Datagram from", &from, &error);
            }
            Err(payload) => {
                counters.datagrams_failed.add(1);
                self.services.report_panic(&*payload, from);
            }
        }
        Ok(Received::Bytes)
    }
}

/// The first of some bytes, as Python shows bytes.
struct PythonBytes<'a>(&'a [u8]);

impl fmt::Display for PythonBytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(RECV_SHOWN)];
        // Python takes double quotes where that saves escapes.
        let quote = if shown.contains(&b'\'') && !shown.contains(&b'"') { '"' } else { '\'' };
        write!(f, "b{quote}")?;
        for byte in shown {
            match byte {
                b'\t' => f.write_str("\\t")?,
                b'\n' => f.write_str("\\n")?,
                b'\r' => f.write_str("\\r")?,
                b'\\' => f.write_str("\\\\")?,
                b'\'' if quote == '\'' => f.write_str("\\'")?,
                b' '..=b'~' => write!(f, "{}", char::from(*byte))?,
                _ => write!(f, "\\x{byte:02x}")?,
            }
        }
        write!(f, "{quote}")
    }
}

/// What a panic said.
pub(super) fn panic_message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
