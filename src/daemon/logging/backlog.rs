//! The backlog of a sink: the lines that it has not taken yet, of bounded size, and the count of those that were lost.
//!
//! In comes a function that writes to the sink without waiting; this module decides when to call it. Time is an
//! argument, so the decision is tested without a clock and without a sink.

use std::io;
use std::time::{Duration, Instant};

use super::line::{self, Line};

/// Bytes of lines that wait for a sink.
pub(crate) const SIZE: usize = 16 * 1024;
/// Time between two attempts to write to a sink that failed. On a full disk an attempt for each line would cost a
/// system call each.
const RETRY: Duration = Duration::from_secs(1);

/// Appends a line, in the form that a sink wants, with a newline.
pub(crate) type Form = fn(&Line, &mut Vec<u8>);

/// Writes the beginning of some lines, and returns how many bytes that were.
pub(crate) type Write<'a> = &'a mut dyn FnMut(&[u8]) -> io::Result<usize>;

/// What is left after the sink has taken what it can.
#[derive(Debug)]
pub(crate) enum Rest {
    Nothing,
    /// The sink has no room. The backlog must be flushed when it has.
    Blocked,
    /// The sink has failed. The next line is the next attempt, if it comes late enough.
    Failing,
    /// As `Failing`, and this error was the first.
    Failed(io::Error),
}

#[derive(Debug)]
pub(crate) struct Backlog {
    /// Invariant: never more than `SIZE` bytes; they, and a line more, are allocated at start.
    bytes: Vec<u8>,
    form: Form,
    /// `bytes` begins with the rest of a line.
    within_line: bool,
    /// Lines that were lost since the count was last reported.
    lost: u64,
    /// The time of the next attempt, after one that failed. `None` makes the next line an attempt.
    pub(crate) next_attempt: Option<Instant>,
}

impl Backlog {
    pub(crate) fn new(form: Form) -> Backlog {
        Backlog {
            bytes: Vec::with_capacity(SIZE + line::LONGEST),
            form,
            within_line: false,
            lost: 0,
            next_attempt: None,
        }
    }

    /// Adds a line, and writes what the sink takes. Returns what is left, and how many lines were lost: this one, if any.
    pub(crate) fn push(&mut self, now: Instant, line: &Line, write: Write<'_>) -> (Rest, u64) {
        let mut rest = Rest::Nothing;
        if self.lost > 0 || self.bytes.len() + line::LONGEST > SIZE {
            rest = self.flush(now, write);
            // With less room than this the count would be all that fits, again and again.
            if self.bytes.len() + 2 * line::LONGEST <= SIZE {
                self.report_lost();
            }
        }
        let kept = self.lost == 0 && self.append(line);
        self.lost += u64::from(!kept);
        if !matches!(rest, Rest::Failed(_)) {
            rest = self.flush(now, write);
        }
        (rest, u64::from(!kept))
    }

    /// Writes what the sink takes: the lines that wait, then the count of those that were lost.
    pub(crate) fn flush(&mut self, now: Instant, write: Write<'_>) -> Rest {
        if self.next_attempt.is_some_and(|next| now < next) {
            return Rest::Failing;
        }
        loop {
            while !self.bytes.is_empty() {
                match write(&self.bytes) {
                    Ok(count) => self.within_line = self.bytes.drain(..count).next_back() != Some(b'\n'),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Rest::Blocked,
                    Err(error) => {
                        let first = self.next_attempt.replace(now + RETRY).is_none();
                        return if first { Rest::Failed(error) } else { Rest::Failing };
                    }
                }
                self.next_attempt = None;
            }
            if self.lost == 0 {
                return Rest::Nothing;
            }
            self.report_lost();
        }
    }

    /// Drops the rest of a line whose beginning went elsewhere.
    pub(crate) fn drop_rest_of_line(&mut self) {
        if std::mem::take(&mut self.within_line) {
            let end = self.bytes.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            self.bytes.drain(..end);
        }
    }

    /// Drops the lines that wait, and returns how many there were.
    pub(crate) fn clear(&mut self) -> u64 {
        let lines = self.bytes.iter().filter(|byte| **byte == b'\n').count();
        self.bytes.clear();
        (self.within_line, self.lost) = (false, 0);
        lines as u64
    }

    /// Puts the count of lost lines where they would have been, if there is room for that.
    fn report_lost(&mut self) {
        if self.lost > 0 && self.append(&Line::warning(&format_args!("{} log lines were lost here", self.lost))) {
            self.lost = 0;
        }
    }

    /// Keeps a line, if there is room for it.
    fn append(&mut self, line: &Line) -> bool {
        let end = self.bytes.len();
        (self.form)(line, &mut self.bytes);
        let fits = self.bytes.len() <= SIZE;
        if !fits {
            self.bytes.truncate(end);
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sink that takes so many bytes, or fails.
    struct Sink {
        room: usize,
        fails: bool,
        taken: Vec<u8>,
        calls: u32,
    }

    impl Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.calls += 1;
            let count = self.room.min(bytes.len());
            match (self.fails, count) {
                (true, _) => Err(io::ErrorKind::StorageFull.into()),
                (_, 0) => Err(io::ErrorKind::WouldBlock.into()),
                _ => {
                    self.taken.extend_from_slice(&bytes[..count]);
                    self.room -= count;
                    Ok(count)
                }
            }
        }

        /// The texts of the whole lines that were taken.
        fn texts(&self) -> Vec<String> {
            let lines = String::from_utf8(self.taken.clone()).unwrap();
            lines.lines().map(|line| line.split_once("] ").unwrap().1.to_string()).collect()
        }
    }

    fn sink(room: usize) -> (Backlog, Sink, Instant) {
        (Backlog::new(line::stamped), Sink { room, fails: false, taken: vec![], calls: 0 }, Instant::now())
    }

    #[test]
    fn what_a_sink_does_not_take_waits_and_what_does_not_fit_is_counted_in_its_place() {
        let (mut backlog, mut sink, now) = sink(10);
        let line = |number: u64| Line::warning(&format_args!("line {number:04}"));
        let mut lost = 0;
        for number in 0..1_000 {
            let (rest, count) = backlog.push(now, &line(number), &mut |bytes| sink.write(bytes));
            assert!(matches!(rest, Rest::Blocked), "{rest:?}");
            lost += count;
        }
        assert!(backlog.bytes.len() <= SIZE && backlog.bytes.capacity() == SIZE + line::LONGEST);
        let kept = 1_000 - lost;
        // Some room: the count goes in where the lines are missing, the next line behind it.
        sink.room = SIZE / 2;
        assert_eq!(backlog.push(now, &line(1_000), &mut |bytes| sink.write(bytes)).1, 0);
        sink.room = usize::MAX;
        assert!(matches!(backlog.flush(now, &mut |bytes| sink.write(bytes)), Rest::Nothing));
        let mut expected: Vec<String> = (0..kept).map(|number| format!("line {number:04}")).collect();
        expected.extend([format!("{lost} log lines were lost here"), "line 1000".into()]);
        assert_eq!(sink.texts(), expected);
    }

    #[test]
    fn the_count_does_not_wait_for_another_line() {
        let (mut backlog, mut sink, now) = sink(0);
        let long = Line::warning(&"x".repeat(3_000));
        let lost: u64 = (0..8).map(|_| backlog.push(now, &long, &mut |bytes| sink.write(bytes)).1).sum();
        // Five lines fit.
        assert_eq!(lost, 3);
        sink.room = usize::MAX;
        assert!(matches!(backlog.flush(now, &mut |bytes| sink.write(bytes)), Rest::Nothing));
        assert_eq!(sink.texts().last().unwrap(), "3 log lines were lost here");
    }

    #[test]
    fn a_sink_that_fails_is_tried_again_every_second() {
        let (mut backlog, mut sink, start) = sink(usize::MAX);
        let line = Line::warning(&"the line");
        let mut at = |millis: u64, fails| {
            (sink.fails, sink.calls) = (fails, 0);
            let now = start + Duration::from_millis(millis);
            let (rest, _) = backlog.push(now, &line, &mut |bytes| sink.write(bytes));
            (matches!(rest, Rest::Failed(_)), sink.calls, sink.texts().len())
        };
        assert_eq!(at(0, false), (false, 1, 1));
        assert_eq!(at(1, true), (true, 1, 1), "the first error is told");
        assert_eq!(at(2, false), (false, 0, 1), "not tried for every line");
        assert_eq!(at(1_001, true), (false, 1, 1), "told once");
        assert_eq!(at(2_000, false), (false, 0, 1));
        assert_eq!(at(2_001, false), (false, 1, 6), "the lines have waited");
        assert_eq!(at(2_002, true), (true, 1, 6));
    }

    #[test]
    fn a_failure_is_told_once_whatever_finds_it() {
        let (mut backlog, mut sink, now) = sink(10);
        let long = Line::warning(&"x".repeat(3_000));
        (0..8).for_each(|_| drop(backlog.push(now, &long, &mut |bytes| sink.write(bytes))));
        sink.fails = true;
        let rest = backlog.push(now, &long, &mut |bytes| sink.write(bytes)).0;
        assert!(matches!(rest, Rest::Failed(_)), "a full backlog is flushed before the line is added: {rest:?}");
        assert!(matches!(backlog.flush(now, &mut |bytes| sink.write(bytes)), Rest::Failing));
    }

    #[test]
    fn the_rest_of_a_line_can_be_dropped() {
        let (mut backlog, mut sink, now) = sink(20);
        for text in ["first", "second"] {
            backlog.push(now, &Line::warning(&text), &mut |bytes| sink.write(bytes));
        }
        let first = sink.taken.len();
        backlog.drop_rest_of_line();
        backlog.drop_rest_of_line();
        sink.room = usize::MAX;
        backlog.flush(now, &mut |bytes| sink.write(bytes));
        assert!(sink.taken[first..].starts_with(b"20") && sink.taken.ends_with(b" second\n"));
    }

    #[test]
    fn lines_that_are_given_up_are_counted() {
        let (mut backlog, mut sink, now) = sink(5);
        for _ in 0..3 {
            backlog.push(now, &Line::warning(&"the line"), &mut |bytes| sink.write(bytes));
        }
        assert_eq!((backlog.clear(), backlog.clear()), (3, 0));
    }
}
