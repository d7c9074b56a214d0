//! Monotonic time in whole milliseconds, small enough for an atomic on every target.
//!
//! A [`Tick`] counts modulo 2^32 ms (49.7 days), and two ticks are compared by their difference. So a comparison is
//! right while the two lie less than half of that apart. A deadline lies at most [`RENEWAL`] ahead; code that keeps a
//! tick of the past clears it when it is over. The wall clock has no part in this: a jump of it changes nothing.
//!
//! [`RENEWAL`]: crate::config::RENEWAL

use std::num::NonZeroU32;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// A moment, in milliseconds modulo 2^32. Never 0, so that an `Option<Tick>` fits into 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tick(NonZeroU32);

impl Tick {
    /// The tick that an atomic holds; 0 is none.
    pub(crate) fn from_raw(raw: u32) -> Option<Tick> {
        NonZeroU32::new(raw).map(Tick)
    }

    /// What an atomic holds for a tick.
    pub(crate) fn to_raw(tick: Option<Tick>) -> u32 {
        tick.map_or(0, |tick| tick.0.get())
    }

    fn new(millis: u32) -> Tick {
        // The millisecond 0 counts as the one after it.
        Tick(NonZeroU32::new(millis).unwrap_or(NonZeroU32::MIN))
    }

    /// The deadline that lies `wait` ahead. It is never met early: `wait` is rounded up, and one more is added because
    /// the present was rounded down.
    pub(crate) fn after(self, wait: Duration) -> Tick {
        // 32 bits suffice, for no wait is longer than RENEWAL; wider divisions are slow on a 32-bit processor.
        let millis = (wait.as_secs() as u32).wrapping_mul(1_000).wrapping_add(wait.subsec_nanos().div_ceil(1_000_000));
        Tick::new(self.0.get().wrapping_add(millis).wrapping_add(u32::from(millis > 0)))
    }

    pub(crate) fn is_before(self, other: Tick) -> bool {
        (self.0.get().wrapping_sub(other.0.get()) as i32) < 0
    }

    /// True when this deadline has come at `now`.
    pub(crate) fn reached(self, now: Tick) -> bool {
        !now.is_before(self)
    }

    /// What is left until this deadline; zero when it has come.
    pub(crate) fn until(self, now: Tick) -> Duration {
        match self.reached(now) {
            true => Duration::ZERO,
            false => Duration::from_millis(self.0.get().wrapping_sub(now.0.get()).into()),
        }
    }

    /// The earliest of some ticks, of which each may be none.
    pub(crate) fn earliest(ticks: impl IntoIterator<Item = Option<Tick>>) -> Option<Tick> {
        ticks.into_iter().flatten().reduce(|first, next| if next.is_before(first) { next } else { first })
    }
}

/// The source of ticks: CLOCK_MONOTONIC of clock_gettime(2).
#[derive(Debug, Default)]
pub(crate) struct Clock;

impl Clock {
    pub(crate) fn now(&self) -> Tick {
        // The call cannot fail: every kernel has this clock, and the result has a place.
        let time = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or((0, 0), |time| (time.tv_sec(), time.tv_nsec()));
        // Modulo 2^32, so seconds of any width will do.
        Tick::new((time.0 as u32).wrapping_mul(1_000).wrapping_add(time.1 as u32 / 1_000_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tick(raw: u32) -> Tick {
        Tick::from_raw(raw).unwrap()
    }

    #[test]
    fn deadlines_hold_across_the_wrap() {
        let late = tick(u32::MAX - 10);
        let next = late.after(Duration::from_millis(100));
        assert_eq!(next, tick(90));
        assert!(late.is_before(next) && !next.is_before(late));
        assert!(!next.reached(late) && next.reached(next));
        assert_eq!(next.until(late), Duration::from_millis(101));
        assert_eq!(late.until(next), Duration::ZERO);
        assert_eq!(Tick::earliest([None, Some(next), Some(late)]), Some(late));
    }

    #[test]
    fn a_tick_is_never_the_unset_value() {
        assert_eq!(tick(u32::MAX - 1).after(Duration::from_millis(1)), tick(1));
    }

    #[test]
    fn waits_are_rounded_up() {
        assert_eq!(tick(1).after(Duration::from_micros(1)), tick(3));
        assert_eq!(tick(1).after(Duration::new(2, 1)), tick(1 + 2_001 + 1));
        assert_eq!(tick(1).after(Duration::ZERO), tick(1));
    }

    #[test]
    fn the_clock_runs() {
        let before = Clock.now();
        while !before.is_before(Clock.now()) {}
    }
}
