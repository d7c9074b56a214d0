//! The line adapter: a closure that is given one line and writes one answer.

use std::io;

use super::{Flow, Service};
use crate::config::TURN;
use crate::connection::{Connection, Output};

/// Where a line's answer goes: as much as the output buffer holds.
///
/// It implements [`std::io::Write`], so `write!` works on it. What does not fit is
/// [`WriteZero`](io::ErrorKind::WriteZero), and closes the connection.
pub type Reply = Output;

/// A line service made of a closure: framing, the length limit, pipelining and the notice are done here.
///
/// Lines end in `\n`; a `\r` before it is dropped too. A last line without an end is served when the client
/// closes its sending side. A line longer than the limit is answered `ERROR: line too long\n`, and the
/// connection is closed.
///
/// ```
/// use lastorders::{Flow, Lines};
/// use std::io::Write;
///
/// let shout = Lines::new(|line, reply| {
///     reply.push(&line.to_ascii_uppercase());
///     writeln!(reply)?;
///     Ok(Flow::Continue)
/// });
/// # let _ = shout;
/// ```
pub struct Lines<F> {
    answer: F,
    longest: usize,
    largest_reply: usize,
}

impl<F> Lines<F>
where
    F: Fn(&[u8], &mut Reply) -> io::Result<Flow> + Send + Sync + 'static,
{
    /// A line service that calls `answer` with each line, without its end, and an output to answer into.
    pub fn new(answer: F) -> Lines<F> {
        Lines { answer, longest: usize::MAX, largest_reply: usize::MAX }
    }

    /// Limits lines to `bytes`, their end not counted. The buffer limits them in any case.
    pub fn longest_line(mut self, bytes: usize) -> Lines<F> {
        self.longest = bytes;
        self
    }

    /// Promises that no answer is longer than `bytes`.
    ///
    /// Pipelined lines are then answered together as long as one more answer of this size has room; without
    /// the promise, each answer is sent before the next line is looked at.
    pub fn largest_reply(mut self, bytes: usize) -> Lines<F> {
        self.largest_reply = bytes;
        self
    }
}

impl<F> Service for Lines<F>
where
    F: Fn(&[u8], &mut Reply) -> io::Result<Flow> + Send + Sync + 'static,
{
    type Session = ();

    fn open(&self, _: &mut Connection) -> io::Result<()> {
        Ok(())
    }

    fn serve(&self, connection: &mut Connection, (): &mut ()) -> io::Result<Flow> {
        let (input, output) = connection.split();
        for _ in 0..TURN {
            if !output.is_empty() && output.room() < self.largest_reply {
                break;
            }
            let Some((taken, line)) = input.line() else { break };
            if line.len() > self.longest {
                return too_long(output);
            }
            let flow = (self.answer)(line, output)?;
            input.consume(taken);
            if flow == Flow::Close {
                return Ok(Flow::Close);
            }
        }
        let unfinished = input.line().is_none();
        if unfinished && (input.is_full() || input.bytes().len() > self.longest.saturating_add(1)) {
            return too_long(output);
        }
        Ok(Flow::Continue)
    }

    fn notice(&self) -> &'static [u8] {
        b"SHUTDOWN\n"
    }
}

/// Answers a line that is longer than the buffer, or than a limit, and closes. Answers before it are kept, and
/// sent first when they leave no room; the line is discarded by the close.
pub(crate) fn too_long(output: &mut Output) -> io::Result<Flow> {
    const TEXT: &[u8] = b"ERROR: line too long\n";
    if output.room() < TEXT.len() {
        return Ok(Flow::Continue);
    }
    output.push(TEXT);
    Ok(Flow::Close)
}
