//! One client's connection: its link, its two buffers, its stage, and the times that its deadlines count from.
//!
//! Bytes come in with [`Connection::receive`] and go out with [`Connection::flush`]; neither ever waits. The
//! engine's driver decides what becomes of a connection, and moves it from stage to stage.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};

use super::buffer::{Input, Output};
use super::close_reason::{CloseReason, Wait};
use super::context::Context;
use super::transport::Link;
use crate::access::Share;
use crate::config::{NOTICE_GAP, RENEWAL};
use crate::sys::{Tick, poll_timeout};

/// How far a connection has come. It only moves downwards.
#[derive(Debug)]
pub(crate) enum Stage {
    /// Admitted; the service has not seen it.
    New,
    /// The service answers its requests.
    Serving,
    /// The last output is being sent. Then the sending direction is ended.
    Closing(CloseReason),
    /// The sending direction has ended. Input is discarded until the client closes too or the time is over, so that no
    /// reset destroys what the client has not read yet (RFC 9293, 3.10.4; RFC 1122, 4.2.2.13).
    Lingering(CloseReason, Tick),
}

/// How far the shutdown has come for one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// The server runs.
    NotDue,
    /// The server drains. So many bytes had arrived when that began, and are still to be received and answered.
    AfterInput(u32),
    /// All that had arrived is answered, the last reply a moment ago. The client gets the notice then.
    At(Tick),
    /// The client has had the notice, or the service has decided to keep it.
    Given,
}

/// Which readiness a parked connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    Input,
    Output,
    /// Only for its deadline.
    Nothing,
}

/// What an attempt to receive found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    Bytes,
    Nothing,
    End,
}

/// An accepted client that has no connection yet.
#[derive(Debug)]
pub(crate) struct Client {
    /// Its part of what its address may have. Before the link, and so dropped before it: a client that sees the close
    /// may connect again at once.
    pub(crate) share: Option<Share>,
    pub(crate) link: Link,
    pub(crate) peer: SocketAddr,
    /// Which of the server's services it gets.
    pub(crate) service: u16,
}

/// One client's connection, as its service sees it.
#[derive(Debug)]
pub struct Connection {
    context: Arc<Context>,
    client: Client,
    session: u16,
    input: Input,
    output: Output,
    pub(crate) stage: Stage,
    pub(crate) notice: Notice,
    /// True while the kernel may have input that was not received yet.
    pub(crate) readable: bool,
    /// The poller has seen the end of input, or urgent data: a short count does not say that nothing more has arrived.
    pub(crate) hung_up: bool,
    /// The service has seen the input and took nothing of it.
    pub(crate) needs_input: bool,
    /// The deadline has passed, but bytes had come before. The service looks at them once.
    pub(crate) is_overdue: bool,
    /// What the poller watches the socket for, once it knows it.
    pub(crate) watched: Option<Interest>,
    /// The clock, as it was last read for this connection.
    now: Tick,
    /// When a byte last came in or went out.
    active: Tick,
    /// When the first byte of the request in hand arrived.
    request: Option<Tick>,
    /// When a byte last went out, however long ago that is.
    sent: Option<Tick>,
}

impl Connection {
    pub(crate) fn new(context: Arc<Context>, client: Client, session: u16) -> Connection {
        let now = context.clock.now();
        Connection {
            context,
            client,
            session,
            input: Input::new(BytesMut::new()),
            output: Output::new(BytesMut::new()),
            stage: Stage::New,
            notice: Notice::NotDue,
            readable: false,
            hung_up: false,
            needs_input: true,
            is_overdue: false,
            watched: None,
            now,
            active: now,
            request: None,
            sent: None,
        }
    }

    /// The client's address.
    pub fn peer(&self) -> SocketAddr {
        self.client.peer
    }

    /// What has arrived.
    pub fn input(&mut self) -> &mut Input {
        &mut self.input
    }

    /// What is to be sent.
    pub fn output(&mut self) -> &mut Output {
        &mut self.output
    }

    /// Both buffers at once, to answer from what has arrived without a copy of it.
    pub fn split(&mut self) -> (&mut Input, &mut Output) {
        (&mut self.input, &mut self.output)
    }

    /// True once the server is shutting down.
    pub fn is_draining(&self) -> bool {
        self.context.is_draining()
    }

    /// Which of its service's sessions is its own.
    pub(crate) fn session(&self) -> usize {
        self.session.into()
    }

    pub(crate) fn service(&self) -> usize {
        self.client.service.into()
    }

    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    /// The socket, for a poller. In tests there may be none.
    pub(crate) fn socket(&self) -> Option<&TcpStream> {
        self.client.link.socket()
    }

    /// The memory of both buffers.
    pub(crate) fn blocks(&mut self) -> [&mut BytesMut; 2] {
        [self.input.block(), self.output.block()]
    }

    /// Takes the memory of those buffers that are empty.
    pub(crate) fn take_empty_blocks(&mut self) -> [BytesMut; 2] {
        let take =
            |is_empty: bool, block: &mut BytesMut| if is_empty { std::mem::take(block) } else { BytesMut::new() };
        [take(self.input.is_empty(), self.input.block()), take(self.output.is_empty(), self.output.block())]
    }

    /// Forgets what is in the buffers.
    pub(crate) fn clear_buffers(&mut self) {
        self.input.reset();
        self.output.reset();
    }

    /// Reads the clock.
    pub(crate) fn tick(&mut self) -> Tick {
        self.now = self.context.clock.now();
        self.now
    }

    /// Receives once into the free part of the input buffer.
    pub(crate) fn receive(&mut self) -> io::Result<Received> {
        let space = self.input.space();
        if space.is_empty() {
            return Ok(Received::Bytes);
        }
        let room = match self.notice {
            Notice::NotDue | Notice::Given => space.len(),
            Notice::AfterInput(pending) => space.len().min(pending as usize),
            Notice::At(_) => return Ok(Received::Nothing),
        };
        if room == 0 {
            // All that had arrived is received. The end of input may be behind it, or what is discarded in the end.
            return if self.client.link.transport().has_ended()? {
                Ok(self.end_input())
            } else {
                Ok(Received::Nothing)
            };
        }
        let received = self.client.link.transport().receive(&mut space[..room])?;
        // A short count means that the kernel's buffer is empty (epoll(7)).
        self.readable = received == Some(room);
        match received {
            None => Ok(Received::Nothing),
            Some(0) => Ok(self.end_input()),
            Some(count) => {
                self.input.filled(count);
                if let Notice::AfterInput(pending) = &mut self.notice {
                    *pending = pending.saturating_sub(count as u32);
                }
                // The end of input, or what follows urgent data, is behind it.
                self.readable |= self.hung_up;
                self.needs_input = false;
                self.active = self.tick();
                self.request.get_or_insert(self.active);
                Ok(Received::Bytes)
            }
        }
    }

    fn end_input(&mut self) -> Received {
        self.input.end();
        Received::End
    }

    /// The server drains: from here on only what has arrived by now is received.
    pub(crate) fn limit_input(&mut self) {
        let pending = self.client.link.transport().pending();
        (self.notice, self.readable) = (Notice::AfterInput(pending), true);
    }

    /// Receives once and forgets what came, also what came after the drain began: left unread, it would make the close
    /// a reset.
    pub(crate) fn discard(&mut self) -> io::Result<Received> {
        self.notice = Notice::Given;
        self.input.reset();
        let received = self.receive();
        self.input.reset();
        received
    }

    /// Sends what the kernel takes. True when nothing is left. The clock must have been read since the last wait.
    pub(crate) fn flush(&mut self) -> io::Result<bool> {
        while !self.output.is_empty() {
            let Some(count) = self.client.link.transport().send(self.output.bytes())? else { return Ok(false) };
            self.output.sent(count);
            self.active = self.now;
            self.sent = Some(self.now);
        }
        Ok(true)
    }

    /// Ends the sending direction: the client reads the end of input after what was sent.
    pub(crate) fn finish_sending(&mut self) -> io::Result<()> {
        self.client.link.transport().finish_sending()
    }

    /// Makes the close a reset: the client does not read what is still in the kernel's buffer, so it shall not stay.
    pub(crate) fn abort(&mut self) {
        self.client.link.transport().abort();
    }

    /// The service has taken input or given output: the next request's time starts with its first byte.
    pub(crate) fn start_next_request(&mut self) {
        self.request = (!self.input.is_empty()).then_some(self.active);
        self.is_overdue = false;
    }

    /// When the notice may follow what was last sent, if that is not yet.
    pub(crate) fn quiet_until(&mut self) -> Option<Tick> {
        let until = self.sent?.after(NOTICE_GAP);
        let left = until.until(self.tick());
        // Where more is left, the time of the last reply lies so far in the past that it looks like the future.
        (!left.is_zero() && left <= 2 * NOTICE_GAP).then_some(until)
    }

    pub(crate) fn mark_notified(&mut self) {
        self.notice = Notice::Given;
        self.context.count_notice();
    }

    /// The reason that the close was begun for.
    pub(crate) fn planned_end(&mut self) -> CloseReason {
        match std::mem::replace(&mut self.stage, Stage::Serving) {
            Stage::Closing(reason) | Stage::Lingering(reason, _) => reason,
            Stage::New | Stage::Serving => CloseReason::Finished,
        }
    }

    /// What the client must do next.
    pub(crate) fn wait(&self) -> Wait {
        match (self.output.is_empty(), self.request) {
            (false, _) => Wait::Write,
            (true, Some(_)) => Wait::Request,
            (true, None) => Wait::Idle,
        }
    }

    /// Which readiness it waits for.
    pub(crate) fn interest(&self) -> Interest {
        match (self.notice, self.output.is_empty()) {
            (Notice::At(_), _) => Interest::Nothing,
            (_, true) => Interest::Input,
            (_, false) => Interest::Output,
        }
    }

    /// True while something is to be sent, and so nothing is received.
    pub(crate) fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// True when it waits for the first byte of a request.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.stage, Stage::Serving) && self.wait() == Wait::Idle
    }

    /// When the wait ends. A client that has had the notice has until the end of the grace time.
    pub(crate) fn deadline(&self) -> Option<Tick> {
        match (&self.stage, self.notice) {
            (Stage::Lingering(CloseReason::Shutdown, _), _) => None,
            (Stage::Lingering(_, until), _) => Some(*until),
            (_, Notice::At(tick)) => Some(tick),
            _ => Some(self.wait_ends()),
        }
    }

    fn wait_ends(&self) -> Tick {
        let (wait, request) = (self.wait(), self.request.unwrap_or(self.active));
        let since = if wait == Wait::Request { request } else { self.active };
        since.after(self.timeout(wait).unwrap_or(RENEWAL))
    }

    /// How long it may wait; `None` where that timeout is switched off.
    pub(crate) fn timeout(&self, wait: Wait) -> Option<Duration> {
        let limits = &self.context.limits;
        let timeout = match wait {
            Wait::Idle => limits.idle_timeout,
            Wait::Request => limits.request_timeout,
            Wait::Write => limits.write_timeout,
        };
        (!timeout.is_zero()).then_some(timeout)
    }

    /// Lets a wait begin anew.
    pub(crate) fn renew(&mut self) {
        self.active = self.now;
        self.request = self.request.map(|_| self.now);
    }

    /// Blocks a stream handler until its client does what is waited for or, when that is input, until the server
    /// drains. At the end of the grace time no output is waited for.
    ///
    /// # Errors
    /// `TimedOut` when nothing has happened within `limit`, and `ConnectionAborted` at the end of the grace time.
    pub(crate) fn block(&mut self, interest: Interest, limit: Option<Duration>) -> io::Result<()> {
        self.context.streaming.count_transfer();
        self.context.streaming.start_wait();
        let outcome = self.block_until(interest, limit.map(|limit| Instant::now() + limit));
        self.context.streaming.end_wait();
        self.tick();
        outcome
    }

    fn block_until(&self, interest: Interest, deadline: Option<Instant>) -> io::Result<()> {
        let Some(socket) = self.client.link.socket() else { return Err(io::ErrorKind::TimedOut.into()) };
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let (events, also) = match interest {
                Interest::Output => (PollFlags::POLLOUT, &self.context.force_close),
                Interest::Input | Interest::Nothing => (PollFlags::POLLIN, &self.context.drain),
            };
            let mut fds = [PollFd::new(socket.as_fd(), events), PollFd::new(also.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, poll_timeout(left)) {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) if fds[0].any() == Some(false) && interest == Interest::Output => {
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
                Ok(_) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
