//! One counter per outcome, and the snapshot of them that a user reads.
//!
//! What happens once per connection is one shared counter each. What happens once per request is counted by
//! the worker that did it, on a cache line of its own; a reader adds these up.

use std::fmt;
use std::sync::OnceLock;
#[cfg(target_has_atomic = "64")]
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

#[cfg(not(target_has_atomic = "64"))]
use LockedU64 as AtomicU64;

use crate::sys::Event;

/// A number that only grows. Relaxed throughout: a counter orders no other memory.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Keeps the greatest value seen. One thread only may call it.
    pub(crate) fn raise(&self, value: u64) {
        if value > self.value() {
            self.0.store(value, Ordering::Relaxed);
        }
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A counter with a single writer and a cache line of its own: no bus lock per request. Relaxed, as in [`Counter`].
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct WorkerCounter(AtomicU64);

impl WorkerCounter {
    pub(crate) fn add(&self, count: u64) {
        self.0.store(self.value().wrapping_add(count), Ordering::Relaxed);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// In place of an atomic of 64 bits on a processor that has none (ARMv5, MIPS, PowerPC): no reader sees half of a number.
#[cfg(any(test, not(target_has_atomic = "64")))]
#[derive(Debug, Default)]
struct LockedU64(std::sync::Mutex<u64>);

#[cfg(any(test, not(target_has_atomic = "64")))]
impl LockedU64 {
    fn number(&self) -> std::sync::MutexGuard<'_, u64> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn load(&self, _: Ordering) -> u64 {
        *self.number()
    }

    fn store(&self, value: u64, _: Ordering) {
        *self.number() = value;
    }

    fn fetch_add(&self, count: u64, _: Ordering) {
        let mut number = self.number();
        *number = number.wrapping_add(count);
    }
}

/// A number that this process and its forked children add to. What a child has added outlives it.
#[derive(Debug)]
pub(crate) struct SharedCounter {
    added: Event,
    /// What was taken from the event so far.
    taken: Counter,
}

impl SharedCounter {
    pub(crate) fn new() -> nix::Result<SharedCounter> {
        Ok(SharedCounter { added: Event::new()?, taken: Counter::default() })
    }

    pub(crate) fn add(&self, count: u64) {
        self.added.add(count);
    }

    pub(crate) fn value(&self) -> u64 {
        self.taken.add(self.added.take());
        self.taken.value()
    }

    /// The value as it was when this process, or its parent before the fork, last read it. For a forked child: what a child
    /// took from the event, its parent would miss.
    pub(crate) fn last_value(&self) -> u64 {
        self.taken.value()
    }
}

/// The lines that the process's log has lost, if its logger counts them.
pub(crate) static LOST_LINES: OnceLock<SharedCounter> = OnceLock::new();

/// Where the figures of a running server come from.
pub(crate) trait StatsSource: Send + Sync {
    fn stats(&self) -> Stats;
}

/// How a figure moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It is what it is now, or the greatest that it was.
    Gauge,
}

/// One figure of a [`Stats`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Figure {
    /// Its name, as the field is called.
    pub name: &'static str,
    /// What the server counts with it, as a sentence.
    pub help: &'static str,
    /// How it moves.
    pub kind: Kind,
    /// Its value.
    pub value: u64,
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// The shared counters; see [`Stats`] for what each one counts.
        #[derive(Debug, Default)]
        pub(crate) struct Counters { $(pub(crate) $name: Counter,)+ }

        /// What a server has done and is doing, read at one moment.
        ///
        /// `accepted` is the sum of `open` and of every way in which a connection ends: `left`, `finished`,
        /// `timed_out_idle`, `timed_out_request`, `timed_out_write`, `resets`, `pipes`, `errors`, `too_long`, `panics`,
        /// `shed`, `drained`, `forced` and `killed`. A connection that ends while the counters are read may be counted
        /// both as open and as ended.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[doc = $doc])+ pub $name: u64,)+
            /// Connections open now.
            pub open: u64,
            /// Open connections that wait for their client and cost no worker.
            pub parked: u64,
            /// Connections and sockets in the ready queue now.
            pub queued: u64,
            /// The most that were ever in the ready queue.
            pub queued_max: u64,
            /// Requests served: calls of a service that took input.
            pub served: u64,
            /// Log lines that the daemon has lost, because a console, a log file or a system log took none.
            pub log_lines_lost: u64,
        }

        impl Counters {
            /// Reads the lost lines by `read`.
            pub(crate) fn snapshot(&self, read: fn(&SharedCounter) -> u64) -> Stats {
                let log_lines_lost = LOST_LINES.get().map_or(0, read);
                Stats { $($name: self.$name.value(),)+ log_lines_lost, ..Stats::default() }
            }
        }

        impl Stats {
            /// Every figure, in a fixed order.
            pub fn figures(&self) -> impl Iterator<Item = Figure> {
                let gauge = |name, help, value| Figure { name, help, kind: Kind::Gauge, value };
                let counter = |name, help: &'static str, value| {
                    // The high-water mark is kept with the counters, but is a level.
                    let kind = if name == "open_max" { Kind::Gauge } else { Kind::Counter };
                    Figure { name, help: help.trim_start(), kind, value }
                };
                [
                    gauge("open", "Connections open now.", self.open),
                    gauge("parked", "Open connections that wait for their client and cost no worker.", self.parked),
                    gauge("queued", "Connections and sockets in the ready queue now.", self.queued),
                    gauge("queued_max", "The most that were ever in the ready queue.", self.queued_max),
                    counter("served", "Requests served.", self.served),
                    counter("log_lines_lost", "Log lines that no sink took.", self.log_lines_lost),
                    $(counter(stringify!($name), concat!($($doc),+), self.$name),)+
                ].into_iter()
            }
        }
    };
}

counters! {
    /// Connections that got a slot.
    accepted,
    /// The most connections that were ever open.
    open_max,
    /// Clients told `BUSY`, or the notice, without getting a slot.
    refused,
    /// Clients told `BUSY` because their address had its share of connections (`per_client`).
    over_share,
    /// Connections that the client closed.
    left,
    /// Connections that the service closed.
    finished,
    /// Connections closed after `idle_timeout`.
    timed_out_idle,
    /// Connections closed after `request_timeout`.
    timed_out_request,
    /// Connections closed after `write_timeout`.
    timed_out_write,
    /// Connections that the client reset, or whose client vanished.
    resets,
    /// Connections found broken when a reply was sent.
    pipes,
    /// Connections closed for another error, of the network or of the service.
    errors,
    /// Connections closed because a request was longer than the buffer.
    too_long,
    /// Connections closed because the service panicked.
    panics,
    /// Idle connections closed to make room for new ones.
    shed,
    /// Connections that ended by themselves after the notice.
    drained,
    /// Connections that the end of the grace time closed.
    forced,
    /// Connections whose process was killed, or crashed (forking server).
    killed,
    /// Shutdown notices given.
    notices,
    /// Datagrams received.
    datagrams,
    /// Datagrams received that were longer than 4,096 bytes.
    oversized,
    /// Datagrams received on which their service failed or panicked.
    datagrams_failed,
    /// Datagrams sent in reply.
    replies,
    /// Replies that the kernel did not take.
    replies_dropped,
    /// Errors that came up in place of a datagram, mostly about earlier replies.
    receive_errors,
    /// Accepts that failed for a reason of the client's or the network's and were tried again.
    accept_retried,
    /// Accepts that failed for want of descriptors or memory.
    accept_exhausted,
    /// Clients told `BUSY` because no process could be made for them (forking server).
    fork_failed,
    /// Accepts that failed because the listener is broken.
    accept_failed,
}

impl fmt::Display for Stats {
    /// One line of `name=value` pairs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, figure) in self.figures().enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{}={}", figure.name, figure.value)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_one_line_of_pairs() {
        let counters = Counters::default();
        counters.accepted.add(3);
        counters.timed_out_write.add(1);
        let line = counters.snapshot(SharedCounter::value).to_string();
        assert!(line.contains("accepted=3 ") && line.contains(" timed_out_write=1 "), "{line}");
        assert!(!line.contains('\n'));
    }

    /// Two threads add and one looks, around each place where the lower half of the number overflows.
    #[test]
    fn a_number_beyond_32_bits_is_whole_without_atomics_of_64() {
        const STEP: u64 = 0xffff;
        const STEPS: u64 = 0x8_0000;
        let number = LockedU64::default();
        number.store(u64::from(u32::MAX), Ordering::Relaxed);
        let start = number.load(Ordering::Relaxed);
        let together = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            let add = || {
                together.wait();
                (0..STEPS).for_each(|_| number.fetch_add(STEP, Ordering::Relaxed));
            };
            let adding = [scope.spawn(add), scope.spawn(add)];
            let mut last = start;
            while !adding.iter().all(|thread| thread.is_finished()) {
                let next = number.load(Ordering::Relaxed);
                assert!(next >= last && (next - start).is_multiple_of(STEP), "{last}, then {next}");
                last = next;
            }
        });
        assert_eq!(number.load(Ordering::Relaxed), start + 2 * STEPS * STEP);
    }

    #[test]
    fn every_explanation_stands_alone_as_plain_text() {
        for figure in Stats::default().figures() {
            let plain = !figure.help.contains(['[', '\n', '\\']) && !figure.help.contains("::");
            assert!(plain && figure.help.ends_with('.'), "{}: {}", figure.name, figure.help);
        }
    }
}
