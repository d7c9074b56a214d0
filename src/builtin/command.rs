//! Command: the client sends one line and gets its answer, and the server closes the connection.
//!
//! One table, [`COMMANDS`], has all commands with their answers: a new command is a new line there.

use std::io;

use crate::connection::{Connection, Flow};
use crate::service::{Service, refuse_long_line};

/// The commands of [`Command::default`], in upper case, and their answers.
const COMMANDS: &[(&str, &str)] = &[
    ("SONG", "Old McDonald had a farm, E-I-E-I-O!\r\n"),
    ("QUOTE", "And now for something completely different...\r\n"),
    ("HAIKU", HAIKU),
    ("POEM", HAIKU),
];

const HAIKU: &str = "A haiku on \"Error 404\"\r\n\r\n  You step in the stream,\r\n  \
                     But the water has moved on.\r\n  This file is not here.\r\n";

/// The start of the answer to a line that is no command; the line follows.
const UNKNOWN: &str = "Unknown command:";

/// Answers one line from a table of commands, and closes the connection. The usual TCP port is 31310.
///
/// The service strips every CR and LF from the line's end, and ignores ASCII case. It answers a line that is not in the
/// table with `Unknown command:` and the line, without its end. If the client closes its sending side after a line
/// without an end, that line is answered too. A line that does not fit into the input buffer together with its newline
/// is answered `ERROR: line too long\n`. At shutdown the client gets `SHUTDOWN\n`.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    table: &'static [(&'static str, &'static str)],
}

impl Command {
    /// Answers from the caller's table of names and answers. A name matches in any ASCII case, and has no CR or LF at
    /// its end; an answer is sent as it is.
    pub fn new(table: &'static [(&'static str, &'static str)]) -> Command {
        Command { table }
    }

    /// The answer to a line, in two parts, of which the second is empty for a known command.
    fn answer<'a>(&self, line: &'a [u8]) -> [&'a [u8]; 2] {
        let end = line.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |at| at + 1);
        let line = &line[..end];
        let known = self.table.iter().find(|(name, _)| name.as_bytes().eq_ignore_ascii_case(line));
        known.map_or([UNKNOWN.as_bytes(), line], |(_, text)| [text.as_bytes(), b""])
    }
}

impl Default for Command {
    fn default() -> Command {
        Command::new(COMMANDS)
    }
}

impl Service for Command {
    /// Bytes of the answer that were written to the output. An answer longer than the buffer takes several calls.
    type Session = usize;

    fn open(&self, _: &mut Connection) -> io::Result<usize> {
        Ok(0)
    }

    fn serve(&self, connection: &mut Connection, written: &mut usize) -> io::Result<Flow> {
        let (input, output) = connection.split();
        let Some((taken, line)) = input.line() else {
            return if input.is_full() { refuse_long_line(output) } else { Ok(Flow::Continue) };
        };
        let mut skip = *written;
        for part in self.answer(line) {
            let rest = &part[skip.min(part.len())..];
            skip = skip.saturating_sub(part.len());
            let pushed = output.push(rest);
            *written += pushed;
            if pushed < rest.len() {
                return Ok(Flow::Continue);
            }
        }
        input.consume(taken);
        Ok(Flow::Close)
    }

    fn notice(&self) -> &'static [u8] {
        b"SHUTDOWN\n"
    }

    fn never_blocks(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(line: &str) -> String {
        let parts = Command::default().answer(line.as_bytes()).concat();
        String::from_utf8(parts).unwrap()
    }

    #[test]
    fn each_command_has_its_answer_in_any_case() {
        assert_eq!(answer("SONG"), "Old McDonald had a farm, E-I-E-I-O!\r\n");
        assert_eq!(answer("quote\r"), "And now for something completely different...\r\n");
        let haiku = "A haiku on \"Error 404\"\r\n\r\n  You step in the stream,\r\n  \
                     But the water has moved on.\r\n  This file is not here.\r\n";
        assert_eq!((answer("Haiku").as_str(), answer("pOEm\r\r").as_str()), (haiku, haiku));
    }

    #[test]
    fn anything_else_comes_back_as_it_was_sent() {
        for line in ["", "song ", " SONG", "SONGS", "Say\thé\0llo", "\rx"] {
            assert_eq!(answer(line), format!("Unknown command:{line}"));
        }
        assert_eq!(answer("nope\r\r"), "Unknown command:nope");
    }

    #[test]
    fn a_table_of_ones_own_replaces_the_built_in_one() {
        let own = Command::new(&[("time", "late\n")]);
        assert_eq!(own.answer(b"TIME"), [&b"late\n"[..], b""]);
        assert_eq!(own.answer(b"SONG"), [&b"Unknown command:"[..], b"SONG"]);
    }
}
