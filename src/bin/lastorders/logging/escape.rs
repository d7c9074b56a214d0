//! Makes text harmless to show: what could end a line, move a cursor or turn the reading direction is escaped.
//!
//! Texts of clients end up in log lines, and so does what the kernel or a library says about them. A newline
//! would let a client write lines of its own; an escape sequence would reach the terminal of whoever reads them.

use std::fmt::{self, Write};

/// Passes text on with its control characters escaped, as in `\n` or `\u{1b}`. Allocates nothing.
pub struct Escape<W>(pub W);

impl<W: Write> Write for Escape<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some((at, letter)) = rest.char_indices().find(|(_, letter)| harms(*letter)) {
            self.0.write_str(&rest[..at])?;
            write!(self.0, "{}", letter.escape_default())?;
            rest = &rest[at + letter.len_utf8()..];
        }
        self.0.write_str(rest)
    }
}

/// Control characters, C1 ones included, the line and paragraph separators, and what changes the direction.
fn harms(letter: char) -> bool {
    letter.is_control() || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(text: &str) -> String {
        let mut out = String::new();
        Escape(&mut out).write_str(text).unwrap();
        out
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
