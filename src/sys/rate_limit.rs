//! Log lines for what may happen thousands of times a second: the first of each burst, with a count of the rest.
//! It also counts other things that may be done only so often a second.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A burst is over after this long without an event.
const QUIET: Duration = Duration::from_secs(1);

/// Decides which events of one kind get a line.
#[derive(Debug)]
pub(crate) struct RateLimit {
    /// Within a burst, so many lines per this long.
    repeat: Duration,
    lines: u32,
    state: Mutex<Option<State>>,
}

#[derive(Debug)]
struct State {
    event: Instant,
    line: Instant,
    /// Lines that may still follow the one at `line`.
    spare: u32,
    left_out: u64,
}

impl RateLimit {
    /// That many lines, at least one, per `repeat`.
    pub(crate) fn new(lines: u32, repeat: Duration) -> RateLimit {
        RateLimit { repeat, lines, state: Mutex::new(None) }
    }

    /// Counts an event. `Some(n)` when it gets a line, n events having gone without one before it.
    pub(crate) fn event(&self) -> Option<u64> {
        self.event_at(Instant::now())
    }

    fn event_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *state {
            Some(last) if now - last.event < QUIET && now - last.line < self.repeat => {
                last.event = now;
                let gets_line = last.spare > 0;
                last.spare -= u32::from(gets_line);
                last.left_out += u64::from(!gets_line);
                gets_line.then_some(0)
            }
            slot => {
                let left_out = slot.as_ref().map_or(0, |last| last.left_out);
                *slot = Some(State { event: now, line: now, spare: self.lines.saturating_sub(1), left_out: 0 });
                Some(left_out)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_gets_one_line_and_the_next_line_the_count() {
        let burst = RateLimit::new(1, Duration::from_secs(60));
        let start = Instant::now();
        let at = |millis| burst.event_at(start + Duration::from_millis(millis));
        assert_eq!(at(0), Some(0));
        for step in 1..100 {
            assert_eq!(at(step * 500), None);
        }
        assert_eq!(at(60_000), Some(99), "quiet for over a second");
        assert_eq!(at(60_001), None);
        for step in 1..121 {
            assert_eq!(at(60_000 + step * 500).is_some(), step == 120, "one a minute within a burst");
        }
    }

    #[test]
    fn the_first_few_of_a_burst_may_have_a_line_each() {
        let burst = RateLimit::new(3, Duration::from_secs(1));
        let start = Instant::now();
        let at = |millis| burst.event_at(start + Duration::from_millis(millis));
        assert_eq!([at(0), at(1), at(2), at(3), at(999)], [Some(0), Some(0), Some(0), None, None]);
        assert_eq!([at(1_000), at(1_001), at(1_002), at(1_003)], [Some(2), Some(0), Some(0), None]);
    }
}
