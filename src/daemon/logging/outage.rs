//! The outage of a sink: counts the lines that the sink did not take, tries again every second, and reports the count.
//!
//! In comes a function that writes to the sink; this module decides when to call it. Time is an argument, so the
//! decision is tested without a clock and without a sink.

use std::time::{Duration, Instant};

/// Time between two attempts to write to a sink that failed. On a full disk an attempt for each line would cost a
/// system call each.
const RETRY: Duration = Duration::from_secs(1);

/// What the sink is to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// A message that so many lines were lost here.
    Lost(u64),
    /// The line itself.
    Line,
}

/// The state of one sink.
#[derive(Debug, Default)]
pub(crate) struct Outage {
    lost: u64,
    /// The time of the next attempt, after one that failed.
    again: Option<Instant>,
}

impl Outage {
    /// Writes a line with `sink`, unless the last attempt failed less than [`RETRY`] ago. Returns the error that began
    /// an outage.
    pub(crate) fn write<E>(&mut self, now: Instant, mut sink: impl FnMut(Part) -> Result<(), E>) -> Option<E> {
        if self.again.is_some_and(|again| now < again) {
            self.lost += 1;
            return None;
        }
        let mut outcome = match self.lost {
            0 => Ok(()),
            lost => sink(Part::Lost(lost)).map(|()| self.lost = 0),
        };
        if outcome.is_ok() {
            outcome = sink(Part::Line);
        }
        self.again = outcome.is_err().then(|| now + RETRY);
        let error = outcome.err()?;
        self.lost += 1;
        (self.lost == 1).then_some(error)
    }

    /// True when the last line could not be written.
    pub(crate) fn is_lasting(&self) -> bool {
        self.again.is_some()
    }

    /// Ends the wait for the next attempt: the caller has opened the sink again.
    pub(crate) fn retry_now(&mut self) {
        self.again = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_lines_are_counted_and_the_count_is_reported() {
        let (start, mut outage, mut written) = (Instant::now(), Outage::default(), vec![]);
        let mut at = |millis, works| {
            let before = written.len();
            let error = outage.write(start + Duration::from_millis(millis), |part| {
                written.push(part);
                if works { Ok(()) } else { Err("full") }
            });
            (error, written[before..].to_vec())
        };
        assert_eq!(at(0, true), (None, vec![Part::Line]));
        assert_eq!(at(1, false), (Some("full"), vec![Part::Line]));
        assert_eq!(at(2, true), (None, vec![]), "not tried for every line");
        assert_eq!(at(1_000, true), (None, vec![]));
        assert_eq!(at(1_001, false), (None, vec![Part::Lost(3)]), "reported once");
        assert_eq!(at(2_001, true), (None, vec![Part::Lost(4), Part::Line]));
        assert_eq!(at(2_002, true), (None, vec![Part::Line]));
        assert_eq!(at(2_003, false), (Some("full"), vec![Part::Line]));
    }
}
