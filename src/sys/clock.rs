//! Monotonic time in whole milliseconds, small enough for an atomic on every target.
//!
//! A deadline is compared and stored by several threads for every request, so it is a 32-bit [`Tick`], modulo
//! 2^32 ms (49 days). That is sound because every deadline lies at most [`MAX_TIMEOUT`] ahead, far below half
//! of the range. The wall clock has no part in it: a jump of it changes nothing.
//!
//! [`MAX_TIMEOUT`]: crate::config::MAX_TIMEOUT

use std::time::{Duration, Instant};

/// A moment, in milliseconds since the clock's start, modulo 2^32. Never 0: that is "none" where an atomic holds one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tick(u32);

impl Tick {
    /// The tick that an atomic holds; 0 is none.
    pub(crate) fn from_raw(raw: u32) -> Option<Tick> {
        (raw != 0).then_some(Tick(raw))
    }

    /// What an atomic holds for a tick.
    pub(crate) fn to_raw(tick: Option<Tick>) -> u32 {
        tick.map_or(0, |tick| tick.0)
    }

    pub(crate) fn after(self, wait: Duration) -> Tick {
        // Rounded up, and one more because the present is rounded down: a deadline is never met early.
        // In 32 bits, for no wait is longer than MAX_TIMEOUT: wider divisions are slow on a 32-bit processor.
        let millis = (wait.as_secs() as u32).wrapping_mul(1_000).wrapping_add(wait.subsec_nanos().div_ceil(1_000_000));
        Tick(self.0.wrapping_add(millis).wrapping_add(u32::from(millis > 0)).max(1))
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
        // Modulo 2^32, so seconds of any width will do.
        let time = self.0.elapsed();
        Tick((time.as_secs() as u32).wrapping_mul(1_000).wrapping_add(time.subsec_millis()).wrapping_add(1).max(1))
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
        assert_eq!(Tick(1).after(Duration::new(2, 1)), Tick(1 + 2_001 + 1));
        assert_eq!(Tick(1).after(Duration::ZERO), Tick(1));
    }
}
