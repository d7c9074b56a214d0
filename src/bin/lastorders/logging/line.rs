//! One log line, composed once for every sink.

use std::fmt::{self, Write};

use lastorders::localtime;
use log::Level;

use super::escape::Escape;

/// Bytes of the longest line. With the console's prefix it still fits a pipe's atomic write, `PIPE_BUF`.
const LONGEST: usize = 4_000;
/// Ends a line that was longer.
const CUT: &str = "...";

/// A line like `2026-11-21 01:38:47 [INFO] text`, with a newline.
pub struct Line {
    /// Never more than `LONGEST` bytes, which are allocated at start.
    bytes: String,
    /// Where the text begins.
    text: usize,
}

impl Line {
    pub fn new() -> Line {
        Line { bytes: String::with_capacity(LONGEST), text: 0 }
    }

    /// Composes a line from now on.
    pub fn compose(&mut self, level: Level, text: &impl fmt::Display) {
        self.bytes.clear();
        let mut room = Room { bytes: &mut self.bytes, left: LONGEST - CUT.len() - 1 };
        let _ = write!(room, "{:.0} [{level}] ", localtime::now());
        self.text = room.bytes.len();
        // An error means that it was too long, or that a value cannot be shown: the rest is left out.
        if write!(Escape(&mut room), "{text}").is_err() {
            self.bytes.push_str(CUT);
        }
        self.bytes.push('\n');
    }

    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_bytes()
    }

    /// The text, without the newline.
    pub fn text(&self) -> &str {
        self.bytes[self.text..].trim_end_matches('\n')
    }
}

/// As much of a text as fits into so many bytes.
pub fn cut(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

/// Takes as much as there is room for.
struct Room<'a> {
    bytes: &'a mut String,
    left: usize,
}

impl Write for Room<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let taken = cut(text, self.left);
        self.bytes.push_str(taken);
        self.left -= taken.len();
        if taken.len() == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_form_and_cannot_be_forged() {
        let mut line = Line::new();
        line.compose(Level::Info, &"hello\n2026-11-21 01:38:47 [INFO] forged");
        assert_eq!(line.text(), "hello\\n2026-11-21 01:38:47 [INFO] forged");
        let whole = String::from_utf8(line.bytes().to_vec()).unwrap();
        let shape: String = whole.chars().map(|letter| if letter.is_ascii_digit() { '0' } else { letter }).collect();
        assert_eq!(shape, "0000-00-00 00:00:00 [INFO] hello\\n0000-00-00 00:00:00 [INFO] forged\n");
    }

    #[test]
    fn a_long_line_is_cut_between_letters() {
        let mut line = Line::new();
        for text in ["x".repeat(100_000), "ü".repeat(3_000), "\n".repeat(5_000)] {
            line.compose(Level::Warn, &text);
            assert!(line.bytes().len() <= LONGEST && line.bytes().len() > LONGEST - 8, "{}", line.bytes().len());
            assert!(line.text().ends_with("..."));
            assert_eq!(line.bytes.capacity(), LONGEST);
        }
        line.compose(Level::Warn, &"short");
        assert_eq!(line.text(), "short");
    }
}
