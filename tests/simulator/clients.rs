//! The clients: what each will send, how it reads, how it leaves, and what it must get for that.

use std::net::SocketAddr;

use crate::dice::Dice;
use crate::kernel::MS;
use crate::scenario::Scenario;
use crate::services::{GREETING, Kind, reply};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    /// At once, whatever comes.
    All,
    Slowly,
    Never,
}

/// How a client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sends {
    /// A request, then the reply, then the next.
    Asks,
    /// As much as there is room for.
    Pipelines,
    /// A byte or a few at a time.
    Trickles,
}

/// What a client does once it has sent everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaves {
    HalfCloses,
    Closes,
    Resets,
    /// It says nothing more, and keeps its connection.
    Stays,
}

#[derive(Debug)]
pub(crate) struct Request {
    /// Where it ends in the client's bytes.
    pub(crate) end: usize,
    pub(crate) reply: Vec<u8>,
    pub(crate) executed: bool,
    /// When its last byte had arrived.
    pub(crate) arrived: Option<u64>,
    /// No request after this one is executed, because this one ends the connection.
    pub(crate) is_last: bool,
    /// The end of input ends it.
    pub(crate) is_tail: bool,
}

/// How far the server's bytes have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// This reply, up to there.
    Reply(usize, usize),
    Notice(usize),
    Busy(usize),
    TooLong(usize),
    /// After the notice, or another text that ends the connection.
    All,
}

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) kind: Kind,
    pub(crate) sends: Sends,
    pub(crate) reads: Reads,
    pub(crate) leaves: Leaves,
    /// Everything that it will send.
    pub(crate) bytes: Vec<u8>,
    pub(crate) cut: usize,
    pub(crate) requests: Vec<Request>,
    pub(crate) sent: Sent,
    /// When the last byte of that was sent.
    pub(crate) replied: Option<u64>,
    /// When it does something again.
    pub(crate) next: u64,
    /// How long it thinks, in milliseconds, at most.
    think: u64,
    /// It has closed its socket: what is sent to it now is answered by a reset.
    pub(crate) is_gone: bool,
    pub(crate) has_left: bool,
    /// The server has admitted it.
    pub(crate) started: Option<u64>,
    /// The server has logged its end.
    pub(crate) ended: bool,
    /// It has had its notice, or a part of it.
    pub(crate) is_noticed: bool,
    /// For a reason that leaves no time for a notice.
    pub(crate) is_excused: bool,
    /// The service works on its request, since or until.
    pub(crate) waiting: Option<u64>,
    pub(crate) waited: u64,
    /// When the service was last called for it.
    pub(crate) called: u64,
    /// Since when the server has the first byte of a request without its end.
    pub(crate) partial: Option<u64>,
}

const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz";

fn letters(dice: &mut Dice, most: u64) -> String {
    let count = dice.within(0..most);
    (0..count).map(|_| char::from(dice.pick(LETTERS))).collect()
}

impl Client {
    pub(crate) fn new(number: usize, kind: Kind, scenario: &Scenario, dice: &mut Dice, now: u64) -> Client {
        let mut client = Client {
            kind,
            sends: dice.pick(&[Sends::Asks, Sends::Asks, Sends::Pipelines, Sends::Pipelines, Sends::Trickles]),
            reads: dice.pick(&[Reads::All, Reads::All, Reads::All, Reads::Slowly, Reads::Never]),
            leaves: dice.pick(&[
                Leaves::HalfCloses,
                Leaves::HalfCloses,
                Leaves::Closes,
                Leaves::Resets,
                Leaves::Stays,
                Leaves::Stays,
            ]),
            bytes: vec![],
            cut: 0,
            requests: vec![],
            sent: Sent::Reply(0, 0),
            replied: None,
            next: now,
            think: scenario.think(dice),
            is_gone: false,
            has_left: false,
            started: None,
            ended: false,
            is_noticed: false,
            is_excused: false,
            waiting: None,
            waited: now,
            called: now,
            partial: None,
        };
        if let Kind::Own { .. } = kind {
            client.requests.push(Request {
                end: 0,
                reply: GREETING.to_vec(),
                executed: true,
                arrived: None,
                is_last: false,
                is_tail: false,
            });
        }
        let count = dice.pick(&[0, 1, 1, 2, 5, 12, if scenario.floods { 150 } else { 3 }]);
        for _ in 0..count {
            client.add_request(number, scenario, dice);
        }
        if kind != Kind::Echo && dice.once_in(4) {
            // A line without an end: a request only if the client ends its sending direction behind it.
            let sequence = client.requests.len();
            client.bytes.extend(format!("e{number}.{sequence}.tail").as_bytes());
            let (end, reply) = (client.bytes.len(), reply(sequence, "tail"));
            let request = Request { end, reply, executed: false, arrived: None, is_last: false, is_tail: true };
            client.requests.push(request);
        }
        client
    }

    fn add_request(&mut self, number: usize, scenario: &Scenario, dice: &mut Dice) {
        let sequence = self.requests.len();
        if self.kind == Kind::Echo {
            let text = letters(dice, 30) + "z";
            self.bytes.extend(text.as_bytes());
            let (end, reply) = (self.bytes.len(), text.into_bytes());
            self.requests.push(Request { end, reply, executed: false, arrived: None, is_last: false, is_tail: false });
            return;
        }
        let verb = match dice.index(40) {
            0 => 'p',
            1 => 'f',
            2 | 3 => 'q',
            4 if self.kind == Kind::Lines => 'x',
            5..9 if scenario.may_block() => 'w',
            _ => 'e',
        };
        let rest = match verb {
            'w' => scenario.service_time(dice).to_string(),
            'x' => "x".repeat(scenario.buffer + 8),
            'e' if dice.once_in(4) => "y".repeat(scenario.buffer.min(200) - 12),
            _ => letters(dice, 20),
        };
        self.bytes.extend(format!("{verb}{number}.{sequence}.{rest}\n").as_bytes());
        let reply = match verb {
            'p' | 'f' | 'x' => vec![],
            _ => reply(sequence, &rest),
        };
        let is_last = matches!(verb, 'p' | 'f' | 'q' | 'x');
        self.requests.push(Request {
            end: self.bytes.len(),
            reply,
            executed: false,
            arrived: None,
            is_last,
            is_tail: false,
        });
    }

    pub(crate) fn thinks(&mut self, dice: &mut Dice, now: u64) {
        self.next = now + dice.within(0..self.think * MS + 1);
    }

    /// What it sends next; nothing while it waits for a reply.
    pub(crate) fn chunk(&self, dice: &mut Dice) -> &[u8] {
        let left = &self.bytes[self.cut..];
        let request = self.requests.iter().find(|request| request.end > self.cut);
        let to_end = request.map_or(left.len(), |request| request.end - self.cut);
        let length = match self.sends {
            Sends::Asks if !self.has_all_replies() => 0,
            Sends::Asks => to_end,
            Sends::Pipelines => left.len(),
            Sends::Trickles => left.len().min(1 + dice.index(4)),
        };
        &left[..length]
    }

    fn has_all_replies(&self) -> bool {
        let asked = self.requests.iter().filter(|request| request.end <= self.cut).count();
        !matches!(self.sent, Sent::Reply(index, _) if index < asked)
    }

    /// It has had a request executed that ends its connection.
    pub(crate) fn is_over(&self) -> bool {
        self.requests.iter().any(|request| request.is_last && (request.executed || request.reply.is_empty()))
    }

    /// One of its requests begins so.
    pub(crate) fn ends_by(&self, verb: u8) -> bool {
        self.bytes.split(|byte| *byte == b'\n').any(|line| line.first() == Some(&verb))
    }

    /// Where the request begins that lies at a place of its bytes.
    pub(crate) fn is_boundary(&self, at: usize) -> bool {
        at == 0 || self.requests.iter().any(|request| request.end == at && !request.is_tail)
    }
}

/// One of few addresses, with a port of its own.
pub(crate) fn peer(number: usize, dice: &mut Dice) -> SocketAddr {
    let host = dice.pick(&[1, 1, 2, 3]);
    ([10, 0, 0, host], 1_024 + number as u16).into()
}
