//! The outage of a sink: counts the lines that the sink did not take, tries again every second, and reports the count.
//!
//! In comes a function that writes to the sink; this module decides when to call it. Time is an argument, so the
//! decision is tested without a clock and without a sink.

use std::io;
use std::time::{Duration, Instant};

use super::line::Line;

/// Time between two attempts to write to a sink that failed. On a full disk an attempt for each line would cost a
/// system call each.
const RETRY: Duration = Duration::from_secs(1);

/// The state of one sink.
#[derive(Debug, Default)]
pub(crate) struct Outage {
    lost: u64,
    /// The time of the next attempt, after one that failed. `None` makes the next line an attempt.
    pub(crate) next_attempt: Option<Instant>,
}

impl Outage {
    /// Writes a line with `sink`, unless the last attempt failed less than [`RETRY`] ago. After an outage, a warning
    /// goes before the line. Returns the error that began an outage.
    pub(crate) fn write(
        &mut self,
        now: Instant,
        line: &Line,
        mut sink: impl FnMut(&Line) -> io::Result<()>,
    ) -> Option<io::Error> {
        if self.next_attempt.is_some_and(|next| now < next) {
            self.lost += 1;
            return None;
        }
        let reported = match self.lost {
            0 => Ok(()),
            lost => sink(&Line::warning(&format_args!("{lost} log lines were lost here"))).map(|()| self.lost = 0),
        };
        let outcome = reported.and_then(|()| sink(line));
        self.next_attempt = outcome.is_err().then(|| now + RETRY);
        let error = outcome.err()?;
        self.lost += 1;
        (self.lost == 1).then_some(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_lines_are_counted_and_the_count_is_reported() {
        let (start, mut outage, line) = (Instant::now(), Outage::default(), Line::warning(&"the line"));
        let mut at = |millis, works| {
            let mut written = vec![];
            let error = outage.write(start + Duration::from_millis(millis), &line, |line| {
                written.push(line.text().to_string());
                if works { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
            });
            (error.is_some(), written.join(", "))
        };
        let mut expect = |millis, works, error, written: &str| {
            assert_eq!(at(millis, works), (error, written.to_string()), "after {millis} ms");
        };
        expect(0, true, false, "the line");
        expect(1, false, true, "the line");
        // Not tried for every line.
        expect(2, true, false, "");
        expect(1_000, true, false, "");
        // Reported once.
        expect(1_001, false, false, "3 log lines were lost here");
        expect(2_001, true, false, "4 log lines were lost here, the line");
        expect(2_002, true, false, "the line");
        expect(2_003, false, true, "the line");
    }
}
