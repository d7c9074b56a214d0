//! What a seed makes of a simulation: the limits and services of the server, the faults of its kernel, and its crowd.

use std::time::Duration;

use lastorders::{Limits, Server, WhenFull};

use crate::dice::Dice;
use crate::kernel::{Faults, MS};
use crate::services::{Kind, datagrams};
use crate::sim::with;

#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) kinds: Vec<Kind>,
    pub(crate) has_datagrams: bool,
    pub(crate) limits: Limits,
    pub(crate) buffer: usize,
    pub(crate) faults: Faults,
    /// Clients in all.
    pub(crate) crowd: usize,
    /// What the clients do before the server is told to stop, in actions.
    pub(crate) actions: u64,
    /// The clock at the start, in nanoseconds.
    pub(crate) start: u64,
    /// Signals to stop, or requests of a handle, one after the other.
    pub(crate) stops: usize,
    pub(crate) by_signal: bool,
    pub(crate) has_watchdog: bool,
    /// Some clients send very many requests at once.
    pub(crate) floods: bool,
    think: u64,
}

const DAY: u64 = 86_400_000;

impl Scenario {
    pub(crate) fn draw(dice: &mut Dice) -> Scenario {
        let never_blocks = dice.once_in(2);
        let own = Kind::Own { stays: dice.once_in(3), never_blocks };
        let kinds: &[Kind] =
            if never_blocks { &[Kind::Echo, own] } else { &[Kind::Echo, Kind::Lines, own, Kind::Stream] };
        let count = 1 + dice.index(3);
        let timeout = |dice: &mut Dice| Duration::from_millis(dice.pick(&[0, 40, 1_000, 1_000, 10_000, 30_000, DAY]));
        let buffer = dice.pick(&[64, 100, 256]);
        let limits = Limits {
            workers: dice.pick(&[1, 2, 2, 3, 4]),
            connections: dice.pick(&[1, 2, 3, 5, 8]),
            queue: dice.pick(&[1, 2, 4]),
            buffer,
            idle_timeout: timeout(dice),
            request_timeout: timeout(dice),
            write_timeout: timeout(dice),
            grace: Duration::from_millis(dice.pick(&[0, 10, 1_000, 5_000])),
            when_full: dice.pick(&[WhenFull::Wait, WhenFull::Shed, WhenFull::Reject]),
            per_client: dice.pick(&[None, None, Some(1), Some(2)]),
            ..Limits::default()
        };
        let fault = |dice: &mut Dice| dice.pick(&[0, 0, 0, 5, 50]);
        // Before the wrap of the ticks, before half of their range, or anywhere.
        let start = match dice.index(4) {
            0 => (1 << 32) - dice.within(1..5_000),
            1 => (1 << 31) - dice.within(1..5_000),
            _ => dice.within(1..1 << 33),
        };
        Scenario {
            kinds: (0..count).map(|_| dice.pick(kinds)).collect(),
            has_datagrams: dice.once_in(4),
            limits,
            buffer,
            faults: Faults {
                accept: fault(dice),
                listener: dice.pick(&[0, 0, 0, 200]),
                epoll_ctl: fault(dice) * 4,
                datagram: fault(dice),
                wait: fault(dice) * 4,
            },
            crowd: dice.pick(&[1, 2, 4, 8, 20]),
            actions: dice.pick(&[5, 20, 60, 200]),
            start: start * MS,
            stops: dice.pick(&[1, 1, 1, 2, 3]),
            by_signal: dice.once_in(2),
            has_watchdog: dice.once_in(5),
            floods: dice.once_in(8),
            think: dice.pick(&[0, 1, 30, 1_000, 1_000, 30_000, DAY, 40 * DAY]),
        }
    }

    pub(crate) fn may_block(&self) -> bool {
        self.kinds.iter().any(|kind| matches!(kind, Kind::Lines | Kind::Stream | Kind::Own { never_blocks: false, .. }))
    }

    pub(crate) fn think(&self, dice: &mut Dice) -> u64 {
        if dice.once_in(3) { dice.pick(&[0, 1, 30, 1_000]) } else { self.think }
    }

    /// How long a slow service takes, in milliseconds.
    pub(crate) fn service_time(&self, dice: &mut Dice) -> u64 {
        dice.pick(&[0, 1, 30, 60, 1_100, 20_000])
    }

    pub(crate) fn build(&self) -> Result<Server, lastorders::Error> {
        let mut builder = lastorders::Builder::new().limits(self.limits.clone());
        for kind in &self.kinds {
            builder = kind.add_to(builder).listen("127.0.0.1:0").map_err(|_| lastorders::Error::NoListener)?;
        }
        if self.has_datagrams {
            builder = datagrams(builder).bind("127.0.0.1:0").map_err(|_| lastorders::Error::NoListener)?;
        }
        if self.by_signal {
            builder = builder.handle_signals();
        }
        if self.has_watchdog {
            builder = builder.watchdog(Duration::from_secs(1), || with(|sim| sim.pinged = sim.kernel.now));
        }
        builder.on_ready(|| with(|sim| sim.hooks.0 += 1)).on_drain(|| with(|sim| sim.hooks.1 += 1)).build()
    }
}
