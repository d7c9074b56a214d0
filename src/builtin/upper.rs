//! Upper case: bytes go back with their ASCII letters in upper case, and every other byte unchanged.
//!
//! [`Upper`] answers bytes as they arrive, [`UpperLines`] answers whole lines. Both change the letters in the input
//! buffer, and copy each byte once.

use std::io;

use crate::connection::{Connection, Flow, Input, Output};
use crate::service::{Service, refuse_long_line};

/// Sends back what it receives in ASCII upper case. At shutdown the client gets `SHUTDOWN`, without a newline.
#[derive(Clone, Copy, Debug, Default)]
pub struct Upper;

/// Sends back each line in ASCII upper case, with its own line end.
///
/// If the client closes its sending side after a line without an end, that line is answered without an end. A line that
/// does not fit into the input buffer together with its newline is answered `ERROR: line too long\n`, and the
/// connection is closed. At shutdown the client gets `SHUTDOWN\n`.
#[derive(Clone, Copy, Debug, Default)]
pub struct UpperLines;

impl Service for Upper {
    type Session = ();

    fn open(&self, _: &mut Connection) -> io::Result<()> {
        Ok(())
    }

    fn serve(&self, connection: &mut Connection, (): &mut ()) -> io::Result<Flow> {
        let (input, output) = connection.split();
        let count = input.bytes().len();
        answer(input, output, count);
        Ok(Flow::Continue)
    }

    fn never_blocks(&self) -> bool {
        true
    }
}

impl Service for UpperLines {
    type Session = ();

    fn open(&self, _: &mut Connection) -> io::Result<()> {
        Ok(())
    }

    fn serve(&self, connection: &mut Connection, (): &mut ()) -> io::Result<Flow> {
        let (input, output) = connection.split();
        let bytes = input.bytes();
        // `line` searches only what is new, and is asked first.
        let whole = match input.line() {
            None if input.is_full() => return refuse_long_line(output),
            None => return Ok(Flow::Continue),
            Some(_) if input.has_ended() => bytes.len(),
            Some((first, _)) => bytes.iter().rposition(|byte| *byte == b'\n').map_or(first, |newline| newline + 1),
        };
        answer(input, output, whole);
        Ok(Flow::Continue)
    }

    fn notice(&self) -> &'static [u8] {
        b"SHUTDOWN\n"
    }

    fn never_blocks(&self) -> bool {
        true
    }
}

/// Answers as many of the first `count` bytes as fit into the output.
fn answer(input: &mut Input, output: &mut Output, count: usize) {
    input.bytes_mut()[..count].make_ascii_uppercase();
    let taken = output.push(&input.bytes()[..count]);
    input.consume(taken);
}
