//! What a sink does while it cannot be written to: it counts, tries again now and then, and owns up.

use std::time::{Duration, Instant};

/// A sink that fails is left alone this long: a full disk is not fuller for being asked for every line.
const RETRY: Duration = Duration::from_secs(1);

/// What is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// That so many lines before this one were lost.
    Lost(u64),
    /// The line itself.
    Line,
}

/// The state of one sink. Time is an argument, so this is tested without a clock.
#[derive(Debug, Default)]
pub struct Outage {
    lost: u64,
    again: Option<Instant>,
}

impl Outage {
    /// Writes a line with `write`, unless the sink failed a moment ago. Returns the error that began an outage.
    pub fn pass<E>(&mut self, now: Instant, mut write: impl FnMut(Part) -> Result<(), E>) -> Option<E> {
        if self.again.is_some_and(|again| now < again) {
            self.lost += 1;
            return None;
        }
        let mut outcome = match self.lost {
            0 => Ok(()),
            lost => write(Part::Lost(lost)).map(|()| self.lost = 0),
        };
        if outcome.is_ok() {
            outcome = write(Part::Line);
        }
        self.again = outcome.is_err().then(|| now + RETRY);
        let error = outcome.err()?;
        self.lost += 1;
        (self.lost == 1).then_some(error)
    }

    /// The last line could not be written.
    pub fn lasts(&self) -> bool {
        self.again.is_some()
    }

    /// The sink is another one now, which may work.
    pub fn retry_now(&mut self) {
        self.again = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_lost_counted_and_owned_up_to() {
        let (start, mut outage, mut written) = (Instant::now(), Outage::default(), vec![]);
        let mut at = |millis, works| {
            let before = written.len();
            let error = outage.pass(start + Duration::from_millis(millis), |part| {
                written.push(part);
                if works { Ok(()) } else { Err("full") }
            });
            (error, written[before..].to_vec())
        };
        assert_eq!(at(0, true), (None, vec![Part::Line]));
        assert_eq!(at(1, false), (Some("full"), vec![Part::Line]));
        assert_eq!(at(2, true), (None, vec![]), "not tried for every line");
        assert_eq!(at(1_000, true), (None, vec![]));
        assert_eq!(at(1_001, false), (None, vec![Part::Lost(3)]), "told once");
        assert_eq!(at(2_001, true), (None, vec![Part::Lost(4), Part::Line]));
        assert_eq!(at(2_002, true), (None, vec![Part::Line]));
        assert_eq!(at(2_003, false), (Some("full"), vec![Part::Line]));
    }
}
