//! One log line, composed once for every sink.
//!
//! In come the level and the text of a record, out goes a line, escaped and truncated to a length, in the form that a
//! sink wants. Composing allocates nothing. Log lines contain texts of clients: with a newline in such a
//! text a client could forge a line, and with an escape sequence it could control the terminal that shows the log.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::process;

use log::Level;

use crate::sys::localtime::{self, LocalTime};

/// Bytes of the longest line, which fits into one atomic write to a pipe (`PIPE_BUF`, pipe(7)).
pub(crate) const LONGEST: usize = 4_000;
/// Bytes of the longest text for the system log: RFC 3164 allows 1,024 with everything before it.
const LONGEST_SYSLOG: usize = 960;
/// The facility `daemon` (syslog(3)), as it is added to the severity.
const DAEMON: u8 = 3 << 3;
/// The end of a line that was truncated.
const ELLIPSIS: &str = "...";

/// A line like `2026-11-21 01:38:47+01:00 [INFO] text`, with a newline.
pub(crate) struct Line {
    level: Level,
    time: LocalTime,
    /// Invariant: never more than `LONGEST` bytes, which are allocated at start.
    bytes: String,
    /// Where the text begins.
    text: usize,
}

impl Line {
    pub(crate) fn new() -> Line {
        Line { level: Level::Info, time: localtime::now(), bytes: String::with_capacity(LONGEST), text: 0 }
    }

    /// A warning about the log itself.
    pub(crate) fn warning(text: &impl fmt::Display) -> Line {
        let mut line = Line::new();
        line.compose(Level::Warn, text);
        line
    }

    /// Composes a line with the present time.
    pub(crate) fn compose(&mut self, level: Level, text: &impl fmt::Display) {
        (self.level, self.time) = (level, localtime::now());
        self.bytes.clear();
        let mut bounded = Bounded { bytes: &mut self.bytes, left: LONGEST - ELLIPSIS.len() - 1 };
        let _ = write!(bounded, "{:.0}{} [{level}] ", self.time, self.time.offset);
        self.text = bounded.bytes.len();
        // An error means that the text was too long, or that a value in it cannot be shown.
        if write!(bounded, "{text}").is_err() {
            self.bytes.push_str(ELLIPSIS);
        }
        self.bytes.push('\n');
    }

    /// The text, without the newline.
    fn text(&self) -> &str {
        self.bytes[self.text..].trim_end_matches('\n')
    }

    /// As syslog(3) counts it.
    fn severity(&self) -> u8 {
        match self.level {
            Level::Error => 3,
            Level::Warn => 4,
            Level::Info => 6,
            Level::Debug | Level::Trace => 7,
        }
    }
}

/// The form for the console and the log file.
pub(crate) fn stamped(line: &Line, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(line.bytes.as_bytes());
}

/// The form for the journal, which stamps the lines itself and takes the level from a prefix (sd-daemon(3)).
pub(crate) fn for_journal(line: &Line, bytes: &mut Vec<u8>) {
    let _ = writeln!(bytes, "<{}>{}", line.severity(), line.text());
}

/// The form for the system log, by RFC 3164.
pub(crate) fn for_syslog(line: &Line, bytes: &mut Vec<u8>) {
    let text = line.text();
    let end = (0..=LONGEST_SYSLOG.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    let (priority, process) = (DAEMON + line.severity(), process::id());
    let _ = writeln!(bytes, "<{priority}>{:#} lastorders[{process}]: {}", line.time, &text[..end.unwrap_or(0)]);
}

/// Takes text until `left` bytes are used up, with its control characters escaped, as in `\n` or `\u{1b}`. Fails when
/// there is more text. Allocates nothing.
struct Bounded<'a> {
    bytes: &'a mut String,
    left: usize,
}

impl fmt::Write for Bounded<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|letter| self.write_char(letter))
    }

    fn write_char(&mut self, letter: char) -> fmt::Result {
        if is_harmful(letter) {
            return letter.escape_default().try_for_each(|letter| self.write_char(letter));
        }
        self.left = self.left.checked_sub(letter.len_utf8()).ok_or(fmt::Error)?;
        self.bytes.push(letter);
        Ok(())
    }
}

/// Control characters, C1 ones included, the line and paragraph separators, and the marks that change the direction.
fn is_harmful(letter: char) -> bool {
    letter.is_control() || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_form_and_cannot_be_forged() {
        let mut line = Line::new();
        line.compose(Level::Info, &"hello\n2026-11-21 01:38:47 [INFO] forged");
        assert_eq!(line.text(), "hello\\n2026-11-21 01:38:47 [INFO] forged");
        let shape: String =
            line.bytes.chars().map(|letter| if letter.is_ascii_digit() { '0' } else { letter }).collect();
        assert_eq!(shape, "0000-00-00 00:00:00+00:00 [INFO] hello\\n0000-00-00 00:00:00 [INFO] forged\n");
    }

    #[test]
    fn a_long_line_is_cut_between_letters() {
        let mut line = Line::new();
        for text in ["x".repeat(100_000), "ü".repeat(3_000), "\n".repeat(5_000)] {
            line.compose(Level::Warn, &text);
            assert!(line.bytes.len() <= LONGEST && line.bytes.len() > LONGEST - 8, "{}", line.bytes.len());
            assert!(line.text().ends_with("..."));
            assert_eq!(line.bytes.capacity(), LONGEST);
        }
        line.compose(Level::Warn, &"short");
        assert_eq!(line.text(), "short");
    }

    #[test]
    fn the_journal_and_the_system_log_stamp_the_lines_themselves() {
        let mut line = Line::new();
        line.compose(Level::Warn, &"hello");
        let (mut journal, mut syslog) = (vec![], vec![]);
        for_journal(&line, &mut journal);
        for_syslog(&line, &mut syslog);
        assert_eq!(String::from_utf8(journal).unwrap(), "<4>hello\n");
        let process = process::id();
        assert_eq!(String::from_utf8(syslog).unwrap(), format!("<28>{:#} lastorders[{process}]: hello\n", line.time));
        line.compose(Level::Error, &"ü".repeat(1_000));
        let mut syslog = vec![];
        for_syslog(&line, &mut syslog);
        assert!(syslog.starts_with(b"<27>") && syslog.len() <= 1_024 && String::from_utf8(syslog).is_ok());
    }

    fn escaped(text: &str) -> String {
        let mut bytes = String::new();
        Bounded { bytes: &mut bytes, left: usize::MAX }.write_str(text).unwrap();
        bytes
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(escaped("a\nb\r\t\u{1b}[31m\0\u{7f}"), r"a\nb\r\t\u{1b}[31m\u{0}\u{7f}");
        assert_eq!(escaped("\u{85}\u{9b}1m\u{2028}\u{202e}x"), r"\u{85}\u{9b}1m\u{2028}\u{202e}x");
    }

    #[test]
    fn other_text_is_left_alone() {
        for text in ["", "plain", "Grüße, 世界 \\n \"quoted\""] {
            assert_eq!(escaped(text), text);
        }
    }
}
