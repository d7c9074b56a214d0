//! When the accept loop next looks at the deadlines of the parked connections.
//!
//! A deadline is set for every request, and nearly always to a later time than the one before it. So nobody
//! keeps a sorted list: the accept loop sleeps until the earliest deadline it found when it last looked, and a
//! worker disturbs it only to announce an earlier one. Looking finds the next one to sleep for.

use super::sync::{Mutex, lock};
use crate::clock::{Alarm, Tick};

#[derive(Debug, Default)]
pub(super) struct Schedule(Mutex<Plan>);

#[derive(Debug, Default)]
struct Plan {
    /// The accept loop looks then, or not before it is told to.
    next: Option<Tick>,
}

impl Schedule {
    /// Sets a deadline. True when the accept loop sleeps past it and must be woken.
    pub(super) fn set(&self, alarm: &Alarm, deadline: Option<Tick>) -> bool {
        let before = alarm.set(deadline);
        match (before, deadline) {
            (_, None) => false,
            // The accept loop planned for the earlier one, or is looking right now and will find one of the two.
            (Some(before), Some(deadline)) if !deadline.is_before(before) => false,
            (_, Some(deadline)) => self.announce(deadline),
        }
    }

    fn announce(&self, deadline: Tick) -> bool {
        let mut plan = lock(&self.0);
        let earlier = plan.next.is_none_or(|next| deadline.is_before(next));
        if earlier {
            plan.next = Some(deadline);
        }
        earlier
    }

    /// Starts a look: from now on every new deadline is announced.
    pub(super) fn begin(&self) {
        lock(&self.0).next = None;
    }

    /// Ends a look that found `earliest`.
    pub(super) fn end(&self, earliest: Option<Tick>) {
        if let Some(earliest) = earliest {
            self.announce(earliest);
        }
    }

    /// When to look next.
    pub(super) fn next(&self) -> Option<Tick> {
        lock(&self.0).next
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use std::time::Duration;

    #[test]
    fn only_an_earlier_deadline_disturbs_the_accept_loop() {
        let (schedule, now) = (Schedule::default(), Clock::start().now());
        let at = |seconds| Some(now.after(Duration::from_secs(seconds)));
        let (one, two) = (Alarm::default(), Alarm::default());
        assert!(schedule.set(&one, at(30)), "the first one");
        assert!(!schedule.set(&two, at(40)), "a later one");
        assert!(!schedule.set(&one, at(50)), "a postponed one: the accept loop looks at 30 and finds out");
        assert!(schedule.set(&two, at(10)), "an earlier one");
        assert_eq!(schedule.next(), at(10));
        schedule.begin();
        schedule.end(at(45));
        assert_eq!(schedule.next(), at(45));
        assert!(!schedule.set(&two, None));
    }
}
