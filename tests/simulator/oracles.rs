//! What must hold: at each byte that the server sends, at each line that it logs, while it is idle, and at the end.

use std::net::SocketAddr;
use std::time::Duration;

use lastorders::{Error, Stats, WhenFull};

use crate::clients::{Reads, Request, Sent};
use crate::connections::{Connection, Id};
use crate::kernel::{File, MS, Wait, Waiter};
use crate::schedule::{is_fair, task};
use crate::services::Kind;
use crate::sim::{ACCEPT_LOOP, Sim, fail};

const BUSY: &[u8] = b"BUSY\n";
const TOO_LONG: &[u8] = b"ERROR: line too long\n";
/// Between the last reply and the notice.
const NOTICE_GAP: u64 = 20 * MS;
/// Deadlines are met together, so one may be late by this, and the ticks round up.
const SWEEP: u64 = 53 * MS;
/// What the steps of busy threads may take in all, in simulated time.
const BUSY_TIME: u64 = 100 * MS;
/// Between a thread's look at the clock and its call, other threads may run.
const LATE: u64 = 5 * MS;
/// Turns of other connections that may begin while the leader has its own steps to take.
const TURNS: u64 = 150;
const LINGER: u64 = 2_000 * MS;

fn nanos(time: Duration) -> Option<u64> {
    (!time.is_zero()).then_some(time.as_nanos() as u64)
}

/// While the server runs.
impl Sim {
    fn is_closing(&self) -> bool {
        // A server whose listener has broken takes the first signal for the second.
        let is_hurried = self.kernel.has_broken && self.stops > 0;
        is_hurried || self.closing.is_some_and(|closing| closing <= self.kernel.now)
    }

    /// The server has sent these bytes.
    pub(crate) fn check_sent(&mut self, id: Id, bytes: &[u8]) {
        for byte in bytes {
            let next = self.after_byte(id, *byte);
            let client = &mut self.clients[id];
            client.is_noticed |= matches!(next, Sent::Notice(_));
            if let (Kind::Echo, Sent::Reply(index, _), Sent::Reply(after, _)) = (client.kind, client.sent, next) {
                client.requests[index].executed |= after > index;
            }
            client.sent = next;
        }
        self.clients[id].replied = Some(self.kernel.now);
        if let Sent::Reply(..) = self.clients[id].sent {
            return;
        }
        let sent = self.clients[id].sent;
        self.note(format_args!("connection {id} has been sent {sent:?}"));
    }

    fn after_byte(&mut self, id: Id, byte: u8) -> Sent {
        let (client, now) = (&self.clients[id], self.kernel.now);
        let goes_on = |text: &[u8], at: usize, state: fn(usize) -> Sent| match text.get(at) {
            Some(expected) if *expected == byte => Some(if at + 1 == text.len() { Sent::All } else { state(at + 1) }),
            _ => None,
        };
        let next = match client.sent {
            Sent::Reply(index, at) => match client.requests.get(index) {
                Some(request) if request.reply.get(at) == Some(&byte) && self.is_asked(id, index) => {
                    Some(if at + 1 == request.reply.len() {
                        Sent::Reply(index + 1, 0)
                    } else {
                        Sent::Reply(index, at + 1)
                    })
                }
                _ if byte == b'S' && (at == 0 || self.may_break_off(id)) => {
                    self.check_notice(id, index);
                    goes_on(client.kind.notice(), 0, Sent::Notice)
                }
                // Where clients are shed, the last idle one may stop being idle once the new one was accepted.
                _ if byte == b'B' && index + at == 0 && (client.started.is_none() || self.sheds()) => {
                    goes_on(BUSY, 0, Sent::Busy)
                }
                Some(request) if byte == b'E' && request.is_last => goes_on(TOO_LONG, 0, Sent::TooLong),
                _ => None,
            },
            Sent::Notice(at) => goes_on(client.kind.notice(), at, Sent::Notice),
            Sent::Busy(at) => goes_on(BUSY, at, Sent::Busy),
            Sent::TooLong(at) => goes_on(TOO_LONG, at, Sent::TooLong),
            Sent::All => None,
        };
        let Some(next) = next else {
            let byte = char::from(byte);
            fail(&format!("connection {id} was sent {byte:?} at {:?} ({now})", client.sent));
        };
        // A service that stays goes on after its notice.
        match (client.sent, next) {
            (Sent::Notice(_), Sent::All) if client.kind.stays() => {
                let executed = client.requests.iter().take_while(|request| request.executed).count();
                Sent::Reply(executed, 0)
            }
            _ => next,
        }
    }

    /// The bytes of the echo have no borders, and the end of the grace time ends what a handler is writing.
    fn may_break_off(&self, id: Id) -> bool {
        match self.clients[id].kind {
            Kind::Echo => true,
            Kind::Stream => self.is_closing(),
            Kind::Lines | Kind::Own { .. } => false,
        }
    }

    fn sheds(&self) -> bool {
        self.scenario.limits.when_full == WhenFull::Shed
    }

    /// A reply may only follow its request: executed by a service, or received in whole or part by the echo.
    fn is_asked(&self, id: Id, index: usize) -> bool {
        let request = &self.clients[id].requests[index];
        request.executed || self.clients[id].kind == Kind::Echo
    }

    /// The notice begins, with so many requests answered.
    fn check_notice(&self, id: Id, answered: usize) {
        let (client, connection, now) = (&self.clients[id], &self.kernel.connections[id], self.kernel.now);
        let (Some(told), Some(_)) = (self.told, self.draining) else {
            let is_refused = self.told.is_some() && client.started.is_none();
            return self.expect(self.sheds() || is_refused, || {
                format!("connection {id} gets a notice, and the server was not told to stop")
            });
        };
        self.expect(!client.is_noticed, || format!("connection {id} gets a second notice"));
        if self.is_closing() {
            return;
        }
        if let Some(replied) = client.replied {
            self.expect(now + LATE >= replied + NOTICE_GAP, || {
                format!("connection {id} reads reply and notice in one piece")
            });
        }
        // The kernel does not say how much has arrived behind urgent data.
        if client.started.is_some_and(|started| started < told) && !connection.was_urgent {
            let missed = client.requests[answered..].iter().find(|request| {
                request.arrived.is_some_and(|arrived| arrived < told) && !request.executed && !request.reply.is_empty()
            });
            let was_last = answered > 0 && client.requests[answered - 1].is_last;
            self.expect(missed.is_none() || was_last, || {
                format!("connection {id} gets its notice, and its request {missed:?} had arrived and is not answered")
            });
        }
    }

    /// The server has received so many bytes more.
    pub(crate) fn received(&mut self, id: Id, count: usize) {
        self.kernel.turns += u64::from(self.turned_to.insert(task(), id) != Some(id));
        let (turns, limits) = (self.kernel.turns, &self.scenario.limits);
        // A connection that had its notice, or is about to, need not be received from.
        let is_bound = is_fair() && !self.scenario.may_block() && self.told.is_none();
        let noticed = self.kernel.connections[id].noticed.take().filter(|_| is_bound);
        if let Some(noticed) = noticed {
            // A leader looks at the parked connections once in 32 jobs, and then each waits for those before it.
            let most = TURNS + 4 * (limits.connections + limits.workers) as u64;
            self.expect(turns - noticed <= most, || format!("connection {id} waited for {} turns", turns - noticed));
        }
        let (client, at) = (&mut self.clients[id], self.kernel.connections[id].received);
        let begins = (at - count..at).any(|at| client.is_boundary(at));
        client.partial = match client.kind == Kind::Echo || client.is_boundary(at) {
            true => None,
            false if begins => Some(self.kernel.now),
            false => client.partial,
        };
    }

    /// The service has got a request.
    pub(crate) fn executed(&mut self, id: Id, index: usize) {
        self.note(format_args!("request {index} of connection {id} is executed"));
        let (client, connection) = (&self.clients[id], &self.kernel.connections[id]);
        let stays = client.kind.stays();
        let in_order = client.requests[..index].iter().all(|request| request.executed);
        let request = &client.requests[index];
        self.expect(in_order && !request.executed, || format!("request {index} of connection {id} is out of order"));
        self.expect(connection.received >= request.end, || format!("request {index} of {id} was not received"));
        let after_notice = matches!(client.sent, Sent::Notice(_) | Sent::All);
        self.expect(!after_notice || stays, || format!("request {index} of connection {id} after its notice"));
        self.clients[id].called = self.kernel.now;
        self.clients[id].requests[index].executed = true;
    }

    pub(crate) fn starts_waiting(&mut self, id: Id) {
        self.clients[id].waiting = Some(self.kernel.now);
    }

    pub(crate) fn ends_waiting(&mut self, id: Id) {
        (self.clients[id].waiting, self.clients[id].waited) = (None, self.kernel.now);
        self.note_event();
    }

    /// The server has written a line to its log.
    pub(crate) fn logged(&mut self, line: &str) {
        self.note(format_args!("{line}"));
        if line.contains("panicked in the engine") || line.contains("hook panicked") {
            fail(line);
        }
        if line.starts_with("Server interrupted") {
            self.draining = Some(self.kernel.now);
        }
        if line.contains(", closing server in") && self.told.is_none() {
            self.expect(self.kernel.has_broken, || format!("the server stops by itself: {line}"));
            self.is_told();
        }
        if line.contains(" has its share of ") {
            self.check_share(line);
        }
        let peer = |text: &str| text.split(' ').next().and_then(|peer| peer.parse::<SocketAddr>().ok());
        if let Some(id) = line.strip_prefix("Starting connection from ").and_then(peer).map(|peer| self.by_peer[&peer])
        {
            self.clients[id].started = Some(self.kernel.now);
        } else if let Some(rest) = line.strip_prefix("Closing connection from ") {
            let Some(id) = peer(rest).map(|peer| self.by_peer[&peer]) else { return };
            self.expect(!self.clients[id].ended, || format!("connection {id} ends twice"));
            self.clients[id].ended = true;
            self.ended += 1;
            self.check_reason(id, rest.split_once("): ").map(|(_, reason)| reason));
        }
        let open: Vec<usize> = (0..self.clients.len()).filter(|id| self.is_admitted(*id)).collect();
        let most = self.scenario.limits.connections;
        // The accept loop has said that it starts one before it sheds another.
        let sheds = usize::from(self.sheds());
        self.expect(open.len() <= most + sheds, || format!("{} connections, and {most} at most", open.len()));
        if let Some(most) = self.scenario.limits.per_client {
            for id in &open {
                let ip = self.kernel.connections[*id].peer.ip();
                let same = open.iter().filter(|other| self.kernel.connections[**other].peer.ip() == ip).count();
                self.expect(same <= most, || format!("{same} connections of {ip}"));
            }
        }
    }

    /// A client is refused because its address has as many connections as it may have.
    fn check_share(&self, line: &str) {
        let peer = line.split(' ').nth(1).and_then(|peer| peer.parse::<SocketAddr>().ok());
        let (Some(peer), Some(most)) = (peer, self.scenario.limits.per_client) else { return };
        let is_other = |one: &&Connection| one.is_open() && one.peer.ip() == peer.ip() && one.peer != peer;
        let others = self.kernel.connections.iter().filter(is_other).count();
        self.expect(others >= most, || format!("{peer} is refused beside {others} connections of its address"));
    }

    fn is_admitted(&self, id: Id) -> bool {
        self.clients[id].started.is_some() && !self.clients[id].ended
    }

    /// Why a connection ended, and whether it was time.
    fn check_reason(&mut self, id: Id, reason: Option<&str>) {
        // A handler whose time is over may hear of the shutdown afterwards, and the kernel may have no memory.
        let is_stream = self.clients[id].kind == Kind::Stream;
        let excuses = |reason: &str| reason.contains("os error") || is_stream && reason.ends_with("timeout");
        self.clients[id].is_excused = reason.is_some_and(excuses);
        let (client, connection, now) = (&self.clients[id], &self.kernel.connections[id], self.kernel.now);
        let limits = &self.scenario.limits;
        let not_before = |since: u64, timeout: Duration, what: &str| {
            let least = timeout.as_nanos() as u64;
            self.expect(least > 0 && now + LATE >= since + least, || {
                format!("connection {id}: {what} after {} ms, and the limit is {timeout:?}", (now - since) / MS)
            });
        };
        match reason {
            Some("idle timeout") if client.kind != Kind::Stream => {
                not_before(connection.active, limits.idle_timeout, "idle timeout");
                self.expect(connection.pending() == 0 || !connection.saw_all, || format!("{id} is closed in time"));
            }
            Some("request timeout") if client.kind != Kind::Stream => {
                not_before(client.partial.unwrap_or(now), limits.request_timeout, "request timeout");
            }
            Some("write timeout") => {
                let since = connection.sent.unwrap_or(connection.connected).min(connection.active);
                not_before(since, limits.write_timeout, "write timeout");
            }
            Some("end of the grace time") => {
                self.expect(self.is_closing(), || format!("connection {id} is closed within the grace time"));
            }
            Some("broken pipe") => fail("a broken pipe"),
            Some("reset") => self.expect(connection.is_reset, || format!("connection {id} was not reset")),
            Some("panic") => self.expect(client.ends_by(b'p'), || format!("connection {id}: no service panicked")),
            Some("shed") => self.expect(self.sheds(), || format!("connection {id} is shed")),
            _ => {}
        }
    }

    /// The server is about to close a descriptor.
    pub(crate) fn check_close(&mut self, fd: i32) {
        let Ok(File::Stream(id)) = self.kernel.file(fd) else { return };
        let id = *id;
        let (client, connection) = (&self.clients[id], &self.kernel.connections[id]);
        // What an abandoned worker had in hand goes down with the server.
        let is_accounted_for = client.started.is_none() || client.ended || self.has_abandoned();
        self.expect(is_accounted_for, || format!("connection {id} is closed without a line"));
        if client.waiting.is_some() {
            fail(&format!("connection {id} is closed while its service works on it"));
        }
        let is_whole = !matches!(client.sent, Sent::Notice(_)) || connection.is_reset || connection.wants_room;
        self.expect(is_whole, || format!("connection {id} got a part of its notice"));
    }
}

/// At rest.
impl Sim {
    /// The server is idle, and the network has delivered everything.
    pub(crate) fn check_at_rest(&mut self, stats: &Stats) {
        self.check_stats(stats);
        let ends = ends(stats);
        self.expect(stats.accepted == stats.open + ends, || format!("the counters do not add up: {stats:?}"));
        if self.report.is_some() {
            return;
        }
        if self.all_are_busy() || self.kernel.waiters.iter().any(|waiter| self.sleeps_after_fault(waiter)) {
            return;
        }
        for id in 0..self.clients.len() {
            self.check_connection_at_rest(id);
        }
        self.check_backlog(stats);
        for file in self.kernel.files.iter().flatten() {
            if let File::Datagrams { arrived, .. } = file {
                let is_closing = self.is_closing();
                self.expect(arrived.is_empty() || is_closing, || "a datagram waits, and no thread comes".into());
            }
        }
        self.check_answers();
    }

    /// A thread whose poll or epoll_wait found no memory sleeps for 50 ms, and a service may for as long.
    fn sleeps_after_fault(&self, waiter: &Waiter) -> bool {
        matches!(waiter.what, Wait::Sleep) && waiter.until.is_some_and(|until| until <= self.kernel.now + 60 * MS)
    }

    /// Every worker is in a service that waits.
    pub(crate) fn all_are_busy(&self) -> bool {
        let in_service = |task: usize, what: &Wait| task > ACCEPT_LOOP && !matches!(what, Wait::Epoll(_));
        let busy = self.kernel.waiters.iter().filter(|waiter| in_service(waiter.task, &waiter.what));
        busy.count() >= self.scenario.limits.workers
    }

    /// A connection of which no thread will hear anything more must have nothing left to do.
    fn check_connection_at_rest(&self, id: Id) {
        let (client, connection, now) = (&self.clients[id], &self.kernel.connections[id], self.kernel.now);
        if client.started.is_none() || !connection.is_open() || client.waiting.is_some() || self.is_closing() {
            return;
        }
        // A handler reads when it likes.
        if client.kind == Kind::Stream {
            return;
        }
        let recently = |time: Option<u64>| time.is_some_and(|time| now < time + NOTICE_GAP + SWEEP);
        // In the quiet time before the notice nothing is received.
        if self.told.is_some() && recently(connection.sent) {
            return;
        }
        if connection.wants_room {
            self.expect(!connection.is_writable(), || {
                format!("connection {id} has room for its reply, and no thread comes")
            });
            return;
        }
        self.expect(!connection.is_reset, || format!("connection {id} was reset, and no thread comes"));
        self.expect(connection.pending() == 0, || format!("connection {id} has input, and no thread comes"));
        self.expect(!connection.input_has_ended(), || format!("client {id} has left, and no thread comes"));
        if client.kind != Kind::Echo && connection.sending_ended.is_none() {
            let waits =
                |request: &&Request| request.end <= connection.received && !request.executed && !request.is_tail;
            let waiting = client.requests.iter().find(waits);
            self.expect(waiting.is_none() || client.is_over(), || format!("{waiting:?} of {id}, and no thread comes"));
        }
        if let (Some(told), Sent::Reply(..)) = (self.told, client.sent) {
            let stays = client.kind.stays() && connection.sent.is_some();
            let knows = connection.sending_ended.is_some() || stays;
            self.expect(knows || told == now, || format!("connection {id} has no notice, and no thread comes"));
        }
    }

    /// A connection that waits for the first byte of a request.
    fn is_idle(&self, id: Id) -> bool {
        let (client, connection) = (&self.clients[id], &self.kernel.connections[id]);
        let is_served = self.is_admitted(id) && client.kind != Kind::Stream && client.waiting.is_none();
        is_served && client.partial.is_none() && !connection.wants_room && connection.sending_ended.is_none()
    }

    fn check_backlog(&self, stats: &Stats) {
        let limits = &self.scenario.limits;
        let paused = self.kernel.has_broken
            || self.kernel.last_accept_fault.is_some_and(|time| self.kernel.now < time + 1_100 * MS);
        let has_slot = (stats.open as usize) < limits.connections;
        // A client over its share takes no place of another.
        let sheds = self.sheds() && limits.per_client.is_none() && (0..self.clients.len()).any(|id| self.is_idle(id));
        let has_room = (has_slot || sheds) && (stats.queued as usize) < limits.queue;
        if self.told.is_some() || paused || !has_room {
            return;
        }
        for file in self.kernel.files.iter().flatten() {
            if let File::Listener { backlog, .. } = file {
                self.expect(backlog.is_empty(), || format!("client {} waits, and the server has room", backlog[0]));
            }
        }
    }

    fn check_answers(&mut self) {
        for (bytes, to) in std::mem::take(&mut self.kernel.answered) {
            let asked = self.datagrams.iter_mut().find(|(_, from, _)| *from == to);
            match asked {
                Some((question, _, answered)) if !*answered && question.to_ascii_uppercase() == bytes => {
                    *answered = true
                }
                other => fail(&format!("{to} is answered {:?}, {other:?}", String::from_utf8_lossy(&bytes))),
            }
        }
        for to in std::mem::take(&mut self.kernel.dropped) {
            self.datagrams.iter_mut().filter(|(_, from, _)| *from == to).for_each(|(.., answered)| *answered = true);
        }
        let is_closing = self.is_closing() || self.report.is_some();
        let missing = self.datagrams.iter().find(|(_, _, answered)| !answered);
        self.expect(missing.is_none() || is_closing, || format!("no answer to {missing:?}"));
    }

    /// Sums that hold at any moment.
    pub(crate) fn check_stats(&self, stats: &Stats) {
        let ends = ends(stats);
        self.expect(stats.accepted <= stats.open + ends, || format!("a connection is lost: {stats:?}"));
        let most = self.scenario.limits.connections as u64;
        self.expect(stats.open <= most && stats.open_max <= most, || format!("too many: {stats:?}"));
    }

    /// Time has passed: no deadline of a connection lies further back than a sweep.
    pub(crate) fn check_times(&mut self) {
        let now = self.kernel.now;
        if self.report.is_some() {
            return;
        }
        self.check_watchdog();
        for id in 0..self.clients.len() {
            let (client, connection) = (&self.clients[id], &self.kernel.connections[id]);
            if client.started.is_none() || !connection.is_open() || client.waiting.is_some() {
                continue;
            }
            if let Some((limit, what)) = self.deadline(id) {
                // Bytes of a request do not put its time-out off, but a reply before it does.
                let active = if client.partial.is_some() { connection.sent.unwrap_or(0) } else { connection.active };
                let since = limit.max(active).max(client.waited).max(self.busy);
                self.expect(now <= since + SWEEP + BUSY_TIME, || {
                    format!("connection {id} is open {} ms after its {what}", (now - limit) / MS)
                });
            }
        }
        if let (Some(closing), None) = (self.closing, &self.report) {
            let ends = closing + 1_000 * MS + SWEEP + BUSY_TIME;
            self.expect(now <= ends, || "the server has not ended a second after the grace time".into());
        }
    }

    /// Something has happened but that time has passed.
    pub(crate) fn note_event(&mut self) {
        self.quiet = (self.kernel.wakes, self.ended, self.kernel.now);
    }

    /// Idle means no step: while nothing happens, a thread wakes for deadlines only.
    pub(crate) fn check_wakes(&mut self) {
        let (wakes, ended, since) = self.quiet;
        let open = (0..self.clients.len()).filter(|id| self.is_admitted(*id)).count() as u64;
        let (ended, time) = ((self.ended - ended) as u64, (self.kernel.now - since) / MS);
        // Each open connection may have had its deadline put off since a sweep was planned for it; a second of the grace
        // time is counted down; and where a timeout is switched off, a connection is looked at every 20 days.
        // Each worker that ends wakes the accept loop.
        let stopping = if self.told.is_some() { time / 1_000 + self.scenario.limits.workers as u64 } else { 0 };
        let most =
            3 + 2 * (open + ended) + self.watchdog_wakes(time) + stopping + (open + 1) * (time / (20 * 86_400_000));
        let wakes = self.kernel.wakes - wakes;
        self.expect(wakes <= most, || {
            format!("{wakes} wake-ups while nothing happened for {time} ms; {most} explained")
        });
    }

    /// The watchdog looks at the workers once a second, and four times when they stand still.
    fn watchdog_wakes(&self, time: u64) -> u64 {
        if self.scenario.has_watchdog { 4 * (time / 1_000) + 4 } else { 0 }
    }

    /// The watchdog is told while the workers can move.
    fn check_watchdog(&mut self) {
        let (now, busy) = (self.kernel.now, self.busy);
        let since = self.pinged.max(busy);
        let is_silent = self.scenario.has_watchdog && self.report.is_none() && now > since + 2_500 * MS;
        self.expect(!is_silent, || format!("the watchdog was not told for {} ms", (now - since) / MS));
    }

    /// When the server must have closed a connection, unless something happens.
    fn deadline(&self, id: Id) -> Option<(u64, &'static str)> {
        let (client, connection, limits) = (&self.clients[id], &self.kernel.connections[id], &self.scenario.limits);
        if client.kind == Kind::Stream {
            return None;
        }
        if let Some(ended) = connection.sending_ended {
            return match self.told {
                Some(_) => self.closing.map(|closing| (closing.max(ended) + 1_000 * MS, "grace time")),
                None => Some((ended + LINGER, "last byte")),
            };
        }
        if self.told.is_some() {
            return self.closing.map(|closing| (closing + 1_000 * MS, "grace time"));
        }
        if connection.wants_room {
            return nanos(limits.write_timeout).map(|timeout| (connection.active + timeout, "write timeout"));
        }
        match client.partial {
            // The time that the service took for the request before is not the client's.
            Some(since) => {
                nanos(limits.request_timeout).map(|timeout| (since.max(client.called) + timeout, "request timeout"))
            }
            // It begins when a worker has opened the connection.
            None => {
                let since = connection.active.max(self.busy);
                nanos(limits.idle_timeout).map(|timeout| (since + timeout, "idle timeout"))
            }
        }
    }
}

/// At the end.
impl Sim {
    /// The server has ended without one of its workers, or is about to.
    fn has_abandoned(&self) -> bool {
        let is_late = self.closing.is_some_and(|closing| self.kernel.now >= closing + 1_000 * MS);
        match &self.report {
            Some(Ok(report)) => report.abandoned > 0,
            // A signal after the end of the grace time ends the wait for workers.
            _ => is_late || self.stops >= 2 && self.is_closing(),
        }
    }

    pub(crate) fn check_end(&mut self, stats: &Stats) {
        self.check_answers();
        match &self.report {
            Some(Ok(report)) => {
                let slack = Duration::from_nanos(1_000 * MS + SWEEP + BUSY_TIME);
                let most = self.scenario.limits.grace + slack;
                self.expect(report.took <= most, || format!("the shutdown took too long: {report}"));
            }
            Some(Err(Error::Accept { .. })) if self.kernel.has_broken => {}
            other => fail(&format!("the server ended with {other:?}")),
        }
        let (ready, drained) = (self.hooks.0, self.hooks.1);
        self.expect((ready, drained) == (1, 1), || format!("hooks ran {ready} and {drained} times"));
        // A worker that the server did not wait for may have been in the middle of an end.
        let is_abandoned = self.has_abandoned();
        let sum = stats.open + ends(stats);
        self.expect(stats.accepted == sum || is_abandoned, || format!("the counters do not add up: {stats:?}"));
        let open = self.kernel.files.iter().enumerate().skip(2).find(|(_, file)| file.is_some());
        self.expect(open.is_none(), || format!("a descriptor is left: {open:?}"));
        for (id, client) in self.clients.iter().enumerate() {
            let connection = &self.kernel.connections[id];
            let has_ended = client.started.is_none() || client.ended || is_abandoned;
            self.expect(has_ended, || format!("connection {id} has not ended"));
            let (Some(draining), Some(started)) = (self.draining, client.started) else { continue };
            let was_served = started < draining && connection.closed.is_some_and(|closed| closed >= draining);
            let could_read = client.reads == Reads::All && !client.is_gone && !connection.input_has_ended();
            let must_know = could_read && !connection.is_reset && !client.is_over() && !client.is_excused;
            if was_served && must_know {
                let is_told = client.sent == Sent::All || client.kind.stays();
                self.expect(is_told, || format!("connection {id} was closed without a notice: {:?}", client.sent));
                self.expect(connection.lost == 0, || format!("connection {id} lost {} bytes", connection.lost));
            }
        }
    }
}

/// All connections that have ended, by the counters.
fn ends(stats: &Stats) -> u64 {
    stats.left
        + stats.finished
        + stats.timed_out_idle
        + stats.timed_out_request
        + stats.timed_out_write
        + stats.resets
        + stats.pipes
        + stats.errors
        + stats.too_long
        + stats.panics
        + stats.shed
        + stats.drained
        + stats.forced
        + stats.killed
}
