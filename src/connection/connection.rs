//! One connection: its socket, its two buffers, its stage, and what it waits for.
//!
//! Bytes come in with [`Connection::fill`] and go out with [`Connection::flush`]; neither ever waits
//! (`MSG_DONTWAIT`; the socket itself stays in blocking mode, which saves a system call per accept). What a
//! connection may not do is decide: the engine drives it from stage to stage.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::{Linger, RcvBuf};
use nix::sys::socket::{MsgFlags, getsockopt, recv, send, setsockopt};

use super::buffer::{Input, Output};
use super::close_reason::{CloseReason, Wait};
use super::context::Context;
use crate::config::NOTICE_GAP;
use crate::sys::Tick;

/// How far a connection has come. It only moves downwards.
#[derive(Debug)]
pub(crate) enum Stage {
    /// Accepted; the service has not seen it.
    New,
    /// The service answers its requests.
    Serving,
    /// The last output is being sent; then the sending side is closed.
    Closing(CloseReason),
    /// The sending side is closed; input is discarded until the client closes too, so that no reset destroys
    /// what it has not read yet (RFC 9293, 3.10.4; RFC 1122, 4.2.2.13).
    Lingering(CloseReason, Tick),
}

/// Which readiness the poller reports for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    Input,
    Output,
}

/// What an attempt to receive found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fill {
    Bytes,
    Nothing,
    Ended,
}

/// One client's connection, as its service sees it.
#[derive(Debug)]
pub struct Connection {
    context: Arc<Context>,
    link: Option<Link>,
    input: Input,
    output: Output,
    pub(crate) stage: Stage,
    /// True while the kernel may have input that was not received yet.
    pub(crate) readable: bool,
    /// True when the service has seen the input and took nothing: it wants more.
    pub(crate) hungry: bool,
    /// The deadline of the request has passed, but bytes of it had come before. The service looks at them once.
    pub(crate) is_overdue: bool,
    /// The interest that the poller has, if it knows the socket.
    pub(crate) registered: Option<Interest>,
    /// True once the client had its shutdown notice, or a service decided to keep it.
    pub(crate) notified: bool,
    /// The notice waits until then: a reply has just been sent.
    pub(crate) settles: Option<Tick>,
    /// How often it has waited so.
    pub(crate) gaps: u8,
    /// The last time a byte came in or went out.
    active: Tick,
    /// When the first byte of the request in hand arrived.
    request: Option<Tick>,
    sent: Option<Tick>,
    /// Once the server drains: bytes that may have arrived before, and are still to be received.
    owed: Option<usize>,
}

#[derive(Debug)]
struct Link {
    socket: TcpStream,
    peer: SocketAddr,
    service: usize,
}

impl Connection {
    pub(crate) fn new(context: Arc<Context>, input: BytesMut, output: BytesMut) -> Connection {
        let active = context.clock.now();
        Connection {
            context,
            link: None,
            input: Input::new(input),
            output: Output::new(output),
            stage: Stage::New,
            readable: false,
            hungry: true,
            is_overdue: false,
            registered: None,
            notified: false,
            settles: None,
            gaps: 0,
            active,
            request: None,
            sent: None,
            owed: None,
        }
    }

    /// The memory of both buffers, which the engine lends and takes back.
    pub(crate) fn blocks(&mut self) -> [&mut BytesMut; 2] {
        [self.input.block(), self.output.block()]
    }

    /// Takes out the memory of those buffers that are empty.
    pub(crate) fn spare_blocks(&mut self) -> [Option<BytesMut>; 2] {
        let input = self.input.is_empty().then(|| std::mem::take(self.input.block()));
        let output = self.output.is_empty().then(|| std::mem::take(self.output.block()));
        [input, output]
    }

    /// The client's address.
    pub fn peer(&self) -> SocketAddr {
        self.link().peer
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

    /// True when the client will send nothing more.
    pub(crate) fn has_ended(&self) -> bool {
        self.input.has_ended()
    }

    /// Takes over a freshly accepted socket.
    pub(crate) fn start(&mut self, socket: TcpStream, peer: SocketAddr, service: usize) {
        self.link = Some(Link { socket, peer, service });
        self.input.reset();
        self.output.reset();
        self.stage = Stage::New;
        (self.readable, self.hungry, self.notified) = (false, true, false);
        self.is_overdue = false;
        (self.registered, self.settles, self.request) = (None, None, None);
        (self.sent, self.owed, self.gaps) = (None, None, 0);
        self.active = self.context.clock.now();
    }

    /// Gives the socket back, to be closed, and forgets what is in the buffers.
    pub(crate) fn end(&mut self) -> Option<TcpStream> {
        self.input.reset();
        self.output.reset();
        self.link.take().map(|link| link.socket)
    }

    pub(crate) fn service(&self) -> usize {
        self.link().service
    }

    /// Receives once into the free part of the input buffer.
    pub(crate) fn fill(&mut self) -> io::Result<Fill> {
        let fd = self.as_fd().as_raw_fd();
        let owed = self.owed();
        let space = self.input.space();
        if space.is_empty() {
            return Ok(Fill::Bytes);
        }
        let room = space.len().min(owed);
        let received = if room == 0 { None } else { receive(fd, &mut space[..room])? };
        // A short count means that the kernel's buffer is empty (epoll(7)).
        self.readable = received == Some(room);
        match received {
            None => Ok(Fill::Nothing),
            Some(0) => {
                self.input.end();
                Ok(Fill::Ended)
            }
            Some(count) => {
                self.hungry = false;
                self.owed = self.owed.map(|owed| owed.saturating_sub(count));
                self.input.filled(count);
                self.active = self.context.clock.now();
                self.request.get_or_insert(self.active);
                // A tick that is kept must not grow so old that it looks like the future. A client that sends nothing is
                // closed long before.
                self.sent = self.sent.filter(|sent| !sent.after(NOTICE_GAP).reached(self.active));
                Ok(Fill::Bytes)
            }
        }
    }

    /// How much may still be received. What had arrived when the shutdown began is served, and the kernel can
    /// hold no more of that than its buffer; a client that never stops sending must not put off its notice.
    fn owed(&mut self) -> usize {
        if !self.is_draining() || self.notified || !matches!(self.stage, Stage::Serving) {
            return usize::MAX;
        }
        let socket = self.link.as_ref().map(|link| link.socket.as_fd());
        let held = || socket.and_then(|socket| getsockopt(&socket, RcvBuf).ok()).unwrap_or(0);
        *self.owed.get_or_insert_with(held)
    }

    /// Receives once and forgets what came.
    pub(crate) fn discard(&mut self) -> io::Result<Fill> {
        self.input.reset();
        let filled = self.fill();
        self.input.reset();
        filled
    }

    /// Sends what the kernel takes. True when nothing is left.
    pub(crate) fn flush(&mut self) -> io::Result<bool> {
        while !self.output.is_empty() {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            match send(self.as_fd().as_raw_fd(), self.output.bytes(), flags) {
                Ok(count) => {
                    self.output.sent(count);
                    self.active = self.context.clock.now();
                    self.sent = Some(self.active);
                }
                Err(Errno::EAGAIN) => return Ok(false),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// The service has taken input or given output: the next request's time starts with its first byte.
    pub(crate) fn request_answered(&mut self) {
        self.request = (!self.input.is_empty()).then_some(self.active);
        self.is_overdue = false;
    }

    pub(crate) fn awaits_reply(&self) -> Option<Tick> {
        self.request
    }

    /// When something was last sent.
    pub(crate) fn last_sent(&self) -> Option<Tick> {
        self.sent
    }

    /// A stream handler has received or sent.
    pub(crate) fn moved(&self) {
        self.context.streaming.moved();
    }

    pub(crate) fn mark_notified(&mut self) {
        self.notified = true;
        self.context.count_notice();
    }

    /// The reason that was settled on when the closing began.
    pub(crate) fn planned_end(&mut self) -> CloseReason {
        match std::mem::replace(&mut self.stage, Stage::New) {
            Stage::Closing(reason) | Stage::Lingering(reason, _) => reason,
            Stage::New | Stage::Serving => CloseReason::Finished,
        }
    }

    /// True while something is to be sent, and so nothing to be received.
    pub(crate) fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// What it is waiting for.
    pub(crate) fn wait(&self) -> Wait {
        match (self.output.is_empty(), self.request) {
            (false, _) => Wait::Write,
            (true, Some(_)) => Wait::Request,
            (true, None) => Wait::Idle,
        }
    }

    /// When the wait ends, if it has an end: a client that had the notice has until the end of the grace time.
    pub(crate) fn deadline(&self) -> Option<Tick> {
        match (&self.stage, self.settles) {
            (Stage::Lingering(CloseReason::Shutdown, _), _) => None,
            (Stage::Lingering(_, until), _) => Some(*until),
            (_, Some(settles)) => Some(settles),
            _ => Some(self.deadline_of(self.wait())),
        }
    }

    fn deadline_of(&self, wait: Wait) -> Tick {
        let limits = &self.context.limits;
        match wait {
            Wait::Idle => self.active.after(limits.idle_timeout),
            Wait::Request => self.request.unwrap_or(self.active).after(limits.request_timeout),
            Wait::Write => self.active.after(limits.write_timeout),
        }
    }

    /// Blocks until the socket is ready for what is waited for, or, when it is input, the server drains.
    ///
    /// # Errors
    /// `TimedOut` when the deadline comes first.
    pub(crate) fn block(&self, wait: Wait) -> io::Result<()> {
        let deadline = self.deadline_of(wait);
        let _waiting = self.context.streaming.wait();
        loop {
            let left = deadline.until(self.context.clock.now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let events = if wait == Wait::Write { PollFlags::POLLOUT } else { PollFlags::POLLIN };
            let socket = PollFd::new(self.as_fd(), events);
            let drain = PollFd::new(self.context.drain.as_fd(), PollFlags::POLLIN);
            let mut fds = [socket, drain];
            let watched = if wait == Wait::Write { &mut fds[..1] } else { &mut fds[..] };
            match poll(watched, poll_timeout(Some(left))) {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Closes the sending side: the client reads the end of input after what was sent.
    pub(crate) fn finish_sending(&self) -> io::Result<()> {
        match self.link().socket.shutdown(Shutdown::Write) {
            // It is gone already.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            other => other,
        }
    }

    /// Makes the close a reset: the client does not read what is still in the kernel's buffer, so it shall not stay there.
    pub(crate) fn abort(&self) {
        let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        let _ = setsockopt(&self.as_fd(), Linger, &linger);
    }

    #[allow(clippy::expect_used)] // Only an owner of an occupied slot holds a connection; `start` set the link.
    fn link(&self) -> &Link {
        self.link.as_ref().expect("the connection is open")
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.link().socket.as_fd()
    }
}

/// One `recv(2)` that does not wait; `None` when there is nothing.
fn receive(fd: i32, space: &mut [u8]) -> io::Result<Option<usize>> {
    loop {
        match recv(fd, space, MsgFlags::MSG_DONTWAIT) {
            Ok(count) => return Ok(Some(count)),
            Err(Errno::EAGAIN) => return Ok(None),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A wait as `poll(2)` takes it: rounded up to milliseconds, so that it never wakes early and spins, and
/// clamped to what an `int` holds.
pub(crate) fn poll_timeout(wait: Option<Duration>) -> PollTimeout {
    let Some(wait) = wait else { return PollTimeout::NONE };
    // Not by way of nanoseconds in 128 bits, whose division is slow on a 32-bit processor and takes flash.
    let part = u64::from(wait.subsec_nanos().div_ceil(1_000_000));
    let millis = wait.as_secs().saturating_mul(1_000).saturating_add(part);
    i32::try_from(millis).ok().and_then(|millis| PollTimeout::try_from(millis).ok()).unwrap_or(PollTimeout::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;
    use std::io::Write;
    use std::net::TcpListener;

    #[test]
    fn a_poll_never_ends_early_and_never_overflows() {
        assert_eq!(poll_timeout(None), PollTimeout::NONE);
        assert_eq!(poll_timeout(Some(Duration::ZERO)), PollTimeout::ZERO);
        assert_eq!(poll_timeout(Some(Duration::new(1, 1))), PollTimeout::from(1_001_u16));
        assert_eq!(poll_timeout(Some(Duration::MAX)), PollTimeout::MAX);
    }

    /// The time of the last reply keeps the notice apart from it. Once that is long over it is forgotten, for half of the
    /// clock's range later it would put the notice off for days.
    #[test]
    fn the_time_of_a_reply_is_forgotten_when_input_comes_later() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, peer) = listener.accept().unwrap();
        let context = Arc::new(Context::new(Limits::default(), false).unwrap());
        let mut connection = Connection::new(context.clone(), BytesMut::zeroed(64), BytesMut::zeroed(64));
        connection.start(socket, peer, 0);
        let now = Tick::to_raw(Some(context.clock.now()));
        // Just now, as far as the next lines can be from it; and a second ago.
        for (sent, kept) in [(now.wrapping_add(60_000), true), (now.wrapping_sub(1_000), false)] {
            connection.sent = Tick::from_raw(sent);
            client.write_all(b"x").unwrap();
            let mut fds = [PollFd::new(connection.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::NONE).unwrap();
            assert_eq!(connection.fill().unwrap(), Fill::Bytes);
            assert_eq!(connection.last_sent().is_some(), kept);
        }
    }
}
