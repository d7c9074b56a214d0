//! Monotonic time in whole milliseconds, small enough for an atomic on every target.
//!
//! A deadline is compared and stored by several threads for every request, so it is a 32-bit [`Tick`], modulo
//! 2^32 ms (49 days). That is sound because every deadline lies at most [`MAX_TIMEOUT`] ahead, far below half
//! of the range. The wall clock has no part in it: a jump of it changes nothing.
//!
//! [`MAX_TIMEOUT`]: crate::config::MAX_TIMEOUT

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A moment, in milliseconds since the clock's start, modulo 2^32. Never 0: that is "unset" in an [`Alarm`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tick(u32);

impl Tick {
    pub(crate) fn after(self, wait: Duration) -> Tick {
        // Rounded up, and one more because the present is rounded down: a deadline is never met early.
        let millis = if wait.is_zero() { 0 } else { wait.as_nanos().div_ceil(1_000_000) as u32 + 1 };
        Tick(self.0.wrapping_add(millis).max(1))
    }

    pub(crate) fn is_before(self, other: Tick) -> bool {
        (self.0.wrapping_sub(other.0) as i32) < 0
    }

    /// True when this deadline has come at `now`.
    pub(crate) fn reached(self, now: Tick) -> bool {
        !now.is_before(self)
    }

    /// What is left until this deadline; zero when it has come.
    pub(crate) fn until(self, now: Tick) -> Duration {
        match self.reached(now) {
            true => Duration::ZERO,
            false => Duration::from_millis(self.0.wrapping_sub(now.0).into()),
        }
    }
}

/// The source of ticks.
#[derive(Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Clock {
        Clock(Instant::now())
    }

    pub(crate) fn now(&self) -> Tick {
        Tick((self.0.elapsed().as_millis() as u32).wrapping_add(1).max(1))
    }
}

/// A deadline that one thread sets and another reads, or none.
#[derive(Debug, Default)]
pub(crate) struct Alarm(AtomicU32);

impl Alarm {
    pub(crate) fn get(&self) -> Option<Tick> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            raw => Some(Tick(raw)),
        }
    }

    /// Sets the deadline and returns the one that stood before.
    pub(crate) fn set(&self, deadline: Option<Tick>) -> Option<Tick> {
        // One exchange: a deadline that is cleared between a load and a store would be forgotten.
        match self.0.swap(deadline.map_or(0, |tick| tick.0), Ordering::Relaxed) {
            0 => None,
            before => Some(Tick(before)),
        }
    }

    /// Clears the deadline if it still is `seen`, and returns whether it was.
    pub(crate) fn clear_if(&self, seen: Tick) -> bool {
        self.0.compare_exchange(seen.0, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_hold_across_the_wrap() {
        let late = Tick(u32::MAX - 10);
        let next = late.after(Duration::from_millis(100));
        assert_eq!(next, Tick(90));
        assert!(late.is_before(next) && !next.is_before(late));
        assert!(!next.reached(late) && next.reached(next));
        assert_eq!(next.until(late), Duration::from_millis(101));
        assert_eq!(late.until(next), Duration::ZERO);
    }

    #[test]
    fn a_tick_is_never_the_unset_value() {
        assert_eq!(Tick(u32::MAX - 1).after(Duration::from_millis(1)), Tick(1));
    }

    #[test]
    fn waits_are_rounded_up() {
        assert_eq!(Tick(1).after(Duration::from_micros(1)), Tick(3));
        assert_eq!(Tick(1).after(Duration::ZERO), Tick(1));
    }

    #[test]
    fn an_alarm_is_cleared_only_when_it_is_the_one_seen() {
        let alarm = Alarm::default();
        assert_eq!(alarm.set(Some(Tick(5))), None);
        assert!(!alarm.clear_if(Tick(6)));
        assert_eq!(alarm.get(), Some(Tick(5)));
        assert!(alarm.clear_if(Tick(5)));
        assert_eq!(alarm.get(), None);
    }
}
