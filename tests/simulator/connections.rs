//! One TCP connection as its kernel sees it, and what the oracles must know of it.

use std::collections::VecDeque;
use std::net::SocketAddr;

use nix::libc;

use crate::dice::Dice;
use crate::kernel::Outcome;

/// A connection by its place in the list of all that there were.
pub(crate) type Id = usize;

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) peer: SocketAddr,
    /// The server's descriptor, from the accept to the close.
    pub(crate) fd: Option<i32>,
    pub(crate) connected: u64,
    /// Bytes that have arrived and were not received.
    input: VecDeque<u8>,
    input_room: usize,
    input_ends: bool,
    /// The urgent mark: so many bytes of the input lie before it.
    urgent: Option<usize>,
    pub(crate) was_urgent: bool,
    /// Bytes that were sent and the client has not read.
    output: VecDeque<u8>,
    output_room: usize,
    /// The server has ended its sending direction.
    pub(crate) sending_ended: Option<u64>,
    pub(crate) is_reset: bool,
    /// A send has found no room since there was some.
    pub(crate) wants_room: bool,
    pub(crate) closed: Option<u64>,
    aborts: bool,
    /// Sent and never read: the server's close or the client's reset destroyed it.
    pub(crate) lost: usize,

    /// Bytes that have arrived, and that were received, in all.
    pub(crate) arrived: usize,
    pub(crate) received: usize,
    /// When a byte was last received or sent.
    pub(crate) active: u64,
    /// When a byte was last sent.
    pub(crate) sent: Option<u64>,
    /// The count of turns when an epoll instance first knew of what was not received since.
    pub(crate) noticed: Option<u64>,
    /// An empty receive buffer was seen after everything that has arrived.
    pub(crate) saw_all: bool,
}

impl Connection {
    pub(crate) fn new(peer: SocketAddr, now: u64, dice: &mut Dice) -> Connection {
        Connection {
            peer,
            fd: None,
            connected: now,
            input: VecDeque::new(),
            input_room: dice.pick(&[16, 64, 300, 4_096]),
            input_ends: false,
            urgent: None,
            was_urgent: false,
            output: VecDeque::new(),
            output_room: dice.pick(&[8, 40, 300, 4_096]),
            sending_ended: None,
            is_reset: false,
            wants_room: false,
            closed: None,
            aborts: false,
            lost: 0,
            arrived: 0,
            received: 0,
            active: now,
            sent: None,
            noticed: None,
            saw_all: false,
        }
    }

    pub(crate) fn accepted(&mut self, fd: i32, now: u64) {
        (self.fd, self.active) = (Some(fd), now);
    }

    pub(crate) fn is_readable(&self) -> bool {
        !self.input.is_empty() || self.input_ends || self.is_reset
    }

    /// tcp(7) and sk_stream_is_writeable: a third must be free.
    pub(crate) fn is_writable(&self) -> bool {
        self.output.len() * 3 <= self.output_room * 2 || self.is_reset
    }

    pub(crate) fn input_has_ended(&self) -> bool {
        self.input_ends
    }

    pub(crate) fn has_urgent(&self) -> bool {
        self.urgent.is_some()
    }

    /// Bytes that have arrived and were not received.
    pub(crate) fn pending(&self) -> usize {
        self.input.len()
    }

    /// What FIONREAD says of them: those before the urgent mark (tcp_inq in the kernel's source).
    pub(crate) fn announced(&self) -> usize {
        self.urgent.unwrap_or(self.input.len())
    }

    pub(crate) fn unread(&self) -> usize {
        self.output.len()
    }

    pub(crate) fn is_open(&self) -> bool {
        self.fd.is_some()
    }

    /// Takes as many bytes as there is room for.
    pub(crate) fn arrive(&mut self, bytes: &[u8]) -> usize {
        if self.is_reset || self.input_ends || self.closed.is_some() {
            return 0;
        }
        let count = bytes.len().min(self.input_room - self.input.len());
        self.input.extend(&bytes[..count]);
        self.arrived += count;
        self.saw_all &= count == 0;
        count
    }

    /// Out-of-band data, one byte of it: it is no part of the stream, and marks its place there (tcp(7)).
    pub(crate) fn arrive_urgent(&mut self, _byte: u8) {
        if !self.is_reset && !self.input_ends && self.closed.is_none() {
            self.urgent = Some(self.input.len());
            self.was_urgent = true;
        }
    }

    pub(crate) fn end_input(&mut self) {
        self.input_ends = true;
        self.saw_all = false;
    }

    pub(crate) fn reset(&mut self, _now: u64) {
        self.is_reset = true;
        self.lost += self.output.len();
        self.output.clear();
        self.input.clear();
        self.urgent = None;
    }

    pub(crate) fn end_sending(&mut self, now: u64) {
        self.sending_ended.get_or_insert(now);
    }

    pub(crate) fn set_aborting(&mut self) {
        self.aborts = true;
    }

    /// A close with unread input, or with the option to abort, resets the connection.
    pub(crate) fn close(&mut self, now: u64) {
        self.fd = None;
        self.closed = Some(now);
        self.end_sending(now);
        if self.aborts || !self.input.is_empty() {
            self.reset(now);
        }
    }

    /// One recv(2) with MSG_DONTWAIT.
    pub(crate) fn receive(&mut self, into: &mut [u8], peeks: bool, now: u64) -> Outcome {
        if self.is_reset {
            return Err(libc::ECONNRESET);
        }
        if self.input.is_empty() {
            self.saw_all = true;
            self.urgent = None;
            return if self.input_ends { Ok(0) } else { Err(libc::EAGAIN) };
        }
        // A receive stops before the urgent mark.
        let end = match self.urgent {
            Some(0) | None => self.input.len(),
            Some(mark) => mark,
        };
        let count = end.min(into.len());
        for (place, byte) in into.iter_mut().zip(&self.input) {
            *place = *byte;
        }
        if peeks {
            return Ok(count);
        }
        self.input.drain(..count);
        // The mark stays until a receive has passed it.
        self.urgent = self.urgent.filter(|mark| *mark > 0).map(|mark| mark - count);
        self.received += count;
        self.active = now;
        Ok(count)
    }

    /// One send(2) with MSG_DONTWAIT. Says how much of it was taken.
    pub(crate) fn send(&mut self, bytes: &[u8], now: u64) -> Outcome {
        if self.is_reset {
            return Err(libc::ECONNRESET);
        }
        if self.sending_ended.is_some() {
            return Err(libc::EPIPE);
        }
        let count = bytes.len().min(self.output_room - self.output.len());
        self.wants_room = count < bytes.len();
        if count == 0 {
            return Err(libc::EAGAIN);
        }
        self.output.extend(&bytes[..count]);
        (self.active, self.sent) = (now, Some(now));
        Ok(count)
    }

    pub(crate) fn client_reads(&mut self, most: usize) -> usize {
        let count = most.min(self.output.len());
        self.output.drain(..count);
        count
    }
}
