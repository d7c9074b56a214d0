//! The watchdog: tells a supervisor that the server comes forward, at a fixed interval, for as long as it does.
//!
//! In comes a look at the workers at each beat; out goes the call of the embedding program's closure, or nothing
//! when they stand still. It is called by the accept loop, so that it says of that loop that it turns.

use std::time::Duration;

use crate::engine::pulse::Pulse;
use crate::sys::Tick;

/// What the embedding program does at each beat.
pub(super) type Beat = Box<dyn FnMut() + Send>;

pub(super) struct Watchdog {
    pub(super) beat: Beat,
    interval: Duration,
    next: Option<Tick>,
    /// What had been done when something was first found waiting.
    stuck_at: Option<u64>,
    stuck: bool,
}

/// What a look has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Beat,
    /// The workers have begun to move again.
    BeatAgain,
    /// Something waits, and no worker has moved since the last look: the first of these.
    Stuck,
    StillStuck,
}

impl Watchdog {
    pub(super) fn new(interval: Duration, beat: Beat) -> Watchdog {
        Watchdog { beat, interval, next: None, stuck_at: None, stuck: false }
    }

    pub(super) fn interval(&self) -> Duration {
        self.interval
    }

    pub(super) fn start(&mut self, now: Tick) {
        self.next = Some(now.after(self.interval));
    }

    /// When to look next.
    pub(super) fn deadline(&self) -> Option<Tick> {
        self.next
    }

    pub(super) fn is_due(&self, now: Tick) -> bool {
        self.next.is_some_and(|next| next.reached(now))
    }

    /// Judges what is seen now, and plans the next look.
    pub(super) fn look(&mut self, now: Tick, pulse: Pulse) -> Verdict {
        let stuck = pulse.waits && self.stuck_at == Some(pulse.moves);
        self.stuck_at = pulse.waits.then_some(pulse.moves);
        let verdict = match (self.stuck, stuck) {
            (false, false) => Verdict::Beat,
            (true, false) => Verdict::BeatAgain,
            (false, true) => Verdict::Stuck,
            (true, true) => Verdict::StillStuck,
        };
        self.stuck = stuck;
        // The supervisor allows two intervals, so it can miss one beat. While the workers stand still they are looked at
        // more often, so that the next beat comes soon after they move.
        self.next = Some(now.after(if stuck { self.interval / 4 } else { self.interval }));
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Clock;

    const SECOND: Duration = Duration::from_secs(1);

    fn watchdog() -> (Watchdog, Tick) {
        let (mut watchdog, now) = (Watchdog::new(SECOND, Box::new(|| {})), Clock::start().now());
        watchdog.start(now);
        (watchdog, now)
    }

    fn pulse(moves: u64, waits: bool) -> Pulse {
        Pulse { moves, waits }
    }

    #[test]
    fn an_idle_server_and_a_busy_one_beat() {
        let (mut watchdog, now) = watchdog();
        assert!(!watchdog.is_due(now) && watchdog.is_due(now.after(SECOND)));
        for seen in
            [pulse(0, false), pulse(0, false), pulse(0, true), pulse(9, true), pulse(10, true), pulse(10, false)]
        {
            assert_eq!(watchdog.look(now, seen), Verdict::Beat);
            assert_eq!(watchdog.deadline(), Some(now.after(SECOND)));
        }
    }

    #[test]
    fn work_that_waits_from_one_look_to_the_next_without_any_move_silences_it() {
        let (mut watchdog, now) = watchdog();
        let seen = [pulse(5, true), pulse(5, true), pulse(5, true), pulse(6, true), pulse(6, true), pulse(6, false)];
        let verdicts = seen.map(|pulse| watchdog.look(now, pulse));
        let expected = [
            Verdict::Beat,
            Verdict::Stuck,
            Verdict::StillStuck,
            Verdict::BeatAgain,
            Verdict::Stuck,
            Verdict::BeatAgain,
        ];
        assert_eq!(verdicts, expected);
    }

    #[test]
    fn one_that_is_stuck_is_looked_at_more_often() {
        let (mut watchdog, now) = watchdog();
        watchdog.look(now, pulse(5, true));
        watchdog.look(now, pulse(5, true));
        assert_eq!(watchdog.deadline(), Some(now.after(SECOND / 4)));
    }
}
