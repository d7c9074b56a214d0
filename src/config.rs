//! Every capacity and limit: name, unit, range and reason.
//!
//! [`Limits`] is what a user sets; the constants are what the code is built with. Nothing grows past what is
//! written here once a server has started.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::error::Error;
use crate::sys::Seconds;

/// Worker threads. More than 64 on a small board only adds stacks.
pub const WORKERS: RangeInclusive<usize> = 1..=64;
/// Accepted sockets that may wait for a worker.
pub const QUEUE: RangeInclusive<usize> = 1..=1_024;
/// Open connections. The ready queue has room for every one of them, which is what bounds it.
pub const CONNECTIONS: RangeInclusive<usize> = 1..=16_384;
/// Child processes of a forking server.
pub const CHILDREN: RangeInclusive<usize> = 1..=1_024;
/// Bytes of each connection's input and of its output buffer. Below 64 the engine's own texts would not fit.
pub const BUFFER: RangeInclusive<usize> = 64..=1_048_576;
/// Bytes of each worker's stack. glibc asks for at least 16 KiB; debug builds need more.
pub const STACK: RangeInclusive<usize> = 65_536..=8_388_608;
/// Entries of a [`Kv`](crate::builtin::Kv) store. A million of them take 64 MiB before they hold a byte.
pub const KV_ENTRIES: RangeInclusive<usize> = 1..=1_048_576;
/// Bytes of keys and values in a [`Kv`](crate::builtin::Kv) store: more belongs into a database.
pub const KV_BYTES: RangeInclusive<usize> = 64..=67_108_864;
/// The longest timeout. Deadlines are 32-bit milliseconds, so it must stay far below 24 days.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(86_400);
/// Sockets of one server, those for datagrams included: the poll set lives on the stack.
pub const LISTENERS: usize = 32;
/// Where a timeout is switched off, a connection is looked at this often, and its times are renewed: within half of the
/// range of 32-bit milliseconds, as [`MAX_TIMEOUT`].
pub(crate) const RENEWAL: Duration = Duration::from_secs(20 * 86_400);

/// Bytes of the longest datagram that a service is given, and of the longest reply. Beyond 1,472 a datagram
/// travels in fragments, so nearly all are far shorter.
pub const DATAGRAM: usize = 4_096;

/// Entries of the ready queue: a slot or datagram socket is in it at most once, so each has its place.
pub(crate) const READY: usize = *CONNECTIONS.end() + LISTENERS;
/// Readiness events taken per `epoll_wait`: 16 measured well; more delays the first of them.
pub(crate) const EVENTS: usize = 16;
/// Jobs that a worker leaves for itself where no service ever blocks: to wake another worker costs about as much as
/// they do.
pub(crate) const FEW_JOBS: usize = 2;
/// Jobs taken from the ready queue before a worker must look at the parked connections again.
pub(crate) const POLL_EVERY: u32 = 32;
/// Service calls for one connection before the others get their turn.
pub(crate) const TURN: usize = 16;
/// Datagrams received from one socket before the others get their turn.
pub(crate) const DATAGRAMS: usize = 32;
/// The first and the longest wait before a multicast group is joined again when netlink does not report a change.
pub(crate) const JOIN_RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Groups are joined anew this long after the first change of the network: an interface that comes up causes many.
pub(crate) const LINKS_SETTLE: Duration = Duration::from_millis(100);
/// A silent connection is probed after this long, to find out whether its client is still there.
pub(crate) const KEEP_ALIVE_IDLE: Duration = Duration::from_secs(30);
/// The time between the probes that follow.
pub(crate) const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Probes without an answer that a connection survives.
pub(crate) const KEEP_ALIVE_COUNT: u32 = 3;
/// A connection whose data the client has not acknowledged for this long ends. The sum of the three above, so that a
/// vanished client is gone after one and the same time, whether it was silent or was being sent something.
pub(crate) const VANISHED: Duration = Duration::from_secs(60);
/// Accepts per listener before signals and the other listeners are looked at again.
pub(crate) const ACCEPTS: usize = 16;
/// Connections that the kernel may hold before they are accepted (it clamps this to `somaxconn`).
pub(crate) const BACKLOG: i32 = 1_024;
/// How long a client may go on sending after the server has closed its connection, before the slot is free.
pub(crate) const LINGER: Duration = Duration::from_secs(2);
/// Quiet time between the last reply and the notice, so that a client that compares each `recv` with the
/// notice does not find the two glued together.
pub(crate) const NOTICE_GAP: Duration = Duration::from_millis(20);
/// Deadlines are looked at no more often than this, however many there are.
pub(crate) const SWEEP_EVERY: Duration = Duration::from_millis(50);
/// How long the ready queue may be full before `--when-full` is applied to new clients.
pub(crate) const QUEUE_FULL_TIMEOUT: Duration = Duration::from_millis(100);
/// Log lines per second for clients that ended badly in one and the same way: enough to see which, too few to fill
/// a flash chip.
pub(crate) const CLOSE_LINES: u32 = 10;
/// Bytes of a client's that a log line at debug level shows.
pub(crate) const RECV_SHOWN: usize = 64;
/// Clients that may wait at once for an earlier connection of their address to end; each address has a quarter of
/// these places.
pub(crate) const DEFERRED: usize = 16;
/// How long they wait: longer than a worker, or a process, takes to see that a client has closed.
pub(crate) const DEFER_TIMEOUT: Duration = Duration::from_millis(100);
/// Time that workers have to finish their turn once every connection is closed.
pub(crate) const WORKERS_FINISH: Duration = Duration::from_secs(1);
/// Time that child processes have for that, before they are killed: the rest of the second is for their ends.
pub(crate) const CHILDREN_FINISH: Duration = Duration::from_millis(500);
/// Clients of the control socket at a time.
pub(crate) const CONTROL_CLIENTS: usize = 4;
/// Bytes of the longest request on the control socket.
pub(crate) const CONTROL_REQUEST: usize = 128;
/// Bytes of the longest answer on the control socket: every metric with its explanation.
pub(crate) const CONTROL_REPLY: usize = 16_384;
/// How long a client of the control socket may take to ask.
pub(crate) const CONTROL_TIMEOUT: Duration = Duration::from_secs(5);
/// The answer to a client that cannot be served.
pub(crate) const BUSY: &[u8] = b"BUSY\n";
/// The notice of a raw service at shutdown; line services add a newline.
pub const NOTICE: &str = "SHUTDOWN";

/// What happens to a new client when every connection slot is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenFull {
    /// It stays in the kernel's backlog until a slot is free.
    #[default]
    Wait,
    /// The connection that has been idle longest gets the notice and is closed to make room.
    /// While none is idle, new clients wait; one accepted just as the last one stopped being idle gets `BUSY\n`.
    Shed,
    /// It gets `BUSY\n` and is closed.
    Reject,
}

/// The size of a server. All of it is allocated, or checked, before the first client is accepted.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Worker threads, in [`WORKERS`].
    pub workers: usize,
    /// Open connections, in [`CONNECTIONS`].
    pub connections: usize,
    /// Accepted sockets that may wait for a worker, in [`QUEUE`]. When it is full, nothing more is accepted.
    pub queue: usize,
    /// Bytes of each connection's input and of its output buffer, in [`BUFFER`]: the longest request and the
    /// longest reply.
    pub buffer: usize,
    /// Bytes of each worker's stack, in [`STACK`].
    pub stack: usize,
    /// How long a connection may be silent between requests. As of the next two, zero is no limit and
    /// [`MAX_TIMEOUT`] the longest.
    pub idle_timeout: Duration,
    /// How long a request may take from its first byte to its last.
    pub request_timeout: Duration,
    /// How long a client may leave a reply unread without any progress.
    pub write_timeout: Duration,
    /// How long clients have to leave after the notice; may be zero.
    pub grace: Duration,
    /// What happens to a new client when every slot is taken.
    pub when_full: WhenFull,
    /// Open connections of one client address, in [`CONNECTIONS`]; of IPv6, of all addresses with the same first 64
    /// bits. A client of an address with as many gets `BUSY\n` and is closed, whatever `when_full` says. `None`: no
    /// such limit.
    pub per_client: Option<usize>,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            workers: 4,
            connections: 128,
            queue: 64,
            buffer: 4_096,
            stack: 131_072,
            idle_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(10),
            grace: Duration::from_secs(5),
            when_full: WhenFull::Wait,
            per_client: None,
        }
    }
}

impl Limits {
    /// Checks every limit against its range.
    ///
    /// # Errors
    /// [`Error::Limit`] names the first one that is out of range.
    pub fn validate(&self) -> Result<(), Error> {
        check_range("workers", self.workers, WORKERS)?;
        check_range("connections", self.connections, CONNECTIONS)?;
        check_range("queue", self.queue, QUEUE)?;
        check_range("buffer", self.buffer, BUFFER)?;
        check_range("stack", self.stack, STACK)?;
        check_range("per-client", self.per_client.unwrap_or(1), CONNECTIONS)?;
        check_timeout("idle-timeout", self.idle_timeout, Duration::ZERO)?;
        check_timeout("request-timeout", self.request_timeout, Duration::ZERO)?;
        check_timeout("write-timeout", self.write_timeout, Duration::ZERO)?;
        check_timeout("grace", self.grace, Duration::ZERO)
    }
}

/// Checks a number against its range.
pub(crate) fn check_range(name: &'static str, value: usize, range: RangeInclusive<usize>) -> Result<(), Error> {
    if range.contains(&value) {
        return Ok(());
    }
    let expected = format!("{} to {}", range.start(), range.end());
    Err(Error::Limit { name, value: value.to_string(), expected })
}

/// Checks a time against its range.
pub(crate) fn check_timeout(name: &'static str, value: Duration, least: Duration) -> Result<(), Error> {
    if (least..=MAX_TIMEOUT).contains(&value) {
        return Ok(());
    }
    let expected = format!("{} to {} seconds", Seconds(least), MAX_TIMEOUT.as_secs());
    Err(Error::Limit { name, value: Seconds(value).to_string(), expected })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        Limits::default().validate().unwrap();
    }

    #[test]
    fn a_limit_out_of_range_is_named_with_its_range() {
        let error = Limits { queue: 1_025, ..Limits::default() }.validate().unwrap_err();
        assert_eq!(error.to_string(), "queue 1025 is out of range; choose 1 to 1024");
        let error = Limits { idle_timeout: MAX_TIMEOUT * 2, ..Limits::default() }.validate().unwrap_err();
        assert_eq!(error.to_string(), "idle-timeout 172800 is out of range; choose 0 to 86400 seconds");
    }
}
