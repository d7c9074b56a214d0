//! The watchdog: shows a supervisor, at a fixed interval, that the server makes progress.
//!
//! In comes what the workers have done by then; out goes a call of the embedding program's closure, or none while the
//! workers stand still. The accept loop makes the call, so a ping shows that this loop runs too.

use std::time::Duration;

use crate::engine::Activity;
use crate::sys::Tick;

/// What the embedding program does at each interval.
pub(super) type Ping = Box<dyn FnMut() + Send>;

pub(super) struct Watchdog {
    pub(super) ping: Ping,
    pub(super) interval: Duration,
    /// When to look next.
    pub(super) next: Option<Tick>,
    /// What the workers had done at the last look, if work waited then.
    stuck_at: Option<u64>,
    is_stuck: bool,
}

/// What a look has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Ping,
    /// The workers have begun to move again.
    PingAgain,
    /// Something waits, and no worker has moved since the last look: the first of these.
    Stuck,
    StillStuck,
}

impl Watchdog {
    pub(super) fn new(interval: Duration, ping: Ping) -> Watchdog {
        Watchdog { ping, interval, next: None, stuck_at: None, is_stuck: false }
    }

    pub(super) fn start(&mut self, now: Tick) {
        self.next = Some(now.after(self.interval));
    }

    pub(super) fn is_due(&self, now: Tick) -> bool {
        self.next.is_some_and(|next| next.reached(now))
    }

    /// Judges what is seen now, and plans the next look.
    pub(super) fn look(&mut self, now: Tick, activity: Activity) -> Look {
        let stuck = activity.work_waits && self.stuck_at == Some(activity.moves);
        self.stuck_at = activity.work_waits.then_some(activity.moves);
        let look = match (self.is_stuck, stuck) {
            (false, false) => Look::Ping,
            (true, false) => Look::PingAgain,
            (false, true) => Look::Stuck,
            (true, true) => Look::StillStuck,
        };
        self.is_stuck = stuck;
        // The supervisor allows two intervals, so it can miss one ping. While the workers stand still the looks come
        // more often, so that the next ping comes soon after they move.
        self.next = Some(now.after(if stuck { self.interval / 4 } else { self.interval }));
        look
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Clock;

    const SECOND: Duration = Duration::from_secs(1);

    fn watchdog() -> (Watchdog, Tick) {
        let (mut watchdog, now) = (Watchdog::new(SECOND, Box::new(|| {})), Clock.now());
        watchdog.start(now);
        (watchdog, now)
    }

    fn activity(moves: u64, work_waits: bool) -> Activity {
        Activity { moves, work_waits }
    }

    #[test]
    fn an_idle_server_and_a_busy_one_ping() {
        let (mut watchdog, now) = watchdog();
        assert!(!watchdog.is_due(now) && watchdog.is_due(now.after(SECOND)));
        for seen in [
            activity(0, false),
            activity(0, false),
            activity(0, true),
            activity(9, true),
            activity(10, true),
            activity(10, false),
        ] {
            assert_eq!(watchdog.look(now, seen), Look::Ping);
            assert_eq!(watchdog.next, Some(now.after(SECOND)));
        }
    }

    #[test]
    fn work_that_waits_from_one_look_to_the_next_without_any_move_silences_it() {
        let (mut watchdog, now) = watchdog();
        let seen = [
            activity(5, true),
            activity(5, true),
            activity(5, true),
            activity(6, true),
            activity(6, true),
            activity(6, false),
        ];
        let looks = seen.map(|activity| watchdog.look(now, activity));
        let expected = [Look::Ping, Look::Stuck, Look::StillStuck, Look::PingAgain, Look::Stuck, Look::PingAgain];
        assert_eq!(looks, expected);
    }

    #[test]
    fn one_that_is_stuck_is_looked_at_more_often() {
        let (mut watchdog, now) = watchdog();
        watchdog.look(now, activity(5, true));
        watchdog.look(now, activity(5, true));
        assert_eq!(watchdog.next, Some(now.after(SECOND / 4)));
    }
}
