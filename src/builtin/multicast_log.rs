//! Multicast log: logs what is sent to a multicast group, and answers nothing.
//!
//! Any machine can send to a group. The service must not let a datagram forge a line of the log or control a
//! terminal, so line ends, control characters and bytes that are not text are logged as escapes.

use std::fmt::{self, Write};
use std::io;
use std::net::SocketAddr;

use crate::config::DATAGRAM;
use crate::datagram::{Answer, Datagram};
use crate::log::{Text, info};
use crate::service::Reply;

/// Logs each datagram as `Received: TEXT from ADDR`, at level info.
///
/// TEXT is one line: backslashes and characters that control or do not show are Rust escapes, as in `\n`, and bytes
/// that are not UTF-8 are `\xFF`. Of a datagram of more than [`DATAGRAM`] bytes only the fact is logged. A call
/// blocks as long as the logger does.
#[derive(Clone, Copy, Debug, Default)]
pub struct MulticastLog;

impl Datagram for MulticastLog {
    fn receive(&self, packet: &[u8], from: SocketAddr, _: &mut Reply) -> io::Result<Answer> {
        info!("Received: {} from {}", Text(&Escaped(packet)), Text(&from));
        Ok(Answer::Silence)
    }

    fn oversized(&self, _: &[u8], from: SocketAddr, _: &mut Reply) -> io::Result<Answer> {
        info!("Received more than {} bytes from {}", DATAGRAM, Text(&from));
        Ok(Answer::Silence)
    }
}

struct Escaped<'a>(&'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for letter in chunk.valid().chars() {
                match letter {
                    '"' | '\'' => f.write_char(letter)?,
                    _ => letter.escape_debug().fmt(f)?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02X}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text_and_the_rest_is_escaped() {
        for (bytes, shown) in [
            (&b"Hello, multicast group!"[..], "Hello, multicast group!"),
            ("it's \"grün\" \u{1f600}".as_bytes(), "it's \"grün\" \u{1f600}"),
            (b"a\r\nb\tc\0\x1b[2J\x7f", r"a\r\nb\tc\0\u{1b}[2J\u{7f}"),
            ("\u{85}\u{2028}\u{202e}".as_bytes(), r"\u{85}\u{2028}\u{202e}"),
            (b"\\n", r"\\n"),
            (b"\xff\xc3(", r"\xFF\xC3("),
            (b"", ""),
        ] {
            assert_eq!(Escaped(bytes).to_string(), shown);
        }
    }
}
