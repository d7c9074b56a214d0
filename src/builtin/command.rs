//! Command: the client sends one line, gets the answer to it, and the connection is closed.
//!
//! What is answered is one table, [`COMMANDS`]: a line in it is a command. The usual port is 31310.

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

const HAIKU: &str = "A haiku on \"Error 404\"\r\n  You step in the stream,\r\n  \
                     But the water has moved on.\r\n  This file is not here.\r\n";

/// What precedes a line that is no command.
const UNKNOWN: &str = "Unknown command:";

/// Answers one line from a table of commands.
///
/// Every CR and LF at the line's end is stripped, and ASCII case makes no difference. A line that is in no
/// table comes back as it was sent, without its end, after `Unknown command:`. A line without an end is
/// answered when the client closes its sending side. A line that does not fit into the buffer together with
/// its newline is answered `ERROR: line too long\n`.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    table: &'static [(&'static str, &'static str)],
}

impl Command {
    /// Answers from a table of your own: names in any case, without CR and LF, and what is sent for them.
    pub fn new(table: &'static [(&'static str, &'static str)]) -> Command {
        Command { table }
    }

    /// The answer to a line, in two parts.
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
    /// How much of the answer is given: one longer than the buffer is sent in several parts.
    type Session = usize;

    fn open(&self, _: &mut Connection) -> io::Result<usize> {
        Ok(0)
    }

    fn serve(&self, connection: &mut Connection, given: &mut usize) -> io::Result<Flow> {
        let (input, output) = connection.split();
        let Some((taken, line)) = input.line() else {
            return if input.is_full() { refuse_long_line(output) } else { Ok(Flow::Continue) };
        };
        let mut skip = *given;
        for part in self.answer(line) {
            let rest = &part[skip.min(part.len())..];
            skip = skip.saturating_sub(part.len());
            let pushed = output.push(rest);
            *given += pushed;
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
        let haiku = "A haiku on \"Error 404\"\r\n  You step in the stream,\r\n  \
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
