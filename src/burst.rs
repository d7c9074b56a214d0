//! Log lines for what may happen thousands of times a second: one for each burst, with a count of the rest.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A burst is over after this long without an event.
const QUIET: Duration = Duration::from_secs(1);

/// Decides which events of one kind get a line.
#[derive(Debug)]
pub(crate) struct Burst {
    /// Within a burst, one line per this long.
    repeat: Duration,
    state: Mutex<Option<State>>,
}

#[derive(Debug)]
struct State {
    event: Instant,
    line: Instant,
    left_out: u64,
}

impl Burst {
    pub(crate) const fn new(repeat: Duration) -> Burst {
        Burst { repeat, state: Mutex::new(None) }
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
                last.left_out += 1;
                None
            }
            slot => {
                let left_out = slot.as_ref().map_or(0, |last| last.left_out);
                *slot = Some(State { event: now, line: now, left_out: 0 });
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
        let burst = Burst::new(Duration::from_secs(60));
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
}
